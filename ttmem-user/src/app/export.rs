//! Writes what the live view exports, into the current folder.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
};

use crate::tui::{Request, export::File};

/// Writes the file that is asked for, and says what became of it; nothing else is done.
pub fn only(request: Request) -> Option<String> {
    let Request::Export(file) = request else { return None };
    Some(match write(&file) {
        Ok(()) => format!("written: {}", file.name),
        Err(error) => format!("cannot write {} into this folder: {error}", file.name),
    })
}

/// An existing file stays as it is, and no link is followed.
fn write(file: &File) -> io::Result<()> {
    let mut to = OpenOptions::new().write(true).create_new(true).open(&file.name)?;
    to.write_all(file.text.as_bytes())
}
