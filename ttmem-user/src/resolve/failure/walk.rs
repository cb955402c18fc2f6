//! The instructions of a function that its control flow reaches, and how deep the stack is at each.
//!
//! Unlike the symbolic executor it follows no values, so loops and many paths cost nothing.
//!
//! Invariant: bounded in instructions; a depth on which two ways disagree, or that an instruction
//! makes unknown, is `None` from there on.

use std::collections::{BTreeMap, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

use crate::{
    image::{Image, SlotValue, is_cold_part},
    resolve::symbolic::{callee_name, never_returns},
    units::Svma,
};

/// More than any of the functions has.
const MAX_INSTRUCTIONS: usize = 20_000;

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The instruction.
    pub instruction: Instruction,
    /// Bytes from the stack pointer up to the function's return address, before it is executed.
    pub depth: Option<i64>,
}

/// The instructions of a function.
#[derive(Debug, Default)]
pub struct Walk {
    /// By address.
    pub steps: BTreeMap<u64, Step>,
    /// Where a jump leads to.
    targets: HashSet<u64>,
}

impl Walk {
    /// Follows a function from its first instruction.
    pub fn of(image: &Image<'_>, entry: Svma) -> Self {
        let mut walk = Self::default();
        let mut pending = vec![(entry.0, Some(0))];
        while let Some((at, depth)) = pending.pop() {
            let depth = match walk.steps.get(&at) {
                Some(step) if step.depth == depth || step.depth.is_none() => continue,
                Some(_) => None,
                None => depth,
            };
            if walk.steps.len() >= MAX_INSTRUCTIONS {
                break;
            }
            let Some(instruction) = decode(image, at) else { continue };
            walk.steps.insert(at, Step { instruction, depth });
            let after = depth.and_then(|depth| depth_after(&instruction, depth));
            let [next, target] = leads_to(image, &instruction);
            walk.targets.extend(target);
            pending.extend([next, target].into_iter().flatten().map(|to| (to, after)));
        }
        walk
    }

    /// The calls of functions whose names start with one of these, and the names.
    pub fn calls<'i>(
        &self,
        image: &'i Image<'_>,
        prefixes: &[&str],
    ) -> Vec<(Step, &'i str)> {
        let called = self.steps.values().filter_map(|step| {
            let name = callee(image, &step.instruction)?;
            prefixes.iter().any(|prefix| name.starts_with(prefix)).then_some((*step, name))
        });
        called.collect()
    }

    /// The last instruction before `step` that writes a register, if every way to `step` leads
    /// through it, with nothing in between that could write it unseen.
    pub fn last_write(&self, step: &Step, register: Register) -> Option<Instruction> {
        let mut at = step.instruction.ip();
        let mut factory = InstructionInfoFactory::new();
        while !self.targets.contains(&at) {
            let before = self.steps.range(..at).next_back()?.1.instruction;
            if before.next_ip() != at || before.flow_control() != FlowControl::Next {
                return None;
            }
            if writes(&mut factory, &before, register) {
                return Some(before);
            }
            at = before.ip();
        }
        None
    }
}

/// Whether an instruction writes a register, or a part of it.
pub fn writes(
    factory: &mut InstructionInfoFactory,
    instruction: &Instruction,
    register: Register,
) -> bool {
    factory.info(instruction).used_registers().iter().any(|used| {
        used.register().full_register() == register.full_register() && is_write(used.access())
    })
}

