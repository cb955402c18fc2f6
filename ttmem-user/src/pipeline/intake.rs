//! The way of a record into its target's ledger.

use super::watched::Watched;
use crate::{
    event::{self, Ahead},
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
    let applied = event::decode_with(bytes, |seen, fact| {
        // A slot may have been somebody else's.
        let of_it = |watched: &&mut Box<Watched>| watched.target.ledger.process().pid == seen.pid;
        match at(targets, seen.slot).filter(of_it) {
            Some(watched) => {
                let ledger = &mut watched.target.ledger;
                ledger.stamp(seen.time_ns, Some(seen.tid));
                ledger.take_in(fact);
            }
            None => log::debug!("a record of a target that is not watched any more"),
        }
    });
    if let Err(error) = applied {
        log::debug!("{error}");
        // Whose it was cannot be told.
        for watched in targets.iter_mut().flatten() {
            watched.target.ledger.count_undecodable();
        }
    }
}
