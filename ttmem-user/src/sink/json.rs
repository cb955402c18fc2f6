//! What is known as JSON, one object per line; the types say what is in it.

use std::io::{self, Write};

use serde::Serialize;

/// Writes one line.
pub fn write(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, what)?;
    to.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_snapshot_is_one_line_with_the_schema_first() {
        let mut line = Vec::new();
        write(&mut line, &fixture::normal()).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with("{\"schema\":\"ttmem.snapshot/1\",\"time_ns\":"));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with('\n'));
    }
}
