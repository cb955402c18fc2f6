//! The way of a record into its target's ledger.

use super::watched::Watched;
use crate::{
    event::{self, Ahead, Seen},
    ledger::Tag,
};

/// By slot; most are empty.
pub(super) type Targets = Vec<Option<Box<Watched>>>;

/// The target of a slot, if there is one.
pub(super) fn at(targets: &mut Targets, slot: u32) -> Option<&mut Box<Watched>> {
    targets.get_mut(slot as usize)?.as_mut()
}

/// Says which buffers records are about. `announced` is for those that go; what was in it is of before.
pub(super) fn expect(targets: &mut Targets, announced: &mut Vec<(u32, Tag)>, records: &[&[u8]]) {
    announced.clear();
    for Ahead { slot, buffer, goes } in records.iter().filter_map(|bytes| event::look_ahead(bytes))
    {
        let Some(watched) = at(targets, slot) else { continue };
        let tag = watched.target.ledger.announce(buffer);
        if goes {
            announced.push((slot, tag));
        }
    }
    for &(slot, tag) in announced.iter() {
        if let Some(watched) = at(targets, slot) {
            watched.target.ledger.expect(tag);
        }
    }
}

/// Decodes a record and applies it to its target.
#[inline]
pub(super) fn apply(targets: &mut Targets, bytes: &[u8]) {
    let applied = event::decode_with(bytes, |seen, fact| match of(targets, &seen) {
        Some(watched) => {
            watched.circular_is_old = true;
            let ledger = &mut watched.target.ledger;
            ledger.stamp(seen.time_ns, Some(seen.tid));
            ledger.take_in(fact);
        }
        None => log::debug!("a record of a target that is not watched any more"),
    });
    if let Err(error) = applied {
        log::debug!("{error}");
        count_undecodable(targets, event::seen(bytes));
    }
}

/// Whose it is, as far as that can be told: else it may be anybody's.
#[cold]
fn count_undecodable(targets: &mut Targets, seen: Option<Seen>) {
    match seen {
        Some(seen) => {
            if let Some(watched) = of(targets, &seen) {
                watched.circular_is_old = true;
                watched.target.ledger.count_undecodable();
            }
        }
        None => {
            for watched in targets.iter_mut().flatten() {
                watched.circular_is_old = true;
                watched.target.ledger.count_undecodable();
            }
        }
    }
}

/// The target that a record is of. Its slot may have been somebody else's.
#[inline]
fn of<'a>(targets: &'a mut Targets, seen: &Seen) -> Option<&'a mut Box<Watched>> {
    at(targets, seen.slot).filter(|watched| watched.target.ledger.process().pid == seen.pid)
}
