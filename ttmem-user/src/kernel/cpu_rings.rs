//! The reading end of the CPUs' own rings. Layout and protocol: `ttmem_common::cpu_ring`.
#![expect(unsafe_code, reason = "reads records from memory that is shared with the kernel")]

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{Ordering, fence},
};

use rustix::mm::ProtFlags;
use ttmem_common::{
    cpu_ring::{
        BESIDE, CHUNK, CHUNK_BYTES, CHUNKS, CONSUMED, MAX_RECORD, PRODUCED, RESTARTED, SIZE,
        STATE_WORDS, TAKEN, TAKEN_NS,
    },
    record::{RecordHeader, len_of},
};

use super::ring::{HAND_BACK, Mapping};
use crate::{fetch::fetch, words::Words};

/// How far ahead of what is read the processor is told to fetch, in bytes.
const AHEAD: u64 = 2048;

/// The rings of all CPUs.
#[derive(Debug)]
pub struct CpuRings {
    states: Words,
    chunks: Mapping,
    chunk_mask: u32,
    rings: Vec<CpuRing>,
}

/// The ring of one CPU. Positions count bytes since the start.
#[derive(Debug)]
struct CpuRing {
    state: u32,
    first_chunk: u32,
    /// What is before has been read.
    read: u64,
    /// What is before can be overwritten.
    handed_back: u64,
    /// What is before was there at the last look.
    end: u64,
}

impl CpuRings {
    /// Maps the state of each CPU and their rings, of so many chunks each, and sets them up.
    pub fn map(
        states: BorrowedFd<'_>,
        chunks: BorrowedFd<'_>,
        cpus: u32,
        chunks_each: u32,
    ) -> io::Result<Self> {
        let states = Words::map(states, (cpus * STATE_WORDS) as usize * 8)?;
        let bytes = cpus as usize * chunks_each as usize * CHUNK_BYTES as usize;
        let chunks = Mapping::new(chunks, bytes, 0, ProtFlags::READ)?;
        let chunk_mask = chunks_each - 1;
        let rings = (0..cpus).map(|cpu| {
            let (state, first_chunk) = (cpu * STATE_WORDS, cpu * chunks_each);
            let halves = u64::from(first_chunk) | (u64::from(chunk_mask) << 32);
            states.long(state + CHUNKS).store(halves, Ordering::Relaxed);
            let size = u64::from(chunks_each) * u64::from(CHUNK);
            states.long(state + SIZE).store(size, Ordering::Release);
            CpuRing { state, first_chunk, read: 0, handed_back: 0, end: 0 }
        });
        let rings = rings.collect();
        Ok(Self { states, chunks, chunk_mask, rings })
    }

    /// Number of rings.
    pub const fn len(&self) -> usize {
        self.rings.len()
    }

    /// Looks at every CPU: up to here records are handed over from now on. Since when something has been
    /// under way, CLOCK_MONOTONIC nanoseconds: what happened before is there. `None`: nothing is.
    pub fn look(&mut self) -> Option<u64> {
        // What somebody had done before the look was asked for has to be seen.
        fence(Ordering::SeqCst);
        let mut earliest = None;
        for ring in &mut self.rings {
            let word = |word| self.states.long(ring.state + word).load(Ordering::Acquire);
            // In this order: who enters after it was seen to be free has a later time than the look,
            // and who has it writes its time first, and moves the position last.
            let (taken, beside) = (word(TAKEN), word(BESIDE));
            let since = match (taken, beside) {
                (0, 0) => None,
                // Whoever is beside says no time.
                (_, 1..) => Some(0),
                (1.., 0) => Some(word(TAKEN_NS)),
            };
            earliest = [earliest, since].into_iter().flatten().min();
            ring.end = word(PRODUCED);
            // In this order: where a ring has begun anew is never missed for a position behind it.
            // One ahead of that position is for the next look.
            let restarted = word(RESTARTED);
            if restarted <= ring.end {
                ring.read = ring.read.max(restarted);
            }
        }
        earliest
    }

    /// When the next record that was there at the last look happened, CLOCK_MONOTONIC nanoseconds.
    pub fn next_ns(&self, cpu: usize) -> Option<u64> {
        let ring = &self.rings[cpu];
        // SAFETY: a record is there.
        (ring.read != ring.end).then(|| unsafe { header(self.data(ring, ring.read)) }.time_ns)
    }

    /// Takes records, as many as there is room for, until one is not earlier than a time; there has to
    /// be one. How many, and when the next one happened.
    ///
    /// # Safety
    /// The bytes must not be used after they have been handed back.
    #[inline]
    pub unsafe fn take(
        &mut self,
        cpu: usize,
        until_ns: u64,
        into: &mut [&[u8]],
    ) -> (usize, Option<u64>) {
        let ring = &self.rings[cpu];
        let (mut at, end) = (ring.read, ring.end);
        let (mut count, mut next) = (0, None);
        for to in into {
            if at == end {
                break;
            }
            let start = self.data(ring, at);
            // SAFETY: a record is there.
            let RecordHeader { time_ns, kind, .. } = unsafe { header(start) };
            if count > 0 && time_ns >= until_ns {
                next = Some(time_ns);
                break;
            }
            fetch(self.data(ring, at + AHEAD));
            let (len, step) = extent(kind, end - at);
            // SAFETY: inside a chunk and the room behind it; the rest is the caller's.
            *to = unsafe { std::slice::from_raw_parts(start, len) };
            count += 1;
            at += step;
        }
        self.rings[cpu].read = at;
        (count, next.or_else(|| self.next_ns(cpu)))
    }

