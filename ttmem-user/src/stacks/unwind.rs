//! From the bytes of a stack to the addresses that its functions return to.
//!
//! By the unwind information of the files alone, and the copied bytes alone. Where these say
//! nothing it ends: a frame pointer that nobody vouches for is no frame. (That is what libraries
//! for profilers do instead, and why none is used here.) Rules: System V ABI for AMD64, 3.7; DWARF 5,
//! 6.4; Linux Standard Base, 10.6.
//!
//! Invariant: whatever the bytes are, it ends: every caller's frame is above its callee's.

use std::{collections::HashMap, sync::Arc};

use gimli::{
    CfaRule, Encoding, EvaluationResult, Format, Register, RegisterRule, UnwindContext,
    UnwindExpression, Value, X86_64,
};

use super::{
    binary::Binary,
    frames::Entry,
    modules::{Modules, Place},
    record::Record,
};
use crate::{
    ledger::call::Cut,
    units::{Avma, Svma},
};

/// Frames of one stack that are kept.
pub const MOST_FRAMES: usize = 256;
/// Rules that are remembered, and bytes that they may take.
const MOST_RULES: usize = 1 << 16;
const MOST_BYTES: usize = 16 << 20;
/// Steps of one expression.
const MOST_STEPS: u32 = 1000;

/// Registers by their DWARF number: 0 to 15, then the return address.
const REGISTERS: usize = 17;