/// Whether an access writes, perhaps.
pub const fn is_write(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

/// The instruction at an address.
pub fn decode(image: &Image<'_>, at: u64) -> Option<Instruction> {
    let code = image.code_at(Svma(at))?;
    let instruction = Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// The name of the function that an instruction calls.
fn callee<'i>(image: &'i Image<'_>, instruction: &Instruction) -> Option<&'i str> {
    match instruction.flow_control() {
        FlowControl::Call => callee_name(image, Svma(instruction.near_branch_target())),
        FlowControl::IndirectCall if instruction.is_ip_rel_memory_operand() => {
            match image.slot(Svma(instruction.ip_rel_memory_address()))? {
                SlotValue::Symbol(name, 0) => Some(name),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The next instruction, and where it jumps to, within the function.
fn leads_to(image: &Image<'_>, instruction: &Instruction) -> [Option<u64>; 2] {
    let next = Some(instruction.next_ip());
    let target = || {
        let target = instruction.near_branch_target();
        let other = image.function_at(Svma(target)).is_some_and(|name| !is_cold_part(name));
        (!other).then_some(target)
    };
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::IndirectCall => [next, None],
        FlowControl::Call if never_returns(image, Svma(instruction.near_branch_target())) => {
            [None, None]
        }
        FlowControl::Call => [next, None],
        FlowControl::ConditionalBranch => [next, target()],
        FlowControl::UnconditionalBranch => [None, target()],
        _ => [None, None],
    }
}

/// Whether control flow leads from an instruction to one of some places.
pub fn leads_to_any(image: &Image<'_>, from: &Step, places: &HashSet<u64>) -> bool {
    let mut seen = HashSet::new();
    let mut pending: Vec<u64> =
        leads_to(image, &from.instruction).into_iter().flatten().collect();
    while let Some(at) = pending.pop() {
        if places.contains(&at) || seen.len() >= MAX_INSTRUCTIONS {
            return true;
        }
        if !seen.insert(at) {
            continue;
        }
        if let Some(instruction) = decode(image, at) {
            pending.extend(leads_to(image, &instruction).into_iter().flatten());
        }
    }
    false
}

/// The depth after an instruction; `None` if it sets the stack pointer to what is not known.
fn depth_after(instruction: &Instruction, depth: i64) -> Option<i64> {
    let of_pointer = instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RSP;
    let constant = || i64::try_from(instruction.immediate(1).cast_signed()).ok();
    match instruction.mnemonic() {
        Mnemonic::Call => Some(depth),
        Mnemonic::Sub if of_pointer && is_immediate(instruction) => depth.checked_add(constant()?),
        Mnemonic::Add if of_pointer && is_immediate(instruction) => depth.checked_sub(constant()?),
        Mnemonic::Push | Mnemonic::Pop if !of_pointer => {
            depth.checked_sub(i64::from(instruction.stack_pointer_increment()))
        }
        _ if writes(&mut InstructionInfoFactory::new(), instruction, Register::RSP) => None,
        _ => Some(depth),
    }
}

fn is_immediate(instruction: &Instruction) -> bool {
    matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::sample;

    fn walk(code: &str) -> Walk {
        let code = sample::hex(code);
        let file = sample::elf(&[("f", 0x1000, &code), ("callee", 0x2000, &[0xc3])]);
        Walk::of(&Image::parse(file).unwrap(), Svma(0x1000))
    }

    fn depth(walk: &Walk, at: u64) -> Option<i64> {
        walk.steps[&at].depth
    }

    #[test]
    fn the_depth_follows_the_stack_pointer() {
        // push rbx; sub rsp,0x120; call callee; add rsp,0x120; pop rbx; ret
        let walk = walk("53 4881ec20010000 e8f30f0000 4881c420010000 5b c3");
        assert_eq!(depth(&walk, 0x1000), Some(0));
        assert_eq!(depth(&walk, 0x1001), Some(8));
        assert_eq!(depth(&walk, 0x1008), Some(0x128));
        assert_eq!(depth(&walk, 0x100d), Some(0x128));
        assert_eq!(depth(&walk, 0x1015), Some(0));
    }

    #[test]
    fn a_depth_that_is_not_known_stays_so() {
        // and rsp,-64; push rbx; ret
        let aligned = walk("4883e4c0 53 c3");
        assert_eq!(depth(&aligned, 0x1005), None);
        // test edi,edi; je +1; push rbx; ret: two ways, two depths
        let forked = walk("85ff 7401 53 c3");
        assert_eq!(depth(&forked, 0x1005), None);
        assert_eq!(depth(&forked, 0x1004), Some(0));
    }

    #[test]
    fn a_register_is_known_only_if_nothing_comes_between() {
        // mov r9d,5; nop; ret
        let straight = walk("41b905000000 90 c3");
        let ret = straight.steps[&0x1007];
        assert_eq!(straight.last_write(&ret, Register::R9).unwrap().ip(), 0x1000);
        assert!(straight.last_write(&ret, Register::R8).is_none());
        // test edi,edi; je to the ret; mov r9d,5; ret
        let jumped = walk("85ff 7406 41b905000000 c3");
        assert!(jumped.last_write(&jumped.steps[&0x100a], Register::R9).is_none());
        // mov r9d,5; call callee; ret
        let called = walk("41b905000000 e8f50f0000 c3");
        assert!(called.last_write(&called.steps[&0x100b], Register::R9).is_none());
    }

    proptest! {
        #[test]
        fn ends_on_any_bytes(code in prop::collection::vec(any::<u8>(), 1..300)) {
            let image = Image::parse(sample::elf(&[("", 0x1000, &code)])).unwrap();
            let walk = Walk::of(&image, Svma(0x1000));
            prop_assert!(walk.steps.len() <= code.len());
        }
    }
}
