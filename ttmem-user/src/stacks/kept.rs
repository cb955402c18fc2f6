//! Each different stack once, and how much is kept of all.

use std::{collections::HashMap, sync::Arc};

use super::{files::Files, site::site};
use crate::ledger::call::{CallStack, Cut, Frame, PythonUnknown, Site};

type Random = foldhash::fast::RandomState;

/// How many stacks, and bytes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    stacks: usize,
    bytes: usize,
}

/// What is kept of one target.
const MOST_OF_ONE: Amount = Amount { stacks: 1 << 16, bytes: 64 << 20 };
/// What is kept of all.
const MOST_OF_ALL: Amount = Amount { stacks: 1 << 18, bytes: 256 << 20 };
/// Sites that are numbered at a time. As long as there are fewer no number is given again.
const MOST_SITES: u32 = 1 << 16;

impl Amount {
    fn fits(self, more: Self, most: Self) -> bool {
        self.stacks + more.stacks <= most.stacks && self.bytes + more.bytes <= most.bytes
    }

    const fn add(&mut self, more: Self) {
        self.stacks += more.stacks;
        self.bytes += more.bytes;
    }

    const fn remove(&mut self, less: Self) {
        self.stacks -= less.stacks;
        self.bytes -= less.bytes;
    }
}

/// The different stacks, and their sites.
#[derive(Debug, Default)]
pub struct Stacks {
    /// Each with the target that came with it first; the same below.
    known: HashMap<Arc<CallStack>, u64, Random>,
    frames: HashMap<Arc<Frame>, u64, Random>,
    sites: HashMap<Arc<str>, (u32, u64), Random>,
    /// Numbers of sites that nobody has any more.
    free: Vec<u32>,
    next: u32,
    all: Amount,
    by_target: HashMap<u64, Amount, Random>,
    files: Files,
}

/// A stack without its site.
#[derive(Debug, Default)]
pub struct Unwound {
    /// See [`CallStack`], here and below.
    pub frames: Box<[Arc<Frame>]>,
    /// See there.
    pub cut: Option<Cut>,
    /// See there.
    pub beyond_cut: usize,
    /// See there.
    pub python_unknown: Option<PythonUnknown>,
}

impl Stacks {
    /// The stack; `None` if there is no room for it. `target`: whose it is.
    pub fn intern(&mut self, target: u64, unwound: Unwound) -> Option<Arc<CallStack>> {
        let Unwound { frames, cut, beyond_cut, python_unknown } = unwound;
        let name = site(&frames, cut.as_ref(), beyond_cut, &mut self.files);
        let numbered = name.as_ref().and_then(|name| self.sites.get_key_value(name));
        let site =
            numbered.map(|(name, (number, _))| Site { number: *number, name: Arc::clone(name) });
        let new_site = name.filter(|_| site.is_none());
        let mut stack = CallStack { frames, site, cut, beyond_cut, python_unknown };
        if new_site.is_none()
            && let Some((known, _)) = self.known.get_key_value(&stack)
        {
            return Some(Arc::clone(known));
        }
        // All that it takes is known before anything of it is kept.
        let new_frames = stack.frames.iter().filter(|frame| !self.frames.contains_key(*frame));
        let bytes = new_frames.map(|frame| size_of_frame(frame)).sum::<usize>()
            + size_of_stack(&stack)
            + new_site.as_ref().map_or(0, |name| size_of_site(name));
        let more = Amount { stacks: 1, bytes };
        let of_target = self.by_target.get(&target).copied().unwrap_or_default();
        if !self.all.fits(more, MOST_OF_ALL) || !of_target.fits(more, MOST_OF_ONE) {
            return None;
        }
        if let Some(name) = new_site {
            stack.site = Some(self.number(target, name)?);
        }
        for frame in &mut stack.frames {
            if let Some((known, _)) = self.frames.get_key_value(frame) {
                *frame = Arc::clone(known);
            } else {
                self.count(target, Amount { stacks: 0, bytes: size_of_frame(frame) });
                self.frames.insert(Arc::clone(frame), target);
            }
        }
        self.count(target, Amount { stacks: 1, bytes: size_of_stack(&stack) });
        let stack = Arc::new(stack);
        self.known.insert(Arc::clone(&stack), target);
        Some(stack)
    }

    fn number(&mut self, target: u64, name: Arc<str>) -> Option<Site> {
        let number = if self.next < MOST_SITES {
            self.next += 1;
            self.next - 1
        } else {
            self.free.pop()?
        };
        self.count(target, Amount { stacks: 0, bytes: size_of_site(&name) });
        self.sites.insert(Arc::clone(&name), (number, target));
        Some(Site { number, name })
    }

    fn count(&mut self, target: u64, more: Amount) {
        self.all.add(more);
        self.by_target.entry(target).or_default().add(more);
    }

