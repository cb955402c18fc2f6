//! Processes that are to be looked at later: each once.

use std::{collections::HashMap, time::Instant};

use crate::units::Pid;

/// Which, and when.
#[derive(Debug, Default)]
pub struct Pending(HashMap<Pid, Instant>);

impl Pending {
    /// Has a process looked at, at this time or earlier.
    pub fn add(&mut self, pid: Pid, at: Instant) {
        let known = self.0.entry(pid).or_insert(at);
        *known = at.min(*known);
    }

    /// Has all of them looked at by this time.
    pub fn hurry(&mut self, at: Instant) {
        for known in self.0.values_mut() {
            *known = at.min(*known);
        }
    }

    /// Whether a process will be looked at anyway.
    pub fn has(&self, pid: Pid) -> bool {
        self.0.contains_key(&pid)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Takes those that are due.
    pub fn take_due(&mut self, now: Instant) -> Vec<Pid> {
        self.0.extract_if(|_, at| *at <= now).map(|(pid, _)| pid).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_process_waits_once_however_often_it_is_asked_for() {
        let now = Instant::now();
        let mut pending = Pending::default();
        // What looks at it again every now and then, and fails each time, adds one more.
        for ago in 0..10 {
            pending.add(Pid(7), now + ago * SECOND);
            pending.add(Pid(8), now + 2 * SECOND);
        }
        assert!(pending.has(Pid(7)) && !pending.has(Pid(9)));
        assert_eq!(pending.next(), Some(now));
        assert_eq!(pending.take_due(now), [Pid(7)]);
        assert_eq!(pending.take_due(now), []);
        assert_eq!(pending.next(), Some(now + 2 * SECOND));
        assert_eq!(pending.take_due(now + 2 * SECOND), [Pid(8)]);
        assert!(pending.is_empty() && pending.next().is_none());
    }

    #[test]
    fn the_earlier_time_counts() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.add(Pid(7), now + 2 * SECOND);
        pending.add(Pid(7), now + SECOND);
        assert_eq!(pending.next(), Some(now + SECOND));
        pending.hurry(now);
        assert_eq!(pending.take_due(now), [Pid(7)]);
    }
}
