//! Reads the live buffers of targets in the background: the records go on being drained meanwhile.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use super::Control;
use crate::event::LiveBaseline;

/// Reads a target's live buffers from its memory, or says why that is not possible.
pub type ReadLive = Arc<dyn Fn() -> Result<LiveBaseline, String> + Send + Sync>;

/// A target to be read.
struct Job {
    serial: u64,
    read: ReadLive,
    /// To wait before.
    delay: Duration,
}

/// How many targets are read at the same time: a reading keeps a core busy.
const THREADS: usize = 2;

/// Why there is nothing where what reads has panicked.
const PANICKED: &str = "reading them has failed: that is a defect of ttmem";

/// What was read, and for whom.
pub struct Reading {
    /// The target's serial.
    pub serial: u64,
    /// What was read.
    pub result: Result<LiveBaseline, String>,
}

/// The threads that read. They end when this is dropped and their reading is done.
pub struct Readers {
    jobs: Sender<Job>,
    readings: Receiver<Reading>,
}

impl Readers {
    /// Starts the threads; each reading wakes `control` up.
    pub fn start(control: &Arc<Control>) -> io::Result<Self> {
        let (jobs, waiting) = channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let (done, readings) = channel();
        for _ in 0..THREADS {
            let (waiting, done, control) =
                (Arc::clone(&waiting), done.clone(), Arc::clone(control));
            thread::Builder::new().name("ttmem-reader".to_owned()).spawn(move || {
                loop {
                    // Held while waiting: the other thread waits for the lock instead.
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { serial, read, delay }) = job else { return };
                    thread::sleep(delay);
                    // What it reads is anybody's, and this thread reads for others, too.
                    let result = catch_unwind(AssertUnwindSafe(|| read()));
                    let result = result.unwrap_or_else(|_| Err(PANICKED.to_owned()));
                    if done.send(Reading { serial, result }).is_err() {
                        return;
                    }
                    control.wake();
                }
            })?;
        }
        Ok(Self { jobs, readings })
    }

    /// Has a target read after a while; `false` if that is not possible any more.
    pub fn request(&self, serial: u64, read: &ReadLive, delay: Duration) -> bool {
        self.jobs.send(Job { serial, read: Arc::clone(read), delay }).is_ok()
    }

    /// A reading that is done.
    pub fn done(&self) -> Option<Reading> {
        self.readings.try_recv().ok()
    }

    /// The next reading that is done, waiting for it at most this long.
    pub fn done_within(&self, patience: Duration) -> Option<Reading> {
        self.readings.recv_timeout(patience).ok()
    }
}
