//! What called for the rows, where that is recorded: their sites, to order, group and filter by.

use std::sync::Arc;

use crate::{
    history::{
        Row,
        group::{By, Key},
    },
    ledger::call::{CallStack, Lookup, Site},
};

/// A stack that has not arrived after this time has been lost.
const PATIENCE_NS: u64 = 2_000_000_000;

/// What is known of the sites of a target; nothing if they are not recorded.
#[derive(Clone, Copy)]
pub struct Sites<'a>(Option<&'a dyn Lookup>);

impl<'a> Sites<'a> {
    /// What is known, if they are recorded.
    pub const fn new(known: Option<&'a dyn Lookup>) -> Self {
        Self(known)
    }

    /// The site of a row.
    pub fn of(self, row: &Row<'_>) -> Option<&'a Site> {
        self.stack(row)?.site.as_ref()
    }

    fn stack(self, row: &Row<'_>) -> Option<&'a Arc<CallStack>> {
        self.0?.stack(row.allocated_ns?, row.tid?)
    }

    /// Whether more is likely to become known of a row: its stack has not arrived, and not been
    /// missing for long.
    pub fn awaits(self, row: &Row<'_>, now_ns: u64) -> bool {
        let is_recent = |then| now_ns.saturating_sub(then) < PATIENCE_NS;
        self.0.is_some() && row.allocated_ns.is_some_and(is_recent) && self.stack(row).is_none()
    }

    /// Where a row belongs.
    pub fn key(self, row: &Row<'_>, by: By, now_ns: u64) -> Key {
        match by {
            By::Site => Key::Site(self.of(row).map(|site| site.number)),
            _ => Key::of(row, by, now_ns),
        }
    }

    /// The name of a site.
    pub fn name(self, number: u32) -> Option<&'a Arc<str>> {
        self.0?.sites().get(number as usize)
    }

    /// For each site its place in the order of their names.
    pub fn places(self) -> Vec<u64> {
        let sites = self.0.map_or(&[][..], Lookup::sites);
        let mut numbers: Vec<usize> = (0..sites.len()).collect();
        numbers.sort_by_key(|number| &sites[*number]);
        let mut places = vec![0; sites.len()];
        for (number, place) in numbers.into_iter().zip(0..) {
            places[number] = place;
        }
        places
    }
}
