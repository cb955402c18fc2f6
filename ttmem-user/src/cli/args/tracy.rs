//! Arguments of `--tracy`.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use crate::tracy::{mirror::Style, wire::protocol::Choice};

/// Where Tracy's viewers look first.
const USUAL: &str = "127.0.0.1:8086";

/// How to show it in Tracy.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tracy")]
pub struct TracyArgs {
    /// Let a Tracy viewer connect, at this address; a port for each process, from this one on; port 0
    /// is any that is free [default: 127.0.0.1:8086].
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, require_equals = true,
          default_missing_value = USUAL, value_parser = address)]
    pub tracy: Option<SocketAddr>,
    /// Who speaks to the viewer.
    #[arg(long, value_enum, value_name = "BACKEND", requires = "tracy", default_value = "wire")]
    pub tracy_backend: Backend,
    /// The protocol to speak: auto, 66, 69, 72, 74, 76 or 82, or that of Tenstorrent's viewers,
    /// tt-66, tt-79 or tt-83.
    #[arg(long, value_name = "VERSION", requires = "tracy", default_value_t = Choice::Negotiated,
          value_parser = protocol)]
    pub tracy_protocol: Choice,
    /// What pools are called.
    #[arg(long, value_enum, value_name = "STYLE", requires = "tracy", default_value = "ttmem")]
    pub tracy_names: Names,
}

/// Who speaks to the viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// ttmem itself: the target's own times and threads, every version of the protocol.
    Wire,
    /// Tracy's own client, 0.14.1, in a process without rights: protocol 82 alone.
    #[cfg(feature = "tracy-client")]
    Client,
}

impl From<Backend> for crate::tracy::Backend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Wire => Self::Wire,
            #[cfg(feature = "tracy-client")]
            Backend::Client => Self::Client,
        }
    }
}

/// What pools are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Names {
    /// TT_Dev0_L1.
    Ttmem,
    /// Device 0 L1, as in tt-metal's own Tracy build.
    Ttmetal,
}

impl From<Names> for Style {
    fn from(names: Names) -> Self {
        match names {
            Names::Ttmem => Self::Ttmem,
            Names::Ttmetal => Self::TtMetal,
        }
    }
}

/// An address and a port, or only a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("127.0.0.1:{text}")
    } else {
        text.to_owned()
    };
    let problem = "an address and a port, 0 to 65535, are needed, as in 127.0.0.1:8086";
    text.parse().map_err(|_| problem.to_owned())
}

fn protocol(text: &str) -> Result<Choice, String> {
    Choice::named(text)
        .ok_or_else(|| "auto, 66, 69, 72, 74, 76, 82, tt-66, tt-79 or tt-83 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    fn parse(options: &[&str]) -> Result<TracyArgs, clap::Error> {
        let words = ["ttmem", "attach", "--pid", "7"].iter().chain(options);
        match Arguments::try_parse_from(words)?.command {
            Command::Attach(args) => Ok(args.watch.tracy),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_off_until_it_is_asked_for() {
        assert_eq!(parse(&[]).unwrap().tracy, None);
        for (option, expected) in [
            ("--tracy", USUAL),
            ("--tracy=9000", "127.0.0.1:9000"),
            ("--tracy=0.0.0.0:8086", "0.0.0.0:8086"),
            ("--tracy=[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(parse(&[option]).unwrap().tracy, Some(expected.parse().unwrap()));
        }
        let forks =
            parse(&["--tracy", "--tracy-protocol=tt-79", "--tracy-names", "ttmetal"]).unwrap();
        assert_eq!(forks.tracy_protocol, Choice::Fork(79));
        assert_eq!(Style::from(forks.tracy_names), Style::TtMetal);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            &["--tracy=x"][..],
            &["--tracy=1.2.3.4"],
            &["--tracy=99999"],
            &["--tracy", "--tracy-protocol", "81"],
            &["--tracy-protocol", "82"],
            &["--tracy-names", "ttmetal"],
            &["--tracy-backend", "wire"],
            &["--tracy", "--tracy-backend", "other"],
            &["--once", "--tracy"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
