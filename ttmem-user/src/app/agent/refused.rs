//! Processes with tt-metal that cannot be watched, and which of them may be when another one goes.

use std::{collections::HashMap, io};

use super::admission::NoSlot;
use crate::{target::process::Process, units::Pid};

/// The processes, each as it was when it was refused.
#[derive(Debug, Default)]
pub struct Refused(HashMap<Pid, Refusal>);

#[derive(Debug)]
struct Refusal {
    /// `None`: it could not be opened.
    process: Option<Process>,
    /// There was not enough of something for it.
    for_want: bool,
    /// There is more of it since.
    again: bool,
}

impl Refused {
    /// Adds one, with why it cannot be watched.
    pub fn add(&mut self, process: Process, error: &anyhow::Error) {
        let for_want = is_for_want(error);
        let pid = process.pid();
        self.0.insert(pid, Refusal { process: Some(process), for_want, again: false });
    }

    /// Adds one of which nothing is known but that there is not enough of something to look at it. It can
    /// be looked at again at any time.
    pub fn add_unopened(&mut self, pid: Pid) {
        self.0.insert(pid, Refusal { process: None, for_want: true, again: true });
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a process need not be looked at. `has_room`: another one could be watched.
    pub fn is_settled(&self, pid: Pid, has_room: bool) -> bool {
        self.0.get(&pid).is_some_and(|refusal| !(refusal.again && has_room))
    }

    /// A target is gone: what it leaves may be what others lacked. Whether there are such.
    pub fn try_again(&mut self) -> bool {
        let mut any = false;
        for refusal in self.0.values_mut() {
            refusal.again |= refusal.for_want;
            any |= refusal.again;
        }
        any
    }

    /// Takes one out; whether it was there.
    pub fn forget(&mut self, pid: Pid) -> bool {
        self.0.remove(&pid).is_some()
    }

    /// Takes all out.
    pub fn take(&mut self) -> Vec<Pid> {
        self.0.drain().map(|(pid, _)| pid).collect()
    }

    /// Takes those out that have ended.
    pub fn take_ended(&mut self) -> Vec<Pid> {
        let has_ended = |pid: Pid, refusal: &Refusal| match &refusal.process {
            Some(process) => process.has_ended(),
            None => !is_there(pid),
        };
        let ended = self.0.extract_if(|pid, refusal| has_ended(*pid, refusal));
        ended.map(|(pid, _)| pid).collect()
    }
}

/// Whether there is a process with an id. Takes no descriptor.
fn is_there(pid: Pid) -> bool {
    std::fs::symlink_metadata(format!("/proc/{pid}")).is_ok()
}

/// Whether there was not enough of something: slots, descriptors, memory, room for files.
pub fn is_for_want(error: &anyhow::Error) -> bool {
    const FOR_WANT: [i32; 5] =
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC, libc::EDQUOT];
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        cause.is::<NoSlot>() || io.is_some_and(|error| FOR_WANT.contains(&error))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;
    use crate::target::process::ProcessError;

    const OWN: fn() -> Pid = || Pid(std::process::id());

    fn refused(error: &anyhow::Error) -> Refused {
        let mut refused = Refused::default();
        refused.add(Process::open(OWN()).unwrap(), error);
        refused
    }

    fn errno(error: i32) -> anyhow::Error {
        let source = io::Error::from_raw_os_error(error);
        anyhow::Error::from(ProcessError::Io { pid: OWN(), what: "maps", source }).context("outer")
    }

    #[test]
    fn what_there_was_no_slot_for_is_tried_again_when_one_is_free() {
        let error = Err::<(), _>(NoSlot).context("cannot watch").unwrap_err();
        let mut refused = refused(&error);
        assert!(refused.is_settled(OWN(), true), "not before a target has gone");
        assert!(refused.try_again());
        assert!(refused.is_settled(OWN(), false), "another one has got the slot");
        assert!(!refused.is_settled(OWN(), true));
        assert!(refused.forget(OWN()) && refused.is_empty());
        assert!(!refused.forget(OWN()) && !refused.try_again());
        assert!(!refused.is_settled(OWN(), true));
    }

    #[test]
    fn so_is_what_failed_for_want_of_anything_else() {
        for error in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC] {
            assert!(refused(&errno(error)).try_again(), "{error}");
        }
    }

    #[test]
    fn what_could_not_be_opened_is_looked_at_again_until_it_is_gone() {
        let mut refused = Refused::default();
        refused.add_unopened(OWN());
        assert!(!refused.is_settled(OWN(), true) && !refused.is_empty());
        assert_eq!(refused.take_ended(), []);
        let nobody = Pid(u32::MAX);
        refused.add_unopened(nobody);
        assert_eq!(refused.take_ended(), [nobody]);
    }

    #[test]
    fn what_will_not_change_is_settled() {
        for error in [errno(libc::EACCES), anyhow!("two libraries")] {
            let mut refused = refused(&error);
            assert!(!refused.try_again());
            assert!(refused.is_settled(OWN(), true));
            assert_eq!(refused.take_ended(), []);
            assert_eq!(refused.take(), [OWN()]);
        }
    }
}
