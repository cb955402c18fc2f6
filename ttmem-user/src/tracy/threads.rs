//! Names of the target's threads: read when a thread is first seen, for it may be gone by the time
//! that a viewer asks.

use std::{collections::HashMap, fs};

use foldhash::fast::RandomState;

use crate::{format, units::Pid};

/// The names so far.
#[derive(Debug)]
pub struct Threads {
    pid: Pid,
    names: HashMap<u32, String, RandomState>,
    last: u32,
}

impl Threads {
    /// Of a process.
    pub fn new(pid: Pid) -> Self {
        let mut threads = Self { pid, names: HashMap::default(), last: 0 };
        threads.seen(pid.0);
        threads
    }

    /// Something was seen of a thread.
    pub fn seen(&mut self, tid: u32) {
        if tid == self.last {
            return;
        }
        self.last = tid;
        let pid = self.pid;
        self.names.entry(tid).or_insert_with(|| {
            let name = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
            let name = name.map(|name| format::one_line(name.trim_end())).unwrap_or_default();
            if name.is_empty() { format!("thread {tid}") } else { name }
        });
    }

    /// The name of a thread.
    pub fn name(&self, tid: u32) -> String {
        self.names.get(&tid).cloned().unwrap_or_else(|| format!("thread {tid}"))
    }
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
    }
}
