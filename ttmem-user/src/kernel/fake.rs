//! What the kernel and the probes write, in files, for tests.

use std::{collections::VecDeque, fs::File, os::fd::AsFd as _, os::unix::fs::FileExt as _};

use rustix::fs::{MemfdFlags, memfd_create};
use ttmem_common::cpu_ring::{
    BESIDE, CHUNK, CHUNK_BYTES, CONSUMED, PRODUCED, RESTARTED, SIZE, STATE_WORDS, TAKEN, TAKEN_NS,
};

use super::{
    cpu_rings::CpuRings,
    ring::{BUSY, HEADER, Ring},
};

fn file(name: &str, bytes: u64) -> File {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC).unwrap());
    file.set_len(bytes).unwrap();
    file
}

fn load(file: &File, at: u64) -> u64 {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at).unwrap();
    u64::from_ne_bytes(word)
}

/// A ring buffer as the kernel writes it.
pub(super) struct FakeRing {
    file: File,
    size: u64,
    produced: u64,
    /// Where records are that are still being written, and what becomes of them.
    busy: VecDeque<(u64, u32)>,
}

impl FakeRing {
    pub fn new(size: u32) -> (Self, Ring) {
        let file = file("ring", 2 * page() + u64::from(size));
        let ring = Ring::map(file.try_clone().unwrap().into(), size).unwrap();
        (Self { file, size: size.into(), produced: 0, busy: VecDeque::new() }, ring)
    }

    pub fn consumed(&self) -> u64 {
        load(&self.file, 0)
    }

    pub const fn produced(&self) -> u64 {
        self.produced
    }

    fn write(&self, position: u64, bytes: &[u8]) {
        for (position, byte) in (position..).zip(bytes) {
            let at = 2 * page() + position % self.size;
            self.file.write_all_at(&[*byte], at).unwrap();
        }
    }

    /// Reserves room for a record and writes it, all but its length; where. `None`: there is none.
    pub fn reserve(&mut self, record: &[u8], length: u32) -> Option<u64> {
        let end = self.produced + (HEADER as u64 + record.len() as u64).next_multiple_of(8);
        if end - self.consumed() > self.size {
            return None;
        }
        let at = self.produced;
        self.write(at, &(length | BUSY).to_ne_bytes());
        self.write(at + HEADER as u64, record);
        self.busy.push_back((at, length));
        self.produced = end;
        self.file.write_all_at(&end.to_ne_bytes(), page()).unwrap();
        Some(at)
    }

    /// The oldest record that is being written is done.
    pub fn commit_oldest(&mut self) {
        if let Some((position, length)) = self.busy.pop_front() {
            self.write(position, &length.to_ne_bytes());
        }
    }

    /// The record at a place is done.
    pub fn commit(&mut self, at: u64) {
        let index = self.busy.iter().position(|(position, _)| *position == at).unwrap();
        let (position, length) = self.busy.remove(index).unwrap();
        self.write(position, &length.to_ne_bytes());
    }
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// The states and rings of CPUs as the probes write them.
pub(super) struct FakeCpus {
    states: File,
    chunks: File,
    chunks_each: u32,
    restart: u64,
}

impl FakeCpus {
    /// `restart`: how far a ring comes before it begins anew, bytes.
    pub fn new(cpus: u32, chunks_each: u32, restart: u64) -> (Self, CpuRings) {
        let states = file("states", u64::from(cpus * STATE_WORDS) * 8);
        let chunks = file("chunks", u64::from(cpus * chunks_each * CHUNK_BYTES));
        let rings = CpuRings::map(states.as_fd(), chunks.as_fd(), cpus, chunks_each).unwrap();
        (Self { states, chunks, chunks_each, restart }, rings)
    }

    fn word(cpu: u32, word: u32) -> u64 {
        u64::from(cpu * STATE_WORDS + word) * 8
    }

    fn get(&self, cpu: u32, word: u32) -> u64 {
        load(&self.states, Self::word(cpu, word))
    }

    fn set(&self, cpu: u32, word: u32, value: u64) {
        self.states.write_all_at(&value.to_ne_bytes(), Self::word(cpu, word)).unwrap();
    }

    /// A probe begins; whether it has the CPU for itself.
    pub fn enter(&self, cpu: u32) -> bool {
        let alone = self.get(cpu, TAKEN) == 0;
        if alone {
            self.set(cpu, TAKEN, 1);
            let (produced, round) = (self.get(cpu, PRODUCED), self.get(cpu, SIZE) - 1);
            if self.get(cpu, CONSUMED) == produced && produced & round >= self.restart {
                self.set(cpu, RESTARTED, (produced | round) + 1);
                self.set(cpu, PRODUCED, (produced | round) + 1);
            }
        } else {
            self.set(cpu, BESIDE, self.get(cpu, BESIDE) + 1);
        }
        alone
    }

    /// It knows the time.
    pub fn stamp(&self, cpu: u32, alone: bool, time_ns: u64) {
        if alone {
            self.set(cpu, TAKEN_NS, time_ns);
        }
    }

    /// It writes a record; `false`: there is no room.
    pub fn write(&self, cpu: u32, record: &[u8]) -> bool {
        let at = self.get(cpu, PRODUCED);
        let begin = self.get(cpu, CONSUMED).max(self.get(cpu, RESTARTED));
        if at + record.len() as u64 - begin > self.get(cpu, SIZE) {
            return false;
        }
        let chunk = (at / u64::from(CHUNK)) % u64::from(self.chunks_each);
        let chunk = u64::from(cpu * self.chunks_each) + chunk;
        let offset = chunk * u64::from(CHUNK_BYTES) + at % u64::from(CHUNK);
        self.chunks.write_all_at(record, offset).unwrap();
        true
    }

    /// It hands the record over.
    pub fn hand_over(&self, cpu: u32, record: &[u8]) {
        self.set(cpu, PRODUCED, self.get(cpu, PRODUCED) + record.len() as u64);
    }

    /// It ends.
    pub fn leave(&self, cpu: u32, alone: bool) {
        let word = if alone { TAKEN } else { BESIDE };
        self.set(cpu, word, self.get(cpu, word) - 1);
    }
}
