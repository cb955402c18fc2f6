//! What a frame of the live view costs: each view, with 100,000 live buffers, on 160 × 40.
//!
//! `cargo xtask bench` runs it. Before each frame comes a new report, so that nothing is left to be
//! shown again; "again" is the frame after a key, without a new report. Where something takes several
//! frames, the figure is that of the longest.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossterm::event::{Event as Pressed, KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};
use ttmem::{
    event::{
        Allocated, AllocatorSeen, BufferShape, BufferType, DeviceSeen, Event, Freed, Geometry,
        LiveBaseline, Spread,
    },
    history::{
        History,
        recorder::{Handle, Histories},
    },
    ledger::{
        Ledger,
        delta::Delta,
        report::Report,
        snapshot::{Detail, Snapshot, TargetState},
    },
    tui::{Theme, Ui},
    units::{Avma, ChipId, DeviceAddr, Pid, Tid},
};
use ttmem_bench::Bench;
use ttmem_common::table::POOLS;

const SECOND: u64 = 1_000_000_000;
/// Changes of each 5 ms while they arrive: 100,000 per second.
const ARRIVING: u64 = 500;

fn main() {
    let bench = Bench::from_command_line("tui");
    let group = "a frame of 160x40, 100000 live";
    if bench.wants(group) {
        frames(&bench, group, 100_000, false);
    }
    let group = "the same, 100000 changes per second";
    if bench.wants(group) {
        frames(&bench, group, 100_000, true);
    }
    let group = "a frame of 160x40, quiet";
    if bench.wants(group) {
        frames(&bench, group, 100, false);
    }
}

fn frames(bench: &Bench, group: &str, live: u64, arriving: bool) {
    let target = Target::new(live);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = arriving.then(|| target.keep_changing(&stop));
    let screen = |keys: &str| {
        let screen = RefCell::new(Screen::new(&target, keys));
        move || screen.borrow_mut().next_frame()
    };
    let again = RefCell::new(Screen::new(&target, "2G"));
    let typed = RefCell::new(Screen::new(&target, "2/'0x7"));
    let back = |first: bool, step: KeyCode, shown: char| {
        let mut screen = Screen::new(&target, "5");
        move |times| screen.earlier(times, first, step, shown)
    };
    let mut frozen = Screen::new(&target, "2");
    bench
        .group(group)
        .variant("overview", screen("1"))
        .variant("buffers", screen("2"))
        .variant("buffers, the last", screen("2G"))
        .variant("buffers, again", move || again.borrow_mut().again())
        .variant("buffers, filtered", screen("2/'0x77"))
        .variant("buffers, a filter being typed", move || typed.borrow_mut().typed())
        .timed("buffers, the first step back", 1, back(true, KeyCode::Left, '2'))
        .timed("buffers, a step back", 1, back(false, KeyCode::Left, '2'))
        .timed("buffers, a page back", 1, back(false, KeyCode::PageUp, '2'))
        .timed("overview, the first step back", 1, back(true, KeyCode::Left, '1'))
        .timed("overview, a step back", 1, back(false, KeyCode::Left, '1'))
        .timed("buffers, held", 1, move |times| frozen.held(times))
        .variant("groups", screen("2b"))
        .variant("map", screen("3"))
        .variant("circular buffers", screen("4"))
        .variant("timeline", screen("5"))
        .variant("histograms", screen("6"))
        .variant("failures", screen("7"))
        .variant("events", screen("8"))
        .variant("health", screen("9"))
        .run();
    stop.store(true, Ordering::Relaxed);
    if let Some(writer) = writer {
        writer.join().expect("it only writes");
    }
}

/// A made-up target and what it has done.
struct Target {
    snapshot: Snapshot,
    histories: Histories,
    handle: Handle,
}

