//! Names of the target's threads: read when a thread is seen, for it may be gone by the time that a
//! viewer asks, and now and then anew, for another thread may have its id by then.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;

use crate::{format, units::Pid};

/// How long a name is believed.
const FRESH: Duration = Duration::from_secs(1);
/// Names that are kept: the latest.
const MAX_NAMES: usize = 4096;

/// The names so far.
#[derive(Debug)]
pub struct Threads {
    pid: Pid,
    names: HashMap<u32, Name, RandomState>,
    /// The thread that was seen last, and until when nothing needs to be done about it.
    last: Option<(u32, Instant)>,
}

#[derive(Debug)]
struct Name {
    text: String,
    read: Instant,
}

impl Threads {
    /// Of a process.
    pub fn new(pid: Pid) -> Self {
        let mut threads = Self { pid, names: HashMap::default(), last: None };
        threads.seen(pid.0);
        threads
    }

    /// Something was seen of a thread.
    pub fn seen(&mut self, tid: u32) {
        self.seen_at(tid, Instant::now());
    }

    fn seen_at(&mut self, tid: u32, now: Instant) {
        if self.last.is_some_and(|(last, until)| last == tid && now < until) {
            return;
        }
        let read = match self.names.get(&tid) {
            Some(name) if now < name.read + FRESH => name.read,
            found => {
                let text = self.read(tid);
                // Of one that has ended the name stays.
                let kept = found.map(|name| name.text.clone());
                let text = text.or(kept).unwrap_or_else(|| unnamed(tid));
                self.make_room();
                self.names.insert(tid, Name { text, read: now });
                now
            }
        };
        self.last = Some((tid, read + FRESH));
    }

    fn read(&self, tid: u32) -> Option<String> {
        let name = fs::read_to_string(format!("/proc/{}/task/{tid}/comm", self.pid)).ok()?;
        Some(format::one_line(name.trim_end())).filter(|name| !name.is_empty())
    }

    /// Forgets the half that was not seen for longest, if there are as many as may be.
    fn make_room(&mut self) {
        if self.names.len() >= MAX_NAMES {
            let mut times: Vec<Instant> = self.names.values().map(|name| name.read).collect();
            let (_, middle, _) = times.select_nth_unstable(MAX_NAMES / 2);
            let middle = *middle;
            self.names.retain(|_, name| name.read > middle);
        }
    }

    /// The name of a thread.
    pub fn name(&self, tid: u32) -> String {
        self.names.get(&tid).map_or_else(|| unnamed(tid), |name| name.text.clone())
    }
}

fn unnamed(tid: u32) -> String {
    format!("thread {tid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_known_after_its_end() {
        let pid = Pid(std::process::id());
        let mut threads = Threads::new(pid);
        let body = || rustix::thread::gettid().as_raw_nonzero().get();
        let builder = std::thread::Builder::new().name("worker-7".to_owned());
        let (ask, asked) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let thread = builder.spawn(move || (ask.send(body()), told.recv())).unwrap();
        let tid = u32::try_from(asked.recv().unwrap()).unwrap();
        threads.seen(tid);
        drop(tell);
        let _ = thread.join();
        assert_eq!(threads.name(tid), "worker-7");
        assert_eq!(threads.name(1 << 30), "thread 1073741824");
        threads.seen_at(tid, Instant::now() + 2 * FRESH);
        assert_eq!(threads.name(tid), "worker-7", "nothing else has its id");
    }

    #[test]
    fn a_name_is_read_anew() {
        let own = Pid(std::process::id());
        let worker = std::thread::spawn(move || {
            let tid = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let comm = format!("/proc/self/task/{tid}/comm");
            let begun = Instant::now();
            let mut threads = Threads::new(own);
            // As if the id were another thread's by now.
            for (name, later, expected) in [
                ("one", Duration::ZERO, "one"),
                ("two", FRESH / 2, "one"),
                ("two", 2 * FRESH, "two"),
            ] {
                fs::write(&comm, name).unwrap();
                threads.seen_at(tid, begun + later);
                assert_eq!(threads.name(tid), expected);
            }
        });
        worker.join().unwrap();
    }

    #[test]
    fn there_is_an_end_to_names() {
        let mut threads = Threads::new(Pid(1 << 30));
        let begun = Instant::now();
        let last = 3 * u32::try_from(MAX_NAMES).unwrap();
        for tid in 1..=last {
            threads.seen_at(tid, begun + Duration::from_micros(tid.into()));
            assert!(threads.names.len() <= MAX_NAMES);
        }
        assert!(threads.names.contains_key(&last));
    }
}
