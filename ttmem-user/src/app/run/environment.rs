//! An environment as bytes, as `/proc/PID/environ` has it: how it comes from sudo, and how it reaches a
//! command.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

/// Variables by name.
pub type Environment = HashMap<OsString, OsString>;

/// Takes an environment apart; what has no `=` is left out.
pub fn parse(bytes: &[u8]) -> Environment {
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
            Some((text(&entry[..at]), text(&entry[at + 1..])))
        })
        .collect()
}

/// The reverse.
pub fn bytes(environment: &Environment) -> Vec<u8> {
    let entry = |(name, value): (&OsString, &OsString)| {
        [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat()
    };
    environment.iter().flat_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_taken_apart_at_the_first_equals_sign() {
        let environment = parse(b"A=1\0B=x=y\0\0broken\0C=\0");
        let value = |name: &str| environment.get(OsStr::new(name)).and_then(|v| v.to_str());
        assert_eq!(environment.len(), 3);
        assert_eq!((value("A"), value("B"), value("C")), (Some("1"), Some("x=y"), Some("")));
        assert_eq!(parse(&bytes(&environment)), environment);
    }
}
