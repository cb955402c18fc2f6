//! Tests that cannot run here say why, where the closing line finds it.

use std::{env, fs::OpenOptions, io::Write as _, path::PathBuf};

/// Notes that a test was skipped.
pub fn note(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}");
    println!("{line}");
    if let Some(path) = env::var_os("TTMEM_SKIP_FILE")
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path)
    {
        // In one piece: tests may run side by side.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

/// The path in an environment variable, if the test may be privileged and the path is there.
pub fn path_from(variable: &str) -> Result<PathBuf, String> {
    if env::var_os("TTMEM_PRIVILEGED").is_none_or(|value| value != "1") {
        return Err("needs root, or passwordless sudo".to_owned());
    }
    let path = env::var_os(variable).map(PathBuf::from);
    path.filter(|path| path.exists()).ok_or_else(|| format!("{variable} names nothing"))
}

/// The value of a `Result<_, String>`; ends the test with a note if there is none.
#[macro_export]
macro_rules! or_skip {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(reason) => {
                $crate::skip::note(std::thread::current().name().unwrap_or("a test"), &reason);
                return;
            }
        }
    };
}
