//! Prints what a process holds of each of its chips, from shared memory alone.
//!
//! ```sh
//! cargo run --release --example read_table -- PID [DIRECTORY]
//! ```

use std::{env, path::PathBuf, process::ExitCode};

use ttmem::table::{
    directory::usual_for_readers,
    reader::{Table, open},
};

fn print(table: &Table) -> Result<(), Box<dyn std::error::Error>> {
    let header = table.header()?;
    println!("process {}: {}", header.process.pid, header.command);
    for chip in table.chips()? {
        for pool in &chip.pools {
            let used =
                pool.used_bytes.map_or("not known".to_owned(), |used| format!("{used} bytes"));
            println!(
                "chip {} {:?}: {used} in {} buffers",
                chip.chip.0, pool.buffer_type, pool.buffers
            );
        }
    }
    match (header.exact, header.inexact_because) {
        (true, _) => println!("exact"),
        (false, why) => println!("not exact: {why}"),
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(pid) = arguments.next().and_then(|text| text.parse().ok()) else {
        eprintln!("usage: read_table PID [DIRECTORY]");
        return ExitCode::FAILURE;
    };
    let places =
        arguments.next().map_or_else(usual_for_readers, |directory| vec![PathBuf::from(directory)]);
    let printed = open(&places, pid).map_err(Into::into).and_then(|table| print(&table));
    if let Err(error) = printed {
        eprintln!("read_table: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
