//! What was answered and is not printed yet: of each process only the newest.
//!
//! Invariant: however long printing takes, whoever asks goes on reading, or it would be cut off as too
//! slow; and no more waits than one answer of each process.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

/// What comes next.
#[derive(Debug)]
pub(super) enum Next<A> {
    /// An answer of a process.
    Answer(u32, A),
    /// There are no more of it, as it should be or for a reason.
    Over(u32, anyhow::Result<()>),
}

/// Between those that ask and the one who prints.
#[derive(Debug)]
pub(super) struct Newest<A> {
    told: Mutex<Told<A>>,
    news: Condvar,
}

#[derive(Debug)]
struct Told<A> {
    /// In the order in which they are taken: each process has its turn.
    answers: VecDeque<(u32, A)>,
    over: VecDeque<(u32, anyhow::Result<()>)>,
}

impl<A> Default for Newest<A> {
    fn default() -> Self {
        let told = Told { answers: VecDeque::new(), over: VecDeque::new() };
        Self { told: Mutex::new(told), news: Condvar::new() }
    }
}

impl<A> Newest<A> {
    /// Takes in an answer, in the place of one that nobody has taken.
    pub(super) fn answer(&self, pid: u32, answer: A) {
        self.change(|told| match told.answers.iter_mut().find(|(of, _)| *of == pid) {
            Some((_, older)) => *older = answer,
            None => told.answers.push_back((pid, answer)),
        });
    }

    /// Takes in that there are no more of a process.
    pub(super) fn over(&self, pid: u32, why: anyhow::Result<()>) {
        self.change(|told| told.over.push_back((pid, why)));
    }

    fn change(&self, change: impl FnOnce(&mut Told<A>)) {
        change(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_one();
    }

    /// Waits for what comes next, the answers of a process before its end; `None` at the deadline.
    pub(super) fn next(&self, deadline: Instant) -> Option<Next<A>> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((pid, answer)) = told.answers.pop_front() {
                return Some(Next::Answer(pid, answer));
            }
            if let Some((pid, why)) = told.over.pop_front() {
                return Some(Next::Over(pid, why));
            }
            let patience = deadline.checked_duration_since(Instant::now())?;
            let waited = self.news.wait_timeout(told, patience);
            told = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_newest_of_each_process_waits_and_its_end_comes_after_it() {
        let newest = Newest::default();
        newest.over(8, Ok(()));
        for number in 0..1000 {
            newest.answer(7, number);
            newest.answer(8, -number);
        }
        newest.over(7, Err(anyhow::anyhow!("gone")));
        let soon = Instant::now() + Duration::from_secs(60);
        let next = || match newest.next(soon).unwrap() {
            Next::Answer(pid, number) => (pid, Ok(number)),
            Next::Over(pid, why) => (pid, Err(why.is_ok())),
        };
        let told = [next(), next(), next(), next()];
        assert_eq!(told, [(7, Ok(999)), (8, Ok(-999)), (8, Err(true)), (7, Err(false))]);
        assert!(newest.next(Instant::now()).is_none());
    }
}