impl Target {
    fn new(live: u64) -> Self {
        let mut ledger = Ledger::new(Pid(1), Vec::new());
        ledger.finish_baseline(Ok(LiveBaseline::default()));
        ledger.want_deltas(true);
        let chips = (0..8).map(ChipId).collect();
        ledger.apply(&Event::Device(DeviceSeen { device: Avma(1), mesh: None, chips }));
        let geometry = Geometry {
            bank_size: 1 << 30,
            banks: 12,
            alignment: 32,
            block_minimum: 32,
            block_unit: 32,
            base: Some(DeviceAddr(0)),
        };
        let pools = [Some(geometry); POOLS];
        let seen = AllocatorSeen { allocator: Avma(2), device: Avma(1), pools };
        ledger.apply(&Event::Allocator(Box::new(seen)));
        // Every fourth is freed again, so that there are holes.
        for number in 0..live * 4 / 3 {
            ledger.stamp(SECOND + number * 100_000, Some(Tid(1)));
            ledger.apply(&Event::Allocated(allocated(number)));
            if number % 4 == 3 {
                let (buffer, allocator) = (Avma(0x1000 + number), Avma(2));
                ledger.apply(&Event::Freed(Freed { buffer, allocator, described: None }));
            }
        }
        // And many go while others come, from all over the place: as much as the log keeps.
        let mut gone = Gone::new(live);
        for turn in 0..live / 2 {
            let number = gone.next();
            let came = live * 2 + turn;
            ledger.stamp(20 * SECOND + turn * 1_000_000, Some(Tid(2)));
            let (buffer, allocator) = (Avma(0x1000 + number), Avma(2));
            ledger.apply(&Event::Freed(Freed { buffer, allocator, described: None }));
            ledger.apply(&Event::Allocated(Allocated {
                buffer: Avma(0x1000 + came),
                ..allocated_at(came, number)
            }));
        }
        let mut history = History::default();
        for delta in &ledger.take_deltas() {
            history.apply(delta);
        }
        let detail = Detail { map: true, programs: true, ..Detail::default() };
        let snapshot = ledger.snapshot(200 * SECOND, TargetState::Running, detail);
        let histories = Histories::default();
        let handle = histories.add(Arc::clone(&snapshot.process), history);
        Self { snapshot, histories, handle }
    }

    /// Frees and allocates until it is stopped.
    fn keep_changing(&self, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
        let (handle, stop) = (Arc::clone(&self.handle), Arc::clone(stop));
        let mut template = {
            let history = handle.lock();
            let mut ledger = Ledger::new(Pid(1), Vec::new());
            ledger.want_deltas(true);
            ledger.apply(&Event::Allocated(allocated(1 << 40)));
            let mut delta: Delta = ledger.take_deltas().remove(0);
            delta.sequence = history.sequence();
            delta
        };
        thread::spawn(move || {
            let mut is_live = false;
            while !stop.load(Ordering::Relaxed) {
                let mut history = handle.lock();
                for _ in 0..ARRIVING {
                    template.sequence += 1;
                    template.time_ns += 10_000;
                    template.change = if is_live {
                        ttmem::ledger::delta::Change::Freed
                    } else {
                        ttmem::ledger::delta::Change::Allocated
                    };
                    is_live = !is_live;
                    history.apply(&template);
                }
                drop(history);
                thread::sleep(Duration::from_millis(5));
            }
        })
    }
}

/// Numbers of the buffers that stay, each once, far from those before and after it.
struct Gone {
    at: u64,
    of: u64,
}

impl Gone {
    const fn new(live: u64) -> Self {
        Self { at: 0, of: live * 4 / 3 }
    }

    fn next(&mut self) -> u64 {
        loop {
            self.at += 1;
            let number = self.at * 7919 % self.of;
            if number % 4 != 3 {
                return number;
            }
        }
    }
}

fn allocated(number: u64) -> Allocated {
    allocated_at(number, number)
}

/// A buffer with a number where another one was.
fn allocated_at(number: u64, place: u64) -> Allocated {
    let shape = BufferShape {
        unique_id: Some(number),
        buffer_type: BufferType::Dram,
        address: DeviceAddr(place * 4096),
        size: 2048 * (1 + place % 20),
        page_size: 2048,
        spread: Spread::Interleaved,
    };
    let tid = Tid(u32::try_from(number % 16).unwrap_or(0));
    let (buffer, allocator, device) = (Avma(0x1000 + number), Avma(2), Avma(1));
    Allocated { time_ns: SECOND, tid, buffer, allocator, device, shape }
}

