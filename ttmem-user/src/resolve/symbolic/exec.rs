//! Follows the paths of one function.
//!
//! Deliberately small: integer moves, arithmetic, comparisons, branches, calls. Any other
//! instruction makes everything that it writes opaque.
//!
//! Invariant: bounded in paths, steps and repetitions, so it ends on any bytes.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use super::{
    expr::{Condition, Expr, Value, base_and_offset, constant},
    returns, semantics,
    state::{RSP, State},
};
use crate::{
    image::{Image, SlotValue, is_cold_part},
    units::Svma,
};

const MAX_PATHS: usize = 64;
const MAX_STEPS: u32 = 2000;
/// Steps over all paths of one function.
const MAX_TOTAL_STEPS: u32 = 20_000;
const MAX_DEPTH: usize = 3;
/// How often one instruction is executed in one frame: enough to enter a loop, not to stay.
const MAX_VISITS: u8 = 2;

/// What a call goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A function by its mangled name.
    Named(Rc<str>),
    /// A virtual function of an object.
    Virtual {
        /// The object.
        object: Value,
        /// Offset in its vtable.
        slot: i64,
    },
    /// Something else.
    Unknown,
}

/// A call that was not followed.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its number on the path; [`Expr::Returned`] refers to it.
    pub number: u32,
    /// What was called.
    pub target: Target,
    /// What the six argument registers held.
    pub arguments: [Value; 6],
}

/// Something that a path did.
#[derive(Clone, Debug)]
pub enum Event {
    /// A write to other memory than the stack.
    Write {
        /// Where.
        address: Value,
        /// Bytes.
        width: u8,
        /// What.
        value: Value,
    },
    /// A call that was not followed.
    Call(Call),
}

/// How a path ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned; rax.
    Return(Value),
    /// It threw, or ended the process.
    Throws,
    /// It was not followed to the end.
    Unknown(&'static str),
}

/// One path through a function.
#[derive(Clone, Debug)]
pub struct Path {
    /// What has to hold for it to be taken.
    pub conditions: Vec<Condition>,
    /// What it did, in order.
    pub events: Vec<Event>,
    /// What it loaded, in order.
    pub loads: Vec<Value>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Path {
    /// The calls that were not followed, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.events.iter().filter_map(|event| match event {
            Event::Call(call) => Some(call),
            Event::Write { .. } => None,
        })
    }
}

/// Follows functions of one image.
pub struct Executor<'i> {
    image: &'i Image<'i>,
    inline: Vec<&'static str>,
    pointees: [Option<u64>; 6],
    values: Vec<(usize, Value)>,
    ending: RefCell<HashMap<u64, bool>>,
}

enum Next {
    Continue,
    Fork(Condition, u64),
    End(Outcome),
}

impl<'i> Executor<'i> {
    /// An executor that follows no calls.
    pub fn new(image: &'i Image<'i>) -> Self {
        Self {
            image,
            inline: Vec::new(),
            pointees: [None; 6],
            values: Vec::new(),
            ending: RefCell::default(),
        }
    }