/// Those that a call preserves, apart from the stack pointer, in the order of a record.
const PRESERVED: [Register; 5] = [X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

/// How to get from one frame to its caller's.
#[derive(Debug)]
struct Rule {
    cfa: CfaRule<usize>,
    registers: Box<[(Register, RegisterRule<usize>)]>,
    /// The caller was interrupted, and has not called.
    interrupted: bool,
    /// The file that it is from.
    path: Arc<str>,
    /// What its expressions are in, if it has any.
    entry: Option<Entry>,
}

impl Rule {
    /// Bytes of memory that it takes, about.
    fn size(&self) -> usize {
        let entry = self.entry.as_ref().map_or(0, Entry::len);
        2 * size_of::<Self>() + size_of_val(&*self.registers) + entry
    }
}

/// Unwinds stacks of one target.
#[derive(Default)]
pub struct Unwinder {
    rules: HashMap<u64, Result<Arc<Rule>, Cut>, foldhash::fast::RandomState>,
    /// Bytes that they take.
    size: usize,
    context: UnwindContext<usize>,
}

/// What is known of registers.
#[derive(Clone, Copy)]
struct Registers([Option<u64>; REGISTERS]);

impl Registers {
    fn of(record: &Record<'_>) -> Self {
        let mut registers = Self([None; REGISTERS]);
        registers.set(X86_64::RSP, Some(record.sp.0));
        registers.set(X86_64::RBP, Some(record.bp));
        for (register, value) in PRESERVED.into_iter().zip(record.preserved) {
            registers.set(register, Some(value));
        }
        registers
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(place) = self.0.get_mut(usize::from(register.0)) {
            *place = value;
        }
    }
}

/// What one step leads to.
enum Step {
    /// The caller, which is about to go on there.
    Caller { at: u64, interrupted: bool },
    /// There is none.
    End,
}

impl Unwinder {
    /// Forgets what it knows of the target's code, which has changed.
    pub fn forget(&mut self) {
        self.rules = HashMap::default();
        self.size = 0;
    }

    /// Bytes of memory that it takes, about.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Finds the frames of a stack, the innermost first: an address inside of each function. Returns
    /// why the last one is not the outermost, if it is not.
    pub fn unwind(
        &mut self,
        modules: &mut Modules,
        record: &Record<'_>,
        frames: &mut Vec<Avma>,
    ) -> Option<Cut> {
        frames.clear();
        let mut registers = Registers::of(record);
        let mut at = record.ip;
        loop {
            if frames.len() == MOST_FRAMES {
                return Some(Cut::Deep);
            }
            frames.push(at);
            let rule = match self.rule(modules, at) {
                Ok(rule) => rule,
                Err(cut) => return Some(cut),
            };
            match step(&rule, record, &mut registers) {
                // A call may be the last instruction of its function.
                Ok(Step::Caller { at: next, interrupted }) => {
                    at = Avma(next.wrapping_sub(u64::from(!interrupted)));
                }
                Ok(Step::End) => return None,
                Err(cut) => return Some(cut),
            }
        }
    }

    fn rule(&mut self, modules: &mut Modules, at: Avma) -> Result<Arc<Rule>, Cut> {
        if let Some(rule) = self.rules.get(&at.0) {
            return rule.clone();
        }
        let rule = match modules.at(at) {
            Place::Code(binary, stated) => match read_rule(&binary, stated, &mut self.context) {
                Some(rule) => Ok(Arc::new(rule)),
                None => Err(Cut::NoUnwindInfo(Arc::clone(&binary.path))),
            },
            Place::Unreadable(path, _) => Err(Cut::Unreadable(path)),
            // It may be mapped by the next time.
            Place::Nothing => return Err(Cut::NoFile),
        };
        let size = rule.as_ref().map_or(size_of::<Rule>(), |rule| rule.size());
        if self.rules.len() >= MOST_RULES || self.size + size > MOST_BYTES {
            self.forget();
        }
        self.size += size;
        self.rules.insert(at.0, rule.clone());
        rule
    }
}

#[cfg(test)]
impl Unwinder {
    /// Goes to the caller of an address of a file, if there is a rule for it.
    pub fn step_from(&mut self, binary: &Arc<Binary>, at: Svma, record: &Record<'_>) {
        if let Some(rule) = read_rule(binary, at, &mut self.context) {
            let _ = step(&rule, record, &mut Registers::of(record));
        }
    }
}

/// The rule at an address; `None` if the file says nothing of it.
fn read_rule(binary: &Arc<Binary>, at: Svma, context: &mut UnwindContext<usize>) -> Option<Rule> {
    let entry = binary.unwind_entry(at)?;
    let stated = entry.parse()?;
    let row =
        stated.unwind_info_for_address(&entry.section(), entry.bases(), context, at.0).ok()?;
    let (cfa, interrupted) = (row.cfa().clone(), stated.is_signal_trampoline());
    let registers: Box<[_]> = row.registers().cloned().collect();
    let has_expressions = matches!(cfa, CfaRule::Expression(_))
        || registers.iter().any(|(_, how)| {
            matches!(how, RegisterRule::Expression(_) | RegisterRule::ValExpression(_))
        });
    let entry = has_expressions.then_some(entry);
    Some(Rule { cfa, registers, interrupted, path: Arc::clone(&binary.path), entry })
}

/// Goes to the caller.
fn step(rule: &Rule, record: &Record<'_>, registers: &mut Registers) -> Result<Step, Cut> {
    let nowhere = || Cut::NoUnwindInfo(Arc::clone(&rule.path));
    let old = *registers;
    let expression = |expression: &UnwindExpression<usize>, initial: Option<u64>| {
        evaluate(rule.entry.as_ref()?, expression, initial, record, &old)
    };
    let cfa = match &rule.cfa {
        CfaRule::RegisterAndOffset { register, offset } => {
            old.get(*register).map(|value| value.wrapping_add_signed(*offset))
        }
        CfaRule::Expression(how) => expression(how, None),
    };
    let cfa = cfa.ok_or_else(nowhere)?;
    // What the caller's registers are: those that a call preserves are, unless there is a rule.
    let mut new = Registers([None; REGISTERS]);
    for register in PRESERVED.into_iter().chain([X86_64::RBP]) {
        new.set(register, old.get(register));
    }
    new.set(X86_64::RSP, Some(cfa));
    let mut has_caller = false;
    for (register, how) in &rule.registers {
        let value = match how {
            RegisterRule::SameValue => old.get(*register),
            RegisterRule::Offset(offset) => record.word(cfa.wrapping_add_signed(*offset)),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(other) => old.get(*other),
            RegisterRule::Expression(how) => {
                expression(how, Some(cfa)).and_then(|at| record.word(at))
            }
            RegisterRule::ValExpression(how) => expression(how, Some(cfa)),
            RegisterRule::Constant(value) => Some(*value),
            _ => None,
        };
        has_caller |= *register == X86_64::RA && *how != RegisterRule::Undefined;
        new.set(*register, value);
    }
    if !has_caller {
        return Ok(Step::End);
    }
    let sp = new.get(X86_64::RSP);
    // Frames grow downwards; what leads back would lead there again and again.
    if sp.zip(old.get(X86_64::RSP)).is_none_or(|(new, old)| new <= old) {
        return Err(nowhere());
    }
    let caller = new.get(X86_64::RA).ok_or(Cut::Copied)?;
    new.set(X86_64::RA, None);
    *registers = new;
    // Nobody returns to 0: a thread that was started in a way of its own.
    if caller == 0 {
        Ok(Step::End)
    } else {
        Ok(Step::Caller { at: caller, interrupted: rule.interrupted })
    }
}

/// The value of an expression; `None` if it takes what is not known.
fn evaluate(
    entry: &Entry,
    expression: &UnwindExpression<usize>,
    initial: Option<u64>,
    record: &Record<'_>,
    registers: &Registers,
) -> Option<u64> {
    let frames = entry.section();
    let encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
    let mut evaluation = expression.get(&frames).ok()?.evaluation(encoding);
    evaluation.set_max_iterations(MOST_STEPS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut state = evaluation.evaluate().ok()?;
    loop {
        state = match state {
            EvaluationResult::Complete => return evaluation.value_result()?.to_u64(u64::MAX).ok(),
            EvaluationResult::RequiresMemory { address, size: 8, space: None, .. } => {
                evaluation.resume_with_memory(Value::Generic(record.word(address)?)).ok()?
            }
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = Value::Generic(registers.get(register)?);
                evaluation.resume_with_register(value).ok()?
            }
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests;
