//! The first bytes of a connection: who asks, and who answers.

use super::{
    encoder::cut_at,
    protocol::{Choice, Protocol},
};

/// What a viewer begins with.
const SHIBBOLETH: &[u8; 8] = b"TracyPrf";
/// Length of what it begins with, bytes.
pub const OFFER_LEN: usize = 12;

/// The viewer is welcome.
const WELCOME: u8 = 1;
/// It speaks another version.
const MISMATCH: u8 = 2;
/// Somebody else is being served.
pub const BUSY: u8 = 3;

/// Only events from the connection on are sent; frees of what was never announced do no harm.
const FLAGS: u8 = 1 | 2;
/// x86-64.
const ARCHITECTURE: u8 = 2;
const PROGRAM_LEN: usize = 64;
const HOST_LEN: usize = 1024;

/// Why a viewer is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error("what connects is no Tracy viewer")]
    NoViewer,
    /// It speaks another version.
    #[error("the viewer speaks protocol {offered}; these fit: {fits}")]
    Version {
        /// Its version.
        offered: u32,
        /// Those that are spoken.
        fits: String,
    },
}

/// Reads an offer.
pub fn agree(offer: &[u8; OFFER_LEN], choice: Choice) -> Result<Protocol, Refusal> {
    let (shibboleth, version) = offer.split_at(SHIBBOLETH.len());
    if shibboleth != SHIBBOLETH {
        return Err(Refusal::NoViewer);
    }
    let mut number = [0; 4];
    number.copy_from_slice(version);
    let offered = u32::from_le_bytes(number);
    let fits = || choice.fits();
    choice.agree(offered).ok_or_else(|| Refusal::Version { offered, fits: fits() })
}

/// The answer to an offer that is refused; empty if nothing is to be said.
pub fn refuse(refusal: &Refusal) -> &'static [u8] {
    match refusal {
        Refusal::NoViewer => &[],
        Refusal::Version { .. } => &[MISMATCH],
    }
}

/// What the viewer is told of the program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Anything else about it, a line or several.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// When the trace begins, CLOCK_MONOTONIC nanoseconds.
    pub begun_ns: u64,
    /// Seconds since 1970 at that instant.
    pub begun_epoch: u64,
}

/// The answer to an offer that is accepted, at `now_ns` (CLOCK_MONOTONIC).
pub fn welcome(protocol: &Protocol, program: &Program, now_ns: u64) -> Vec<u8> {
    let mut out = vec![WELCOME];
    // Times are nanoseconds already.
    out.extend(1.0_f64.to_le_bytes());
    out.extend(program.begun_ns.to_le_bytes());
    out.extend(program.begun_ns.to_le_bytes());
    if protocol.has_delay() {
        out.extend(0_u64.to_le_bytes());
    }
    out.extend(1_u64.to_le_bytes()); // resolution, ns
    out.extend(program.begun_epoch.to_le_bytes());
    out.extend(0_u64.to_le_bytes()); // when the executable was built: no source files are wanted
    out.extend(u64::from(program.pid).to_le_bytes());
    out.extend(0_i64.to_le_bytes()); // nothing is sampled
    out.extend([FLAGS, ARCHITECTURE]);
    out.extend(*b"ttmem\0\0\0\0\0\0\0");
    out.extend(0_u32.to_le_bytes());
    put_text(&mut out, &program.name, PROGRAM_LEN);
    put_text(&mut out, &program.host, HOST_LEN);
    out.extend(0_u64.to_le_bytes()); // frames so far
    out.extend(now_ns.to_le_bytes());
    out
}

/// As much of the text as fits, and zeros.
fn put_text(out: &mut Vec<u8>, text: &str, len: usize) {
    let end = out.len() + len;
    out.extend(&text.as_bytes()[..cut_at(text, len - 1)]);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(version: u32) -> [u8; OFFER_LEN] {
        let mut bytes = [0; OFFER_LEN];
        bytes[..8].copy_from_slice(SHIBBOLETH);
        bytes[8..].copy_from_slice(&version.to_le_bytes());
        bytes
    }

    #[test]
    fn a_version_that_is_not_known_is_told_which_fit() {
        let refusal = agree(&offer(64), Choice::Negotiated).unwrap_err();
        assert_eq!(refuse(&refusal), [MISMATCH]);
        let text = refusal.to_string();
        assert!(text.contains("protocol 64") && text.contains("82 (Tracy 0.14)"), "{text}");
    }

    #[test]
    fn a_welcome_is_as_long_as_the_viewer_expects() {
        let program = Program {
            name: "ü".repeat(64),
            host: String::new(),
            pid: 7,
            begun_ns: 5,
            begun_epoch: 0,
        };
        let len = |version| welcome(&Protocol::new(version, false), &program, 9).len();
        assert_eq!((len(82), len(76), len(74)), (1 + 1170 + 16, 1 + 1170 + 16, 1 + 1178 + 16));
        let bytes = welcome(&Protocol::new(82, false), &program, 9);
        assert!(std::str::from_utf8(&bytes[83..83 + 62]).is_ok(), "cut between letters");
        assert_eq!(bytes[83 + 62], 0);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_or_refused(bytes in any::<[u8; OFFER_LEN]>()) {
            prop_assert_eq!(agree(&bytes, Choice::Negotiated).is_ok(), false);
        }

        #[test]
        fn whatever_version_comes_is_taken_or_refused(version in any::<u32>()) {
            let taken = agree(&offer(version), Choice::Negotiated);
            prop_assert_eq!(taken.is_ok(), [66, 69, 72, 74, 76, 82].contains(&version));
        }
    }
}
