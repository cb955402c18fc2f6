//! The machine state of one path: registers, stack, and what has happened so far.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use super::{
    exec::{Call, Event, Outcome, Target},
    expr::{self, Condition, Expr, Relation, Value, base_and_offset, load, truncate},
    flags::Flags,
};
use crate::{
    image::{Image, SlotValue},
    units::Svma,
};

/// Nodes of an expression beyond which it becomes opaque. Real accessors stay far below; without
/// a bound, adding a register to itself again and again would take forever to look at.
const MAX_NODES: u32 = 300;

/// Number of rsp among the general registers.
pub const RSP: usize = 4;
/// Registers that carry the first six arguments, in order: rdi, rsi, rdx, rcx, r8, r9.
pub const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Registers that a call may change: rax, rcx, rdx, rsi, rdi, r8–r11.
const CLOBBERED: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];
/// How much of an object on the stack a call that gets its address may change, in bytes.
const ESCAPED: i64 = 256;

/// One path's state.
#[derive(Clone)]
pub struct State<'i> {
    image: &'i Image<'i>,
    registers: [Value; 16],
    stack: BTreeMap<i64, (u8, Value)>,
    opaque: u32,
    /// Where the next instruction is.
    pub ip: u64,
    /// How the path ended, if it has.
    pub ended: Option<Outcome>,
    /// The flags.
    pub flags: Flags,
    /// The conditions that lead here.
    pub conditions: Vec<Condition>,
    /// Writes and calls, in order.
    pub events: Vec<Event>,
    /// Loads from other memory than stack and constants, in order.
    pub loads: Vec<Value>,
    /// Inlined calls that have not returned: each has its own number.
    pub frames: Vec<u32>,
    /// How often an instruction was reached in a frame.
    pub visits: HashMap<(u64, u32), u8>,
    /// Instructions so far.
    pub steps: u32,
    /// Calls so far, inlined ones included.
    pub calls: u32,
}

fn count_nodes(value: &Value, left: &mut u32) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    match &**value {
        Expr::Load { address: inner, .. } | Expr::Low(_, inner) | Expr::Signed(_, inner) => {
            count_nodes(inner, left);
        }
        Expr::Insert(_, a, b) | Expr::Binary(_, a, b) => {
            count_nodes(a, left);
            count_nodes(b, left);
        }
        Expr::Truth(condition) => {
            count_nodes(&condition.left, left);
            count_nodes(&condition.right, left);
        }
        Expr::Select(condition, a, b) => {
            for inner in [&condition.left, &condition.right, a, b] {
                count_nodes(inner, left);
            }
        }
        _ => {}
    }
}

impl<'i> State<'i> {
    /// The state at a function's entry.
    pub fn at_entry(image: &'i Image<'i>, ip: Svma) -> Self {
        let mut state = Self {
            image,
            registers: std::array::from_fn(|_| expr::constant(0)),
            stack: BTreeMap::new(),
            opaque: 0,
            ip: ip.0,
            ended: None,
            flags: Flags::Unknown,
            conditions: Vec::new(),
            events: Vec::new(),
            loads: Vec::new(),
            frames: Vec::new(),
            visits: HashMap::new(),
            steps: 0,
            calls: 0,
        };
        for number in 0..16 {
            state.registers[number] = state.unknown();
        }
        for (argument, number) in ARGUMENTS.into_iter().enumerate() {
            let argument = u8::try_from(argument).unwrap_or(u8::MAX);
            state.registers[number] = Rc::new(Expr::Arg(argument));
        }
        state.registers[RSP] = Rc::new(Expr::Stack(0));
        state
    }

    /// A value that equals nothing else.
    pub fn unknown(&mut self) -> Value {
        self.opaque += 1;
        Rc::new(Expr::Opaque(self.opaque))
    }

    /// A register's low bytes.
    pub fn register(&self, number: usize, width: u8) -> Value {
        truncate(width, &self.registers[number & 15])
    }

    /// Writes a register's low bytes as the processor does: 4 clear the rest, 1 and 2 keep it.
    pub fn set_register(&mut self, number: usize, width: u8, value: &Value) {
        let number = number & 15;
        let value = match width {
            8 => Rc::clone(value),
            4 => truncate(4, value),
            _ => expr::insert(width, &self.registers[number], value),
        };
        self.registers[number] = self.bounded(value);
    }

    /// The value, or an opaque one if it has grown too large.
    fn bounded(&mut self, value: Value) -> Value {
        let mut left = MAX_NODES;
        count_nodes(&value, &mut left);
        if left == 0 { self.unknown() } else { value }
    }

