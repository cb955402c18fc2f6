//! Writes what the live view exports, into the current folder.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
};

use crate::tui::{Request, export::File};

/// Files of one name that there may be; then it is said that there is one.
const MOST: u32 = 1_000;

/// Writes the file that is asked for, and says what became of it; nothing else is done.
pub fn only(request: Request) -> Option<String> {
    let Request::Export(file) = request else { return None };
    Some(match write(Path::new("."), &file) {
        Ok(name) => format!("written: {name}"),
        Err(error) => {
            format!("cannot write {} into this folder: {error}{}", file.name, hint(&error))
        }
    })
}

/// A folder of the user's is not root's to write to, once root is only the owner of its own files.
fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied && rustix::process::geteuid().is_root() {
        " (ttmem has given up root's rights: start it in a folder that belongs to root)"
    } else {
        ""
    }
}

/// Writes a file, and says under which name: with a number, if there is one of that name. An
/// existing file stays as it is, and no link is followed.
fn write(folder: &Path, file: &File) -> io::Result<String> {
    let mut number = 1;
    loop {
        let name = numbered(&file.name, number);
        match OpenOptions::new().write(true).create_new(true).open(folder.join(&name)) {
            Ok(mut to) => {
                to.write_all(file.text.as_bytes())?;
                return Ok(name);
            }
            // Time stands still while the views are held, and after the end.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn numbered(name: &str, number: u32) -> String {
    match name.rsplit_once('.') {
        Some((stem, ending)) if number > 1 => format!("{stem}-{number}.{ending}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_there_stays_and_the_next_has_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let file =
            |text: &str| File { name: "ttmem-map-7-5.json".to_owned(), text: text.to_owned() };
        // Not even a link that leads nowhere is followed.
        symlink(folder.path().join("elsewhere"), folder.path().join("ttmem-map-7-5-3.json"))
            .unwrap();
        for (text, name) in [("a", "5.json"), ("b", "5-2.json"), ("c", "5-4.json")] {
            let name = format!("ttmem-map-7-{name}");
            assert_eq!(write(folder.path(), &file(text)).unwrap(), name);
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), text);
        }
        assert!(!folder.path().join("elsewhere").exists());
        assert_eq!(fs::read_to_string(folder.path().join("ttmem-map-7-5.json")).unwrap(), "a");
        assert!(write(&folder.path().join("none"), &file("d")).is_err());
    }
}