/// A terminal that shows the target.
struct Screen {
    terminal: Terminal<TestBackend>,
    ui: Ui,
    snapshot: Snapshot,
    report: Arc<Report>,
    /// Two that are alike, but not the same: what is made from one is not that of the other.
    snapshots: [Arc<Snapshot>; 2],
    /// How often something was typed.
    typed: usize,
    /// Of the next reports; whoever measures does not measure their making.
    ready: Vec<Arc<Report>>,
}

impl Screen {
    fn new(target: &Target, keys: &str) -> Self {
        let snapshot = target.snapshot.clone();
        let ui = Ui::new(Theme::colored()).with_histories(target.histories.clone());
        let terminal = Terminal::new(TestBackend::new(160, 40)).expect("in memory");
        let report = Arc::new(Report::of_one(snapshot.clone()));
        let snapshots = [Arc::clone(&report.targets[0]), Arc::new(snapshot.clone())];
        let (ready, typed) = (Vec::new(), 0);
        let mut screen = Self { terminal, ui, snapshot, report, snapshots, typed, ready };
        for key in keys.chars() {
            screen.again();
            let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE);
            screen.ui.handle(&Pressed::Key(key));
        }
        screen.finish();
        screen
    }

    /// Draws until there is nothing left to be done.
    fn finish(&mut self) {
        self.again();
        while self.ui.is_unfinished() {
            self.again();
        }
    }

    fn press(&mut self, code: KeyCode) {
        self.ui.handle(&Pressed::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }

    /// The longest frame until there is nothing left to be done.
    fn longest(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        loop {
            let start = Instant::now();
            self.again();
            longest = longest.max(start.elapsed());
            if !self.ui.is_unfinished() {
                return longest;
            }
        }
    }

    /// Steps back in time, from now or from the last instant, and what was live then.
    fn earlier(&mut self, times: u64, first: bool, step: KeyCode, shown: char) -> Duration {
        let mut sum = Duration::ZERO;
        for turn in 0..times {
            self.press(KeyCode::Char('5'));
            if first || turn % 8 == 0 {
                self.press(KeyCode::Esc);
                if !first {
                    self.again();
                    self.press(step);
                    self.press(KeyCode::Char(shown));
                    self.finish();
                    self.press(KeyCode::Char('5'));
                }
            }
            self.again();
            self.press(step);
            self.press(KeyCode::Char(shown));
            sum += self.longest();
        }
        sum
    }

    /// Holds what is shown; to go on again is not measured.
    fn held(&mut self, times: u64) -> Duration {
        let mut sum = Duration::ZERO;
        for _ in 0..times {
            let start = Instant::now();
            self.press(KeyCode::Char('z'));
            sum += start.elapsed() + self.longest();
            self.press(KeyCode::Char('z'));
            self.finish();
        }
        sum
    }

    /// The first frame after a key by which every row is to be looked at again.
    fn typed(&mut self) -> u64 {
        for code in [KeyCode::Backspace, KeyCode::Char(['3', '5', '7'][self.typed % 3])] {
            self.ui.handle(&Pressed::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        }
        self.typed += 1;
        self.again()
    }

    /// A frame of a new report.
    fn next_frame(&mut self) -> u64 {
        if self.ready.is_empty() {
            for step in 1..=64_u64 {
                let shared = &self.snapshots[usize::from(step % 2 == 0)];
                let time_ns = self.snapshot.time_ns + step;
                let mut report = Report { time_ns, ..Report::default() };
                report.targets.push(Arc::clone(shared));
                self.ready.push(Arc::new(report));
            }
            self.snapshot.time_ns += 64;
        }
        if let Some(report) = self.ready.pop() {
            self.report = report;
        }
        self.again()
    }

    /// A frame of the same report.
    fn again(&mut self) -> u64 {
        let Self { terminal, ui, report, .. } = self;
        terminal.draw(|frame| ui.draw(frame, report)).expect("in memory");
        report.time_ns
    }
}