    /// Follows calls to functions whose mangled names start with one of these.
    #[must_use]
    pub fn inline(mut self, prefixes: &[&'static str]) -> Self {
        self.inline.extend_from_slice(prefixes);
        self
    }

    /// Makes an argument a pointer to a 4-byte constant.
    #[must_use]
    pub fn pointee(mut self, argument: usize, value: u32) -> Self {
        if let Some(slot) = self.pointees.get_mut(argument) {
            *slot = Some(value.into());
        }
        self
    }

    /// Sets an argument.
    #[must_use]
    pub fn argument(mut self, argument: usize, value: &Value) -> Self {
        self.values.push((argument, Rc::clone(value)));
        self
    }

    /// Follows the paths of the function at an address.
    pub fn run(&self, entry: Svma) -> Vec<Path> {
        let mut state = State::at_entry(self.image, entry);
        for (argument, value) in &self.values {
            if let Some(register) = super::state::ARGUMENTS.get(*argument) {
                state.set_register(*register, 8, value);
            }
        }
        for (argument, value) in self.pointees.iter().enumerate() {
            if let (Some(value), Some(register)) = (value, super::state::ARGUMENTS.get(argument)) {
                // Above the return address, where no local of the function can be.
                let place = i64::try_from(argument).unwrap_or(0) * 16 + 4096;
                let place = Rc::new(Expr::Stack(place));
                state.write(&place, 4, &constant(*value));
                state.set_register(*register, 8, &place);
            }
        }
        let mut pending = vec![state];
        let mut paths = Vec::new();
        let mut total = 0;
        while let Some(state) = pending.pop() {
            let room = MAX_PATHS.saturating_sub(paths.len() + pending.len() + 1);
            let path = self.follow(state, &mut pending, room, &mut total);
            paths.push(path);
        }
        paths
    }

    fn follow(
        &self,
        mut state: State<'i>,
        pending: &mut Vec<State<'i>>,
        mut room: usize,
        total: &mut u32,
    ) -> Path {
        let outcome = loop {
            *total += 1;
            let next = match state.ended.take() {
                Some(outcome) => Next::End(outcome),
                None if *total > MAX_TOTAL_STEPS => Next::End(Outcome::Unknown("too long")),
                None => self.step(&mut state),
            };
            match next {
                Next::Continue => {}
                Next::End(outcome) => break outcome,
                Next::Fork(..) if room == 0 => break Outcome::Unknown("too many paths"),
                Next::Fork(condition, target) => {
                    room -= 1;
                    let mut taken = state.clone();
                    state.conditions.push(condition.negated());
                    taken.conditions.push(condition);
                    if let Next::End(outcome) = self.go(&mut taken, target) {
                        taken.ended = Some(outcome);
                    }
                    pending.push(taken);
                }
            }
        };
        Path { conditions: state.conditions, events: state.events, loads: state.loads, outcome }
    }

    fn step(&self, state: &mut State<'i>) -> Next {
        state.steps += 1;
        let frame = state.frames.last().copied().unwrap_or(0);
        let visits = state.visits.entry((state.ip, frame)).or_insert(0);
        *visits += 1;
        if *visits > MAX_VISITS || state.steps > MAX_STEPS {
            return Next::End(Outcome::Unknown("a loop, or too long"));
        }
        let Some(code) = self.image.code_at(Svma(state.ip)) else {
            return Next::End(Outcome::Unknown("left the code"));
        };
        let mut decoder = Decoder::with_ip(64, code, state.ip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Next::End(Outcome::Unknown("not an instruction"));
        }
        state.ip = instruction.next_ip();
        match instruction.flow_control() {
            FlowControl::Next => {
                semantics::execute(state, &instruction);
                self.stay(state)
            }
            FlowControl::UnconditionalBranch => self.go(state, instruction.near_branch_target()),
            FlowControl::ConditionalBranch => self.branch(state, &instruction),
            FlowControl::IndirectBranch => self.indirect(state, &instruction, true),
            FlowControl::Call => self.call(state, instruction.near_branch_target(), false),
            FlowControl::IndirectCall => self.indirect(state, &instruction, false),
            FlowControl::Return => Self::ret(state),
            FlowControl::Exception | FlowControl::Interrupt => Next::End(Outcome::Throws),
            FlowControl::XbeginXabortXend => Next::End(Outcome::Unknown("a transaction")),
        }
    }

    /// Goes on with the next instruction, unless the function is over: then what came before it
    /// does not return, and that is not known of it.
    fn stay(&self, state: &State<'i>) -> Next {
        if self.image.function_at(Svma(state.ip)).is_some() {
            return Next::End(Outcome::Unknown("ran past the end of the function"));
        }
        Next::Continue
    }

    fn branch(&self, state: &mut State<'i>, instruction: &Instruction) -> Next {
        let target = instruction.near_branch_target();
        if !instruction.is_jcc_short_or_near() {
            return Next::End(Outcome::Unknown("a loop instruction"));
        }
        let condition = semantics::condition(state, instruction);
        match state.decide(&condition) {
            Some(true) => self.go(state, target),
            Some(false) => self.stay(state),
            None => Next::Fork(condition, target),
        }
    }

    /// Jumps: within the function, its unlikely part included, or to another one in place of a
    /// call.
    fn go(&self, state: &mut State<'i>, target: u64) -> Next {
        let name = returns::name_of(self.image, Svma(target));
        if name.is_some_and(|name| !is_cold_part(name)) {
            return self.call(state, target, true);
        }
        state.ip = target;
        Next::Continue
    }

    /// Whether a call to an address never comes back.
    fn never_returns(&self, target: u64) -> bool {
        let look = || returns::never_returns(self.image, Svma(target));
        *self.ending.borrow_mut().entry(target).or_insert_with(look)
    }

    fn call(&self, state: &mut State<'i>, target: u64, is_tail: bool) -> Next {
        let Some(name) = returns::name_of(self.image, Svma(target)) else {
            return self.opaque_call(state, Target::Unknown, None, is_tail);
        };
        if self.never_returns(target) {
            return Next::End(Outcome::Throws);
        }
        if matches!(name, "pthread_mutex_lock" | "pthread_mutex_unlock") {
            return self.opaque_call(state, Target::Named(name.into()), Some(constant(0)), is_tail);
        }
        let followed = self.inline.iter().any(|prefix| name.starts_with(prefix));
        match self.image.symbol(name) {
            Some(symbol) if followed && (is_tail || state.frames.len() < MAX_DEPTH) => {
                state.calls += 1;
                if !is_tail {
                    let back = constant(state.ip);
                    state.push(&back);
                    state.frames.push(state.calls);
                }
                state.ip = symbol.address.0;
                Next::Continue
            }
            _ => self.opaque_call(state, Target::Named(name.into()), None, is_tail),
        }
    }

    fn opaque_call(
        &self,
        state: &mut State<'i>,
        target: Target,
        result: Option<Value>,
        is_tail: bool,
    ) -> Next {
        state.call(target, result);
        if is_tail { Self::ret(state) } else { self.stay(state) }
    }

    fn indirect(&self, state: &mut State<'i>, instruction: &Instruction, is_tail: bool) -> Next {
        let target = semantics::operand(state, instruction, 0);
        if let Expr::Const(address) = &*target {
            let address = *address;
            return if is_tail {
                self.go(state, address)
            } else {
                self.call(state, address, false)
            };
        }
        if instruction.is_ip_rel_memory_operand()
            && let Some(SlotValue::Symbol(name, 0)) =
                self.image.slot(Svma(instruction.ip_rel_memory_address()))
        {
            if returns::is_named_so(name) {
                return Next::End(Outcome::Throws);
            }
            let lock = matches!(name, "pthread_mutex_lock" | "pthread_mutex_unlock");
            let target = Target::Named(name.into());
            return self.opaque_call(state, target, lock.then(|| constant(0)), is_tail);
        }
        self.opaque_call(state, virtual_target(&target), None, is_tail)
    }

    fn ret(state: &mut State<'i>) -> Next {
        if *state.register(RSP, 8) == Expr::Stack(0) {
            return Next::End(Outcome::Return(state.register(0, 8)));
        }
        match (&*state.pop(), state.frames.pop()) {
            (Expr::Const(back), Some(_)) => {
                state.ip = *back;
                Next::Continue
            }
            _ => Next::End(Outcome::Unknown("returned to an unknown place")),
        }
    }
}

/// Recognises `*(*object + slot)`.
fn virtual_target(target: &Value) -> Target {
    if let Expr::Load { address, width: 8 } = &**target {
        let (vtable, slot) = base_and_offset(address);
        if let Expr::Load { address: object, width: 8 } = &**vtable {
            return Target::Virtual { object: Rc::clone(object), slot };
        }
    }
    Target::Unknown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::sample;

    /// `AllocatorImpl::get_num_banks(const BufferType&) const`, 0.81.1, at 0xa7dae0.
    const GET_NUM_BANKS: &str = "8b0eb01bd2e84883f9047717a8017413488d05c137bfff488b04c8488b04078b4020c350488d3d57aac7ff48 \
         8d157faac7ff488d0d4f2dc9ff4c8d0580f0c4ff41b918000000beb7010000e81035d0ff";
    /// The table that it reads, at 0x6712b8: the place of the bank manager by type.
    const TABLE: &str =
        "30000000000000003800000000000000000000000000000040000000000000004800000000000000";
    const THROW: &str = "_ZN2tt6assert6detail8tt_throwIJEEEvPKciS4_S4_";

    fn display(path: &Path) -> String {
        match &path.outcome {
            Outcome::Return(value) => value.to_string(),
            other => format!("{other:?}"),
        }
    }

    fn run(code: &str) -> Vec<String> {
        let code = sample::hex(code);
        let file = sample::elf(&[("function", 0x1000, &code), ("callee", 0x2000, &[0xc3])]);
        let image = Image::parse(file).unwrap();
        Executor::new(&image).run(Svma(0x1000)).iter().map(display).collect()
    }

    #[test]
    fn evaluates_tables_for_a_known_argument() {
        let (code, table) = (sample::hex(GET_NUM_BANKS), sample::hex(TABLE));
        let pieces =
            [("f", 0xa7_dae0, &*code), ("", 0x67_12b8, &*table), (THROW, 0x78_1040, &[0xc3][..])];
        let image = Image::parse(sample::elf(&pieces)).unwrap();
        let of = |kind| {
            let paths = Executor::new(&image).pointee(1, kind).run(Svma(0xa7_dae0));
            paths.iter().map(display).collect::<Vec<_>>()
        };
        assert_eq!(of(0), ["u32[Add(u64[Add(arg0, 0x30)], 0x20)]"]);
        assert_eq!(of(1), ["u32[Add(u64[Add(arg0, 0x38)], 0x20)]"]);
        assert_eq!(of(2), ["Throws"]);
        assert_eq!(of(3), ["u32[Add(u64[Add(arg0, 0x40)], 0x20)]"]);
        assert_eq!(of(4), ["u32[Add(u64[Add(arg0, 0x48)], 0x20)]"]);
        assert_eq!(of(9), ["Throws"]);
    }

    /// `AllocatorImpl::get_num_banks(const BufferType&) const`, 0.67.4, at 0x6f79e0: it tests a bit
    /// for whether there is a bank manager of that type.
    const GET_NUM_BANKS_BY_BIT: &str =
        "8b064883f805731eb91b0000000fa3c17314488d0d37ffd4ff488b04c1488b3c078b4720c3500f0b";

    #[test]
    fn a_bit_test_of_known_values_is_decided() {
        let (code, table) = (sample::hex(GET_NUM_BANKS_BY_BIT), sample::hex(TABLE));
        let pieces = [("f", 0x6f_79e0, &*code), ("", 0x44_7930, &*table)];
        let image = Image::parse(sample::elf(&pieces)).unwrap();
        let of = |kind| {
            let paths = Executor::new(&image).pointee(1, kind).run(Svma(0x6f_79e0));
            paths.iter().map(display).collect::<Vec<_>>()
        };
        assert_eq!(of(0), ["u32[Add(u64[Add(arg0, 0x30)], 0x20)]"]);
        assert_eq!(of(2), ["Throws"]);
        assert_eq!(of(4), ["u32[Add(u64[Add(arg0, 0x48)], 0x20)]"]);
        assert_eq!(of(5), ["Throws"]);
        // bt eax,34: the number is taken modulo 32; setb al; movzx eax,al; ret
        assert_eq!(run("b804000000 0fbae022 0f92c0 0fb6c0 c3"), ["1"]);
        assert_eq!(run("b80b000000 0fbae022 0f92c0 0fb6c0 c3"), ["0"]);
        // bt [rdi],rax: the bit may lie outside the word.
        assert!(run("480fa307 0f92c0 0fb6c0 c3")[0].contains('?'));
        // Of an unknown value both ways are followed: bt edi,3; jae over; mov eax,1; ret; xor …
        assert_eq!(run("0fbae703 7306 b801000000 c3 31c0 c3").len(), 2);
    }

    #[test]
    fn follows_pointers_and_the_stack() {
        // Buffer::size() const, 0.81.1.
        assert_eq!(run("488b4710 488b4008 c3"), ["u64[Add(u64[Add(arg0, 0x10)], 8)]"]);
        // push rbx; mov rbx,rdi; mov rax,rbx; pop rbx; ret
        assert_eq!(run("53 4889fb 4889d8 5b c3"), ["arg0"]);
        // Buffer::is_allocated() const, 0.78.0: only the low byte is set.
        assert_eq!(run("807f4801 0f94c0 0fb6c0 c3"), ["(u8[Add(arg0, 0x48)] Equal 1)"]);
    }

    #[test]
    fn what_is_not_modelled_becomes_opaque() {
        // mov rax,[rdi]; bswap rax; ret
        assert!(run("488b07 480fc8 c3")[0].starts_with('?'));
        // mov eax,[rdi]; mov ah,3; ret: the high byte of ax is not modelled
        assert!(run("8b07 b403 c3")[0].starts_with('?'));
        // mov [rsp-8],rdi; lea rdi,[rsp-8]; stosq; mov rax,[rsp-8]; ret
        let written = run("48897c24f8 488d7c24f8 48ab 488b4424f8 c3");
        assert!(!written[0].contains("arg0"), "{written:?}");
    }

    #[test]
    fn does_not_run_on_after_a_call_that_may_not_return() {
        // call 0x2000, at the very end; what follows in memory is another function.
        let file = sample::elf(&[
            ("function", 0x1000, &sample::hex("e8fb0f0000")),
            ("next", 0x1005, &[0xc3]),
            ("callee", 0x2000, &[0xc3]),
        ]);
        let image = Image::parse(file).unwrap();
        let paths = Executor::new(&image).run(Svma(0x1000));
        assert!(matches!(paths[0].outcome, Outcome::Unknown(_)));
    }

    #[test]
    fn ends_in_a_loop() {
        // jmp to itself
        assert_eq!(run("90 ebfd").len(), 1);
    }

    proptest! {
        #[test]
        fn ends_on_any_bytes(code in prop::collection::vec(any::<u8>(), 1..300)) {
            let image = Image::parse(sample::elf(&[("", 0x1000, &code)])).unwrap();
            for path in Executor::new(&image).run(Svma(0x1000)) {
                let _ = display(&path);
            }
        }
    }
}
