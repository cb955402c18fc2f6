//! A target for each variant, each with its own watcher, all alive at once.
//!
//! Attaching takes far longer than a sample, so nobody attaches between two samples: each variant
//! has a process of its own, on a library file of its own (a probe belongs to a file, and would cost
//! the others), and waits while another is measured.

use std::fs;

use anyhow::{Context, Result};
use ttmem_bench::Line;

use super::cell::{Cell, Kind};
use super::rig::{Image, Rig};
use super::target::Target;
use super::watcher::{Delivered, Watch, Watcher};
use crate::say;

/// The targets and who looks at them.
#[derive(Debug)]
pub struct Fleet {
    /// What the groups' names begin with.
    title: String,
    names: Vec<String>,
    targets: Vec<Target>,
    watchers: Vec<Watcher>,
    /// Events before its watcher came.
    before: Vec<u64>,
}

/// How a target is started, by its variant's number.
pub type Start<'a> = &'a dyn Fn(usize) -> Result<Target>;

impl Fleet {
    /// Starts a target for each variant and lets it be watched. A tool that does not work here is
    /// left out, and that is said.
    pub fn start(
        rig: &Rig,
        title: &str,
        variants: &[(String, Watch)],
        start: Start<'_>,
    ) -> Result<Self> {
        let mut fleet = Self {
            title: title.to_owned(),
            names: Vec::new(),
            targets: Vec::new(),
            watchers: Vec::new(),
            before: Vec::new(),
        };
        let mut image: Option<Image> = None;
        for (index, (name, watch)) in variants.iter().enumerate() {
            let mut target = start(index).with_context(|| format!("{title}: {name}"))?;
            if image.is_none() {
                image = Some(rig.image(&target.library)?);
            }
            let Some(image) = &image else { continue };
            let folder =
                rig.scratch.join(format!("{}-{index}", title.replace([' ', ',', ':'], "-")));
            fs::create_dir_all(&folder)?;
            // Its first calls fault pages in, and let some tools attach late.
            target.ask("tight 1 100")?;
            let before = target.events;
            match Watcher::start(rig, watch, image, &mut target, &folder) {
                Ok(watcher) => {
                    fleet.names.push(name.clone());
                    fleet.targets.push(target);
                    fleet.watchers.push(watcher);
                    fleet.before.push(before);
                }
                Err(error) if matches!(watch, Watch::Script(..)) => {
                    say::warn(&format!("{title}: no {name}: {error:#}"));
                }
                Err(error) => return Err(error.context(format!("{title}: {name}"))),
            }
        }
        Ok(fleet)
    }

    /// The variants' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The target of a variant.
    pub fn target(&mut self, index: usize) -> &mut Target {
        &mut self.targets[index]
    }

    /// Measures all variants by one command, as nanoseconds of each event.
    pub fn measure(
        &mut self,
        cell: &str,
        kind: Kind,
        command: &str,
        n: u64,
        rounds: usize,
    ) -> Result<Cell> {
        let unit = match kind {
            Kind::Added => "ns added to a call",
            Kind::Slower => "% slower",
            Kind::Itself => "ns",
        };
        let group = format!("{}: {cell}", self.title);
        say::note(&group);
        let targets = &mut self.targets;
        Cell::measure((&group, unit, kind), (&self.names, n, rounds), |index| {
            targets[index].per_event(command)
        })
    }

    /// Ends the watchers and counts: what each received and lost, beside what was called.
    pub fn end(self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        let watched = self.names.into_iter().zip(self.watchers).zip(self.targets).zip(self.before);
        for (((name, watcher), target), before) in watched {
            let called = target.events - before;
            if let Some(delivered) = watcher.stop().with_context(|| name.clone())? {
                lines.extend(loss(&self.title, &name, called, delivered));
            }
        }
        Ok(lines)
    }
}

/// What was lost of what was called, in per cent, and whether the count balances.
pub fn loss(title: &str, name: &str, called: u64, delivered: Delivered) -> Option<Line> {
    let Delivered { received, lost } = delivered;
    #[expect(clippy::cast_precision_loss, reason = "counts of calls are below 2^53")]
    let share = called.saturating_sub(received) as f64 * 100.0 / called.max(1) as f64;
    let line = Line::of(&format!("{title}: delivery"), name, "% not received", called, &[share])?;
    Some(line.noting(balance(called, delivered).unwrap_or_else(|off| {
        format!(
            "called {called}, received {received}, said to be lost {lost}: {off} unaccounted for"
        )
    })))
}

/// Whether received and lost make up what was called; if not, by how many it is off.
fn balance(called: u64, Delivered { received, lost }: Delivered) -> Result<String, i128> {
    let off = i128::from(called) - i128::from(received) - i128::from(lost);
    if off == 0 {
        Ok(format!("received {received} + lost {lost} = called {called}"))
    } else {
        Err(off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(called: u64, received: u64, lost: u64) -> String {
        loss("t", "v", called, Delivered { received, lost }).unwrap().note.unwrap()
    }

    #[test]
    fn what_was_called_is_received_or_lost() {
        assert_eq!(note(10, 7, 3), "received 7 + lost 3 = called 10");
        assert!(note(10, 7, 0).ends_with("3 unaccounted for"));
        assert!(note(10, 12, 0).ends_with("-2 unaccounted for"));
    }

    #[test]
    fn the_share_is_of_what_was_called() {
        let line = loss("t", "v", 200, Delivered { received: 190, lost: 10 }).unwrap();
        assert!((line.spread.median - 5.0).abs() < 1e-9);
        assert!(loss("t", "v", 0, Delivered { received: 0, lost: 0 }).is_some());
    }
}