    /// Reads memory.
    pub fn read(&mut self, address: &Value, width: u8) -> Value {
        match &**address {
            Expr::Const(at) => self.read_image(*at, width).unwrap_or_else(|| load(address, width)),
            Expr::Stack(at) => match self.stack.get(at) {
                Some((stored, value)) if *stored >= width => truncate(width, &Rc::clone(value)),
                _ => self.unknown(),
            },
            _ => {
                let value = self.read_written(address, width);
                self.loads.push(Rc::clone(&value));
                value
            }
        }
    }

    fn read_image(&self, at: u64, width: u8) -> Option<Value> {
        match self.image.slot(Svma(at)) {
            Some(SlotValue::Address(address)) if width == 8 => Some(expr::constant(address.0)),
            Some(SlotValue::Symbol(name, 0)) if width == 8 => {
                Some(expr::constant(self.image.symbol(name)?.address.0))
            }
            Some(_) => None,
            None => self.image.constant_at(Svma(at), width).map(expr::constant),
        }
    }

    /// Memory that may have been written on this path: the last write to it, if it covers it.
    fn read_written(&mut self, address: &Value, width: u8) -> Value {
        let (base, offset) = base_and_offset(address);
        for event in self.events.iter().rev() {
            let Event::Write { address: written, width: size, value } = event else { continue };
            let (other, start) = base_and_offset(written);
            if other != base {
                continue;
            }
            if start == offset && *size >= width {
                return truncate(width, value);
            }
            if start < offset.saturating_add(width.into())
                && offset < start.saturating_add((*size).into())
            {
                return self.unknown();
            }
        }
        load(address, width)
    }

    /// Writes memory.
    pub fn write(&mut self, address: &Value, width: u8, value: &Value) {
        let value = self.bounded(truncate(width, value));
        if let Expr::Stack(at) = **address {
            self.forget_stack(at, at.saturating_add(width.into()));
            self.stack.insert(at, (width, value));
        } else {
            let address = self.bounded(Rc::clone(address));
            self.events.push(Event::Write { address, width, value });
        }
    }

    /// Forgets what the stack holds between two offsets.
    fn forget_stack(&mut self, start: i64, end: i64) {
        self.stack.retain(|at, (size, _)| *at >= end || at.saturating_add((*size).into()) <= start);
    }

    /// Forgets all that the stack holds: any of it may have been written.
    pub fn forget_whole_stack(&mut self) {
        self.stack.clear();
    }

    /// Moves the stack pointer.
    pub fn move_stack(&mut self, by: i64) {
        let moved =
            expr::binary(expr::Op::Add, &self.registers[RSP], &expr::constant(by.cast_unsigned()));
        self.registers[RSP] = moved;
    }

    /// Pushes 8 bytes.
    pub fn push(&mut self, value: &Value) {
        self.move_stack(-8);
        let top = Rc::clone(&self.registers[RSP]);
        self.write(&top, 8, value);
    }

    /// Pops 8 bytes.
    pub fn pop(&mut self) -> Value {
        let top = Rc::clone(&self.registers[RSP]);
        let value = self.read(&top, 8);
        self.move_stack(8);
        value
    }

    /// Records a call that is not followed, and forgets what it may change.
    pub fn call(&mut self, target: Target, result: Option<Value>) {
        let arguments: [Value; 6] = ARGUMENTS.map(|number| Rc::clone(&self.registers[number]));
        let number = self.calls;
        self.calls += 1;
        for argument in &arguments {
            if let Expr::Stack(at) = **argument
                && result.is_none()
            {
                self.forget_stack(at, at.saturating_add(ESCAPED).min(0));
            }
        }
        for register in CLOBBERED {
            self.registers[register] = self.unknown();
        }
        self.registers[0] = result.unwrap_or_else(|| Rc::new(Expr::Returned(number)));
        self.flags = Flags::Unknown;
        self.events.push(Event::Call(Call { number, target, arguments }));
    }

    /// Whether a condition holds on this path, if that is known.
    pub fn decide(&self, condition: &Condition) -> Option<bool> {
        if let Some(known) = condition.known() {
            return Some(known);
        }
        let opposite = condition.negated();
        self.conditions.iter().find_map(|earlier| {
            if earlier == condition {
                return Some(true);
            }
            if *earlier == opposite {
                return Some(false);
            }
            let same = earlier.relation == Relation::Equal
                && earlier.left == condition.left
                && earlier.width == condition.width;
            match (&*earlier.right, &*condition.right) {
                (Expr::Const(is), Expr::Const(other)) if same => {
                    Some(condition.relation.holds(*is, *other, condition.width))
                }
                _ => None,
            }
        })
    }
}
