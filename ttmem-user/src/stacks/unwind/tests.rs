#![expect(unsafe_code, reason = "the registers and the stack of the test itself")]

use std::{ffi::c_void, hint::black_box, mem::MaybeUninit};

use proptest::prelude::*;

use super::*;
use crate::stacks::record::PythonFrames;
use crate::{
    stacks::names::demangled,
    target::{
        memory::{LiveMemory, TargetMemory as _},
        process::Process,
    },
    units::{Pid, Tid},
};

/// Bytes of the stack that are copied.
const COPIED: usize = 16 << 10;

/// A stack of this process as a probe would have found it, and what the C library says of it.
struct Captured {
    stack: Vec<u8>,
    ip: u64,
    sp: u64,
    bp: u64,
    preserved: [u64; 5],
    /// Where each function returns to, the innermost first.
    returns: Vec<u64>,
}

impl Captured {
    fn record(&self, copied: usize) -> Record<'_> {
        Record {
            time_ns: 1,
            slot: 0,
            pid: Pid(std::process::id()),
            tid: Tid(1),
            ip: Avma(self.ip),
            sp: Avma(self.sp),
            bp: self.bp,
            preserved: self.preserved,
            stack: &self.stack[..copied.min(self.stack.len())],
            python: PythonFrames::none(),
        }
    }
}

#[inline(never)]
fn capture() -> Captured {
    let mut context = MaybeUninit::<libc::ucontext_t>::uninit();
    // SAFETY: it fills the context in.
    assert_eq!(unsafe { libc::getcontext(context.as_mut_ptr()) }, 0);
    // SAFETY: filled in.
    let registers = unsafe { context.assume_init() }.uc_mcontext.gregs;
    let register =
        |number: libc::c_int| registers[usize::try_from(number).unwrap()].cast_unsigned();
    let sp = register(libc::REG_RSP);
    let memory = LiveMemory::open(&Process::open(Pid(std::process::id())).unwrap()).unwrap();
    let mut stack = vec![0; COPIED];
    // A thread's stack may be shorter.
    while memory.read(Avma(sp), &mut stack).is_err() {
        stack.truncate(stack.len() - 512);
    }
    let mut returns = [std::ptr::null_mut::<c_void>(); MOST_FRAMES];
    let room = i32::try_from(returns.len()).unwrap();
    // SAFETY: there is room for as many.
    let count = unsafe { libc::backtrace(returns.as_mut_ptr(), room) };
    let returns = returns[..usize::try_from(count).unwrap()].iter().map(|at| *at as u64).collect();
    Captured {
        stack,
        ip: register(libc::REG_RIP),
        sp,
        bp: register(libc::REG_RBP),
        preserved: [libc::REG_RBX, libc::REG_R12, libc::REG_R13, libc::REG_R14, libc::REG_R15]
            .map(register),
        returns,
    }
}

#[inline(never)]
fn inner_of_three(numbers: &[u64]) -> Captured {
    // Frames of a size that is not known when this is compiled need a frame pointer.
    let captured = capture();
    black_box(numbers);
    captured
}

#[inline(never)]
fn middle_of_three(count: u64) -> Captured {
    let numbers: Vec<u64> = (0..count).collect();
    let captured = inner_of_three(&numbers);
    black_box(numbers);
    captured
}

#[inline(never)]
fn outer_of_three(count: u64) -> Captured {
    let captured = middle_of_three(black_box(count) + 1);
    black_box(captured)
}

fn modules() -> Modules {
    Modules::open(&Process::open(Pid(std::process::id())).unwrap()).unwrap()
}

fn unwind(record: &Record<'_>) -> (Vec<u64>, Option<Cut>) {
    let mut frames = Vec::new();
    let cut = Unwinder::default().unwind(&mut modules(), record, &mut frames);
    (frames.into_iter().map(|frame| frame.0).collect(), cut)
}

#[test]
fn it_finds_what_the_c_library_finds() {
    let captured = outer_of_three(5);
    let (frames, cut) = unwind(&captured.record(COPIED));
    assert_eq!(cut, None, "a thread's start has been reached");
    let callers: Vec<u64> = frames[1..].iter().map(|inside| inside + 1).collect();
    // The C library's innermost is where it was called itself, in the same function.
    assert_eq!(callers, captured.returns[1..]);
    let mut modules = modules();
    let names: Vec<String> = frames
        .iter()
        .filter_map(|at| match modules.at(Avma(*at)) {
            Place::Code(binary, stated) => binary.function(stated),
            _ => None,
        })
        .map(|name| demangled(&name))
        .collect();
    let place = |name: &str| names.iter().position(|known| known.contains(name)).unwrap();
    let places = ["capture", "inner_of_three", "middle_of_three", "outer_of_three"].map(place);
    assert_eq!(places, [0, 1, 2, 3], "{names:#?}");
}

#[test]
fn with_less_of_the_stack_there_are_fewer_frames_and_no_others() {
    let captured = outer_of_three(5);
    let (whole, _) = unwind(&captured.record(COPIED));
    let (mut modules, mut unwinder) = (modules(), Unwinder::default());
    let (mut frames, mut most) = (Vec::new(), 0);
    for copied in (0..captured.stack.len()).step_by(8) {
        let cut = unwinder.unwind(&mut modules, &captured.record(copied), &mut frames);
        let found: Vec<u64> = frames.iter().map(|frame| frame.0).collect();
        assert!(found.len() >= most && whole.starts_with(&found), "{copied} bytes");
        most = found.len();
        if most < whole.len() {
            assert_eq!(cut, Some(Cut::Copied), "{copied} bytes");
        }
    }
    assert_eq!(most, whole.len());
}

#[test]
fn code_in_no_file_ends_it() {
    let captured = outer_of_three(5);
    let mut record = captured.record(COPIED);
    record.ip = Avma(16);
    assert_eq!(unwind(&record), (vec![16], Some(Cut::NoFile)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is on the stack, it ends, and each frame is one of known code but the last.
    #[test]
    fn any_bytes_come_to_an_end(
        damage in proptest::collection::vec((0..COPIED, any::<u8>()), 0..400),
        copied in 0..COPIED,
    ) {
        let mut captured = outer_of_three(5);
        for (at, byte) in damage {
            let length = captured.stack.len();
            captured.stack[at % length] = byte;
        }
        let (frames, _) = unwind(&captured.record(copied));
        prop_assert!((1..=MOST_FRAMES).contains(&frames.len()));
        let modules = modules();
        let (_, before) = frames.split_last().unwrap();
        prop_assert!(before.iter().all(|frame| modules.is_mapped(Avma(*frame))));
    }
    /// An expression of any bytes has a value or none.
    #[test]
    fn any_expression_comes_to_an_end(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), 0x08..0x40_u8, 0x70..0x80_u8], 0..40),
        stack in proptest::collection::vec(any::<u8>(), 64),
        initial: Option<u64>,
        sp: u64,
    ) {
        let captured = Captured {
            stack, ip: 1, sp, bp: sp.wrapping_add(32), preserved: [sp; 5], returns: Vec::new(),
        };
        let record = captured.record(COPIED);
        let whole = UnwindExpression { offset: 0, length: bytes.len() };
        let entry = Entry::of_expressions(&bytes);
        evaluate(&entry, &whole, initial, &record, &Registers::of(&record));
    }
}
