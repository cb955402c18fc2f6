//! The records of all rings, in the order of time.
//!
//! What happens because of something else has to be handed over behind it: a free behind its
//! allocation, whichever CPU either was on. That a later hit begins after an earlier one has ended is
//! all that there is to go by.
//!
//! - A CPU's ring is in order of time. It is known to hold everything before now, or before the hit
//!   that is under way there began; nothing later is handed over.
//! - The ring buffer of all is in the order in which room was reserved, and each record's time is from
//!   before that. So what comes of something that lies behind a record is later than that record, and
//!   only the first one there has to be looked at.
//! - A hit with a record there has all its records there: its time says nothing of the order between
//!   two of its own.
//! - A record there that is still being written is of a hit that is under way: what lies behind it is
//!   later too, or has nothing to do with what is handed over.
#![expect(unsafe_code, reason = "hands over records that are still in shared memory")]

use std::{cmp::Reverse, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::{
    cpu_rings::CpuRings,
    ring::{AT_ONCE, Ring},
};

/// How often a probe that is under way is looked at before it is left alone for a while.
const SPINS: u32 = 50;
/// How long it is left alone then.
const PREEMPTED: Duration = Duration::from_micros(50);

/// All rings.
#[derive(Debug)]
pub struct Merge {
    rings: CpuRings,
    shared: Ring,
    /// What has records to be handed over, and when the next one of each happened; the latest first.
    next: Vec<Next>,
}

/// Something that has records.
#[derive(Clone, Copy, Debug)]
struct Next {
    time_ns: u64,
    source: Source,
}

/// Where records are.
#[derive(Clone, Copy, Debug)]
enum Source {
    Cpu(usize),
    Shared,
}

/// Up to where records were handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// What happened before this time has ended: it has been handed over, or is in the ring buffer;
    /// CLOCK_MONOTONIC, nanoseconds.
    pub ended_ns: u64,
    /// All of that has been handed over.
    pub is_all: bool,
}

impl Merge {
    pub const fn new(rings: CpuRings, shared: Ring) -> Self {
        Self { rings, shared, next: Vec::new() }
    }

    /// Hands over what is there.
    pub fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) -> Reached {
        self.drain_at(now_ns(), take)
    }

    /// Hands over every record of an event before the call.
    pub fn drain_to_now(&mut self, take: &mut dyn FnMut(&[&[u8]])) {
        let now_ns = now_ns();
        let (mut looks, mut wanted) = (0, None);
        loop {
            let reached = self.drain(take);
            if wanted.is_none() && reached.ended_ns >= now_ns {
                // What more comes into the ring buffer is later.
                wanted = Some(self.shared.looked_at());
            }
            if wanted.is_some_and(|position| self.shared.has_read(position)) {
                return;
            }
            // A record is written within a microsecond, unless its writer has been preempted: perhaps
            // by this very thread. To yield would be to wait for a whole slice.
            looks += 1;
            if looks > SPINS {
                thread::sleep(PREEMPTED);
            }
        }
    }

    /// Bytes that wait, and the size of all rings.
    pub fn fill(&self) -> (u64, u64) {
        let (waiting, size) = self.rings.fill();
        let (shared_waiting, shared_size) = self.shared.fill();
        (waiting + shared_waiting, size + shared_size)
    }

    /// The ring buffer, for whoever waits to be woken.
    pub const fn shared(&self) -> &Ring {
        &self.shared
    }

    /// The same as [`Self::drain`]; it is `now_ns`, or has been.
    fn drain_at(&mut self, now_ns: u64, take: &mut dyn FnMut(&[&[u8]])) -> Reached {
        let begun_ns = self.rings.look().unwrap_or(u64::MAX);
        let ended_ns = now_ns.min(begun_ns);
        // After the look: what was written before it is in there by now.
        self.shared.look();
        self.hand_over(ended_ns, take);
        let is_all = begun_ns >= now_ns && self.shared.has_read(self.shared.looked_at());
        Reached { ended_ns, is_all }
    }

    /// Hands over what happened before a time.
    fn hand_over(&mut self, up_to_ns: u64, take: &mut dyn FnMut(&[&[u8]])) {
        let Self { rings, shared, next } = self;
        next.clear();
        let of_cpus = (0..rings.len()).map(|cpu| (Source::Cpu(cpu), rings.next_ns(cpu)));
        let all = [(Source::Shared, shared.next_ns())].into_iter().chain(of_cpus);
        next.extend(all.filter_map(|(source, time_ns)| Some(Next { time_ns: time_ns?, source })));
        next.sort_unstable_by_key(|next| Reverse(next.time_ns));
        let mut batch: [&[u8]; AT_ONCE] = [&[]; AT_ONCE];
        let mut count = 0;
        while let Some(Next { time_ns, source }) = next.pop_if(|next| next.time_ns < up_to_ns) {
            // Of one source, as long as nothing else is earlier.
            let until_ns = next.last().map_or(up_to_ns, |second| second.time_ns.min(up_to_ns));
            let room = &mut batch[count..];
            // SAFETY: what is in the batch is taken before anything is handed back or moved.
            let (taken, then) = unsafe {
                match source {
                    Source::Cpu(cpu) => rings.take(cpu, until_ns, room),
                    Source::Shared => shared.take(until_ns, room),
                }
            };
            count += taken;
            if count == AT_ONCE {
                take(&batch);
                count = 0;
                match source {
                    Source::Cpu(cpu) => rings.hand_back(cpu, true),
                    Source::Shared => shared.hand_back(true),
                }
            }
            if let Some(then) = then {
                // Should the clock ever go back, a source keeps its order all the same.
                insert(next, Next { time_ns: then.max(time_ns), source });
            }
        }
        if count > 0 {
            take(&batch[..count]);
        }
        for cpu in 0..rings.len() {
            rings.hand_back(cpu, false);
        }
        shared.hand_back(false);
    }
}