    /// Forgets the stacks that nobody else has any more. Returns the numbers of the sites of which there
    /// is no stack left.
    pub fn prune(&mut self) -> Vec<u32> {
        let Self { known, frames, sites, free, all, by_target, .. } = self;
        let mut forget = |target: &u64, less: Amount| {
            all.remove(less);
            if let Some(of_target) = by_target.get_mut(target) {
                of_target.remove(less);
            }
        };
        known.retain(|stack, target| {
            let is_needed = Arc::strong_count(stack) > 1;
            if !is_needed {
                forget(target, Amount { stacks: 1, bytes: size_of_stack(stack) });
            }
            is_needed
        });
        frames.retain(|frame, target| {
            let is_needed = Arc::strong_count(frame) > 1;
            if !is_needed {
                forget(target, Amount { stacks: 0, bytes: size_of_frame(frame) });
            }
            is_needed
        });
        let mut gone = Vec::new();
        let named: std::collections::HashSet<u32> =
            known.keys().filter_map(|stack| Some(stack.site.as_ref()?.number)).collect();
        sites.retain(|name, (number, target)| {
            let is_needed = named.contains(number);
            if !is_needed {
                forget(target, Amount { stacks: 0, bytes: size_of_site(name) });
                gone.push(*number);
            }
            is_needed
        });
        free.extend(&gone);
        by_target.retain(|_, amount| *amount != Amount::default());
        gone
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

/// Bytes of memory that a stack takes, about, without its frames.
fn size_of_stack(stack: &CallStack) -> usize {
    2 * size_of::<CallStack>() + size_of_val(&*stack.frames)
}

/// Bytes that a frame takes; its name and file may be shared with others.
fn size_of_frame(frame: &Frame) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    2 * size_of::<Frame>() + text(&frame.function) + text(&frame.module)
}

fn size_of_site(name: &str) -> usize {
    size_of::<(Arc<str>, (u32, u64))>() + name.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::call::Place;

    fn frame(function: &str) -> Arc<Frame> {
        Arc::new(Frame { function: Some(function.into()), module: None, place: Place::Code(0) })
    }

    fn unwound(frames: Box<[Arc<Frame>]>, cut: Option<Cut>) -> Unwound {
        Unwound { frames, cut, ..Unwound::default() }
    }

    fn add(stacks: &mut Stacks, target: u64, function: &str) -> Option<Arc<CallStack>> {
        stacks.intern(target, unwound([frame(function)].into(), None))
    }

    /// Stacks with a site in common.
    fn add_number(stacks: &mut Stacks, target: u64, number: u64) -> Option<Arc<CallStack>> {
        let start =
            Frame { function: Some("_start".into()), module: None, place: Place::Code(number) };
        stacks.intern(target, unwound([frame("f"), Arc::new(start)].into(), None))
    }

    #[test]
    fn each_different_stack_is_kept_once_and_only_so_many() {
        let mut stacks = Stacks::default();
        let first = add(&mut stacks, 1, "a").unwrap();
        assert!(Arc::ptr_eq(&first, &add(&mut stacks, 2, "a").unwrap()));
        let cut = stacks.intern(1, unwound([frame("a")].into(), Some(Cut::Deep))).unwrap();
        assert!(!Arc::ptr_eq(&first, &cut));
        for number in 2..MOST_OF_ONE.stacks as u64 {
            assert!(add_number(&mut stacks, 1, number).is_some());
        }
        assert_eq!(add(&mut stacks, 1, "one more"), None);
        assert!(Arc::ptr_eq(&first, &add(&mut stacks, 1, "a").unwrap()), "what is known still is");
        assert_eq!(stacks.len(), MOST_OF_ONE.stacks);
        assert!(add(&mut stacks, 2, "one more").is_some(), "another target has its own room");
    }

    #[test]
    fn what_nobody_needs_makes_room_and_numbers_stay() {
        let mut stacks = Stacks::default();
        let kept = add(&mut stacks, 1, "kept").unwrap();
        for number in 1..MOST_OF_ONE.stacks as u64 {
            assert!(add_number(&mut stacks, 1, number).is_some());
        }
        assert_eq!(add(&mut stacks, 1, "new"), None);
        let number = |stack: &CallStack| stack.site.as_ref().unwrap().number;
        assert_eq!(stacks.prune(), [1], "of the others' site there is no stack left");
        assert_eq!(stacks.len(), 1);
        let new = add(&mut stacks, 1, "new").unwrap();
        assert_eq!((number(&kept), number(&new)), (0, 2));
        assert!(Arc::ptr_eq(&kept, &add(&mut stacks, 1, "kept").unwrap()));
        drop((kept, new));
        assert_eq!(stacks.prune().len(), 2);
        assert_eq!((stacks.all, stacks.by_target.len()), (Amount::default(), 0));
        assert!(stacks.frames.is_empty() && stacks.sites.is_empty());
    }

    #[test]
    fn long_names_are_counted_by_their_bytes() {
        let mut stacks = Stacks::default();
        let name = |number: usize| format!("{number:08}{}", "x".repeat(1 << 20));
        let kept = (0..100).take_while(|number| add(&mut stacks, 1, &name(*number)).is_some());
        // As a frame's name, and as that of a site.
        assert_eq!(kept.count(), 31);
        assert!(stacks.all.bytes <= MOST_OF_ONE.bytes);
        assert_eq!(stacks.sites.len(), 31, "what is not kept leaves no site behind");
        assert!(add(&mut stacks, 2, &name(99)).is_some());
    }
}