    /// Lets what has been read be overwritten. `if_much`: only if it is worth it.
    pub fn hand_back(&mut self, cpu: usize, if_much: bool) {
        let ring = &mut self.rings[cpu];
        let least = if if_much { HAND_BACK } else { 1 };
        if ring.read - ring.handed_back >= least {
            ring.handed_back = ring.read;
            self.states.long(ring.state + CONSUMED).store(ring.read, Ordering::Release);
        }
    }

    /// Bytes that wait, and the size of all rings.
    pub fn fill(&self) -> (u64, u64) {
        let waits = |ring: &CpuRing| {
            let word = |word| self.states.long(ring.state + word).load(Ordering::Acquire);
            word(PRODUCED).saturating_sub(ring.read.max(word(RESTARTED)))
        };
        let size = u64::from(self.chunk_mask + 1) * u64::from(CHUNK) * self.rings.len() as u64;
        (self.rings.iter().map(waits).sum(), size)
    }

    /// Where the data of a position is.
    #[inline]
    fn data(&self, ring: &CpuRing, position: u64) -> *const u8 {
        #[expect(clippy::cast_possible_truncation, reason = "a mask follows")]
        let chunk = (position / u64::from(CHUNK)) as u32 & self.chunk_mask;
        #[expect(clippy::cast_possible_truncation, reason = "less than a chunk")]
        let offset = (position % u64::from(CHUNK)) as usize;
        self.chunks.at((ring.first_chunk + chunk) as usize * CHUNK_BYTES as usize + offset)
    }
}

/// The header of a record.
///
/// # Safety
/// There is one: it was written before the position was moved, and is inside a chunk and the room
/// behind it. Records begin at multiples of 8.
#[inline]
unsafe fn header(record: *const u8) -> RecordHeader {
    // SAFETY: as the caller says.
    let bytes = unsafe { &*record.cast::<[u8; size_of::<RecordHeader>()]>() };
    zerocopy::transmute!(*bytes)
}

/// Bytes of a record, and to the next one, of those that are left.
#[inline]
fn extent(kind: u32, left: u64) -> (usize, u64) {
    match LENGTHS.get(kind as usize) {
        Some(&len) if len != 0 && u64::from(len) <= left => (len.into(), len.into()),
        // No such record is ever written. What follows cannot be told apart: it is not read, and what
        // is handed over instead is refused.
        _ => (size_of::<RecordHeader>(), left),
    }
}

/// Bytes of the records of each kind; 0: they are never in such a ring. A table, since a processor
/// cannot guess which kind is next.
const LENGTHS: [u16; 32] = {
    let mut lengths = [0; 32];
    let mut kind = 0;
    while kind < lengths.len() {
        #[expect(clippy::cast_possible_truncation, reason = "a few kinds, and short records")]
        if let Some(len) = len_of(kind as u32)
            && len <= MAX_RECORD as usize
        {
            lengths[kind] = len as u16;
        }
        kind += 1;
    }
    lengths
};

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, thread};

    use ttmem_common::record::{FreeRecord, KIND_FREE};
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::kernel::fake::FakeCpus;

    /// The record of the event with a number.
    fn record(number: u64) -> FreeRecord {
        let header = RecordHeader { time_ns: number, kind: KIND_FREE, slot: 0, tgid: 1, tid: 1 };
        FreeRecord { header, buffer: number, allocator: 0 }
    }

    /// Whenever the reader looks while a probe has the ring begin anew, nothing is lost, and nothing
    /// is read that is not there.
    #[test]
    fn a_ring_begins_anew_while_it_is_read() {
        const EVENTS: u64 = 100_000;
        let (cpus, mut rings) = FakeCpus::new(1, 1, 64);
        let wrong = AtomicBool::new(false);
        let probes = || {
            for number in 1..=EVENTS {
                let record = record(number);
                let alone = cpus.enter(0);
                cpus.stamp(0, alone, number);
                while !cpus.write(0, record.as_bytes()) {
                    if wrong.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::yield_now();
                }
                cpus.hand_over(0, record.as_bytes());
                cpus.leave(0, alone);
            }
        };
        thread::scope(|scope| {
            scope.spawn(probes);
            let mut expected = 1;
            while expected <= EVENTS {
                rings.look();
                let mut next = rings.next_ns(0);
                while next.is_some() {
                    let mut into: [&[u8]; 4] = [&[]; 4];
                    // SAFETY: they are handed back behind the loop.
                    let (count, then) = unsafe { rings.take(0, u64::MAX, &mut into) };
                    for bytes in &into[..count] {
                        wrong.store(*bytes != record(expected).as_bytes(), Ordering::Relaxed);
                        assert_eq!(*bytes, record(expected).as_bytes());
                        expected += 1;
                    }
                    next = then;
                }
                rings.hand_back(0, false);
            }
            rings.look();
            assert_eq!(rings.fill().0, 0);
        });
    }
}
