//! A version of ttnn.

use std::fmt;
use std::str::FromStr;

/// Major, minor, patch; they compare as they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

/// The first version whose library is known to be understood.
pub const OLDEST: Version = Version([0, 60, 1]);
/// The first version that runs on mock devices.
pub const FIRST_ON_MOCKS: Version = Version([0, 75, 0]);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        f.pad(&format!("{major}.{minor}.{patch}"))
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u32> = text.split('.').map_while(|part| part.parse().ok()).collect();
        let numbers = <[u32; 3]>::try_from(numbers).ok().filter(|_| text.split('.').count() == 3);
        numbers.map(Self).ok_or_else(|| format!("{text} is no version such as 0.81.1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("0.9.0") < version("0.60.1"));
        assert_eq!(version("0.60.1"), OLDEST);
        assert_eq!(version("0.81.1").to_string(), "0.81.1");
        for bad in ["0.81", "0.81.1.2", "0.81.x", "0.81.1rc1", ""] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
