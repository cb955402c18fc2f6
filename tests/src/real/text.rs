//! Whether a library's code in a process is what its file says: no breakpoint is left behind.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// How often the code is compared while it is to become clean.
const TICK: Duration = Duration::from_millis(5);

/// What is compared at once.
const PAGE: usize = 4096;

/// An executable mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
}

/// The executable mappings of a library in a process.
pub fn mappings(pid: u32, library: &Path) -> Result<Vec<Mapping>> {
    let library = fs::canonicalize(library)?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let of_library = maps.lines().filter(|line| line.ends_with(&*library.to_string_lossy()));
    of_library.filter(|line| line.contains(" r-xp ")).map(parse).collect()
}

fn parse(line: &str) -> Result<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) =
        words.next().and_then(|range| range.split_once('-')).context("no range in the mappings")?;
    let offset = words.nth(1).context("no offset in the mappings")?;
    let number = |text| u64::from_str_radix(text, 16);
    Ok(Mapping { start: number(start)?, end: number(end)?, offset: number(offset)? })
}

/// File offsets of the bytes of code that differ from the file's.
pub fn differences(pid: u32, library: &Path) -> Result<Vec<u64>> {
    let mappings = mappings(pid, library)?;
    ensure!(!mappings.is_empty(), "process {pid} has not mapped {}", library.display());
    let file = File::open(library)?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut differences = Vec::new();
    for mapping in mappings {
        let size = usize::try_from(mapping.end - mapping.start)?;
        let (mut here, mut there) = (vec![0; size], vec![0; size]);
        memory.read_exact_at(&mut here, mapping.start).context("cannot read the code")?;
        read_to_end_at(&file, &mut there, mapping.offset)?;
        // Page by page: whole pages compare fast even in a debug build.
        for (number, (here, there)) in here.chunks(PAGE).zip(there.chunks(PAGE)).enumerate() {
            if here != there {
                let offset = mapping.offset + (number * PAGE) as u64;
                let differ = here.iter().zip(there).enumerate().filter(|(_, (a, b))| a != b);
                differences.extend(differ.map(|(at, _)| offset + at as u64));
            }
        }
    }
    Ok(differences)
}

/// The mapping's last page may reach beyond the end of the file; it is zero there.
fn read_to_end_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
    let size = file.metadata()?.len().saturating_sub(offset);
    let size = usize::try_from(size)?.min(buffer.len());
    Ok(file.read_exact_at(&mut buffer[..size], offset)?)
}

/// Waits until the code is the file's again; returns how long that took.
pub fn wait_until_clean(pid: u32, library: &Path, deadline: Duration) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let left = differences(pid, library)?;
        if left.is_empty() {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < deadline, "still different after {deadline:?}: {left:x?}");
        thread::sleep(TICK);
    }
}