/// Puts it at its place: few are earlier than what comes behind the earliest of all.
#[inline]
fn insert(next: &mut Vec<Next>, new: Next) {
    let mut at = next.len();
    next.push(new);
    while at > 0 && next[at - 1].time_ns < new.time_ns {
        next[at] = next[at - 1];
        at -= 1;
    }
    next[at] = new;
}

/// CLOCK_MONOTONIC, nanoseconds: the clock of the records.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = |number: i64| u64::try_from(number).unwrap_or(0);
    nanos(now.tv_sec) * 1_000_000_000 + nanos(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ttmem_common::{
        cpu_ring::CHUNK,
        record::{DeviceRecord, FreeRecord, KIND_DEVICE, KIND_FREE, MAX_CHIPS, RecordHeader},
    };
    use zerocopy::{FromBytes as _, IntoBytes as _};

    use super::*;
    use crate::kernel::fake::{FakeCpus, FakeRing};

    const CPUS: u32 = 3;

    /// What a hit does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Deed {
        /// Has nothing to tell.
        Nothing,
        /// One record.
        Own,
        /// One that is too seldom for its CPU's ring.
        Shared,
        /// Two such, the second of a kind that others write into their own.
        Both,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin {
            cpu: u32,
            deed: Deed,
        },
        /// One of those that are under way gets on.
        GoOn(prop::sample::Index),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        let deed = prop_oneof![
            1 => Just(Deed::Nothing), 6 => Just(Deed::Own), 2 => Just(Deed::Shared),
            2 => Just(Deed::Both),
        ];
        prop_oneof![
            4 => (0..CPUS, deed).prop_map(|(cpu, deed)| Step::Begin { cpu, deed }),
            24 => any::<prop::sample::Index>().prop_map(Step::GoOn),
            1 => Just(Step::Drain),
        ]
    }

    /// A hit, by the moments of its begin and end.
    #[derive(Debug)]
    struct Hit {
        cpu: u32,
        deed: Deed,
        alone: bool,
        began: u64,
        ended: u64,
        time_ns: u64,
        stage: u32,
        /// In the ring buffer, if it is there.
        reserved: Option<u64>,
        in_own: bool,
        /// What is handed over of it sooner or later.
        emitted: Vec<u32>,
    }

    struct World {
        now: u64,
        cpus: FakeCpus,
        ring: FakeRing,
        hits: Vec<Hit>,
        /// Of those that have not ended.
        under_way: Vec<usize>,
        lost: usize,
    }

    impl World {
        fn begin(&mut self, cpu: u32, deed: Deed) {
            let (alone, began) = (self.cpus.enter(cpu), self.now);
            self.under_way.push(self.hits.len());
            self.hits.push(Hit {
                cpu,
                deed,
                alone,
                began,
                ended: u64::MAX,
                time_ns: 0,
                stage: 0,
                reserved: None,
                in_own: false,
                emitted: Vec::new(),
            });
        }

        /// A record that says in its thread id which hit it is of.
        fn record(hit: &Hit, id: usize, kind: u32) -> Vec<u8> {
            let tid = u32::try_from(id).unwrap();
            let header = RecordHeader { time_ns: hit.time_ns, kind, slot: 0, tgid: 1, tid };
            if kind == KIND_FREE {
                return FreeRecord { header, buffer: 1, allocator: 2 }.as_bytes().to_vec();
            }
            let chips = [0; MAX_CHIPS];
            let device = 3;
            let record = DeviceRecord {
                header,
                device,
                is_mesh: 0,
                mesh_id: 0,
                chip_count: 0,
                reserved: 0,
                chips,
            };
            record.as_bytes().to_vec()
        }

        fn reserve(&mut self, id: usize, kind: u32) {
            let record = Self::record(&self.hits[id], id, kind);
            let reserved = self.ring.reserve(&record, u32::try_from(record.len()).unwrap());
            let hit = &mut self.hits[id];
            hit.reserved = reserved;
            match reserved {
                Some(_) => hit.emitted.push(kind),
                None => self.lost += 1,
            }
        }

        fn commit(&mut self, id: usize) {
            if let Some(at) = self.hits[id].reserved.take() {
                self.ring.commit(at);
            }
        }

        fn go_on(&mut self, index: usize) {
            let id = self.under_way[index];
            let (deed, cpu, alone) = (self.hits[id].deed, self.hits[id].cpu, self.hits[id].alone);
            let (seldom, often) = match deed {
                Deed::Nothing => (false, false),
                Deed::Own => (false, true),
                Deed::Shared => (true, false),
                Deed::Both => (true, true),
            };
            match self.hits[id].stage {
                0 => {
                    self.hits[id].time_ns = self.now;
                    self.cpus.stamp(cpu, alone, self.now);
                }
                1 if seldom => self.reserve(id, KIND_DEVICE),
                3 if often && seldom => self.reserve(id, KIND_FREE),
                3 if often => {
                    let record = Self::record(&self.hits[id], id, KIND_FREE);
                    self.hits[id].in_own = alone && self.cpus.write(cpu, &record);
                    if !self.hits[id].in_own {
                        self.reserve(id, KIND_FREE);
                    }
                }
                4 if self.hits[id].in_own => {
                    let record = Self::record(&self.hits[id], id, KIND_FREE);
                    self.cpus.hand_over(cpu, &record);
                    self.hits[id].emitted.push(KIND_FREE);
                }
                2 | 4 => self.commit(id),
                5 => {
                    self.cpus.leave(cpu, alone);
                    self.hits[id].ended = self.now;
                    self.under_way.swap_remove(index);
                }
                _ => {}
            }
            self.hits[id].stage += 1;
        }
    }

    /// Drains; what was handed over is added to `seen`, as hit and kind.
    fn drain(merge: &mut Merge, world: &World, seen: &mut Vec<(usize, u32)>) -> Reached {
        merge.drain_at(world.now, &mut |records| see(records, seen))
    }

    fn see(records: &[&[u8]], seen: &mut Vec<(usize, u32)>) {
        seen.extend(records.iter().map(|bytes| {
            let (header, _) = RecordHeader::read_from_prefix(bytes).unwrap();
            (header.tid as usize, header.kind)
        }));
    }

    proptest! {
        /// Whatever is written is handed over once, behind all that it may have come of, and when
        /// it is said that all is there, it is.
        #[test]
        fn nothing_overtakes_what_it_comes_of(
            steps in proptest::collection::vec(step(), 0..900),
            restart in 64..u64::from(CHUNK),
        ) {
            let (cpus, rings) = FakeCpus::new(CPUS, 1, restart);
            let (ring, shared) = FakeRing::new(8192);
            let mut merge = Merge::new(rings, shared);
            let (hits, under_way) = (Vec::new(), Vec::new());
            let mut world = World { now: 1, cpus, ring, hits, under_way, lost: 0 };
            let mut seen: Vec<(usize, u32)> = Vec::new();
            for step in steps {
                world.now += 1;
                match step {
                    Step::Begin { cpu, deed } => world.begin(cpu, deed),
                    Step::GoOn(_) if world.under_way.is_empty() => {}
                    Step::GoOn(index) => world.go_on(index.index(world.under_way.len())),
                    Step::Drain => {
                        let reached = drain(&mut merge, &world, &mut seen);
                        prop_assert!(reached.is_all || !world.under_way.is_empty());
                        for (id, hit) in world.hits.iter().enumerate() {
                            let began = hit.stage > 0 && hit.time_ns < reached.ended_ns;
                            prop_assert!(!began || hit.ended != u64::MAX, "{hit:?} goes on");
                            if began && (reached.is_all || hit.in_own) {
                                let all = hit.emitted.iter().all(|kind| seen.contains(&(id, *kind)));
                                prop_assert!(all, "{hit:?} is not all there");
                            }
                        }
                    }
                }
            }
            while !world.under_way.is_empty() {
                world.now += 1;
                world.go_on(0);
            }
            merge.drain_to_now(&mut |records| see(records, &mut seen));
            prop_assert_eq!(merge.fill().0, 0);

            let emitted: usize = world.hits.iter().map(|hit| hit.emitted.len()).sum();
            prop_assert_eq!(seen.len(), emitted);
            for (at, (id, kind)) in seen.iter().enumerate() {
                let hit = &world.hits[*id];
                prop_assert!(hit.emitted.contains(kind));
                for (other, other_kind) in &seen[at + 1..] {
                    prop_assert_ne!((other, other_kind), (id, kind), "twice");
                    let later = &world.hits[*other];
                    prop_assert!(later.ended > hit.began, "{:?} came of {:?}", hit, later);
                    let within = other == id && *other_kind == KIND_DEVICE;
                    prop_assert!(!within, "a device is described before it is used");
                }
            }
        }
    }
}
