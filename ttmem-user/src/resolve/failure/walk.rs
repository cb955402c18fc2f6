//! The instructions of a function that its control flow reaches, and how deep the stack is at each.
//!
//! Unlike the symbolic executor it follows no values, so loops and many paths cost nothing.
//!
//! Invariant: bounded in instructions; a depth on which two ways disagree, or that an instruction
//! makes unknown, is `None` from there on. A jump to a place that is not known, which the table of
//! a `switch` is not, makes the whole walk incomplete.

use std::collections::{BTreeMap, HashMap, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

use crate::{
    image::{Image, SlotValue, Symbol, is_cold_part},
    resolve::symbolic::{callee_name, never_returns},
    units::Svma,
};

/// More than any of the functions has.
const MAX_INSTRUCTIONS: usize = 20_000;
/// Instructions between loading the address of a `switch`'s table and its jump.
const MAX_BEFORE_SWITCH: usize = 40;
const MAX_CASES: u64 = 64;

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
    /// Where the indirect jumps lead to, by their address.
    switches: HashMap<u64, Vec<u64>>,
    /// Whether every way through the function was followed.
    pub complete: bool,
}

impl Walk {
    /// Follows a function from its first instruction.
    pub fn of(image: &Image<'_>, function: Symbol) -> Self {
        let mut walk = Self { complete: true, ..Self::default() };
        let mut pending = vec![(function.address.0, Some(0))];
        while let Some((at, depth)) = pending.pop() {
            let depth = match walk.steps.get(&at) {
                Some(step) if step.depth == depth || step.depth.is_none() => continue,
                Some(_) => None,
                None => depth,
            };
            let decoded = decode(image, at).filter(|_| walk.steps.len() < MAX_INSTRUCTIONS);
            let Some(instruction) = decoded else {
                walk.complete = false;
                continue;
            };
            walk.steps.insert(at, Step { instruction, depth });
            let after = depth.and_then(|depth| depth_after(&instruction, depth));
            let [mut next, target] = leads_to(image, &instruction);
            if next.is_some_and(|next| image.function_at(Svma(next)).is_some()) {
                // What came before does not return, or the function goes on elsewhere.
                walk.complete = false;
                next = None;
            }
            walk.targets.extend(target);
            pending.extend([next, target].into_iter().flatten().map(|to| (to, after)));
            if is_switch(&instruction) {
                let cases = walk.cases(image, function, &instruction);
                walk.complete &= !cases.is_empty();
                walk.targets.extend(&cases);
                pending.extend(cases.iter().map(|to| (*to, after)));
                walk.switches.insert(at, cases);
            }
        }
        walk
    }

    /// Where the jump of a `switch` may lead to: its table holds distances from itself. Empty if it
    /// is not understood.
    fn cases(&self, image: &Image<'_>, function: Symbol, jump: &Instruction) -> Vec<u64> {
        let mut loads = None;
        let mut at = jump.ip();
        for _ in 0..MAX_BEFORE_SWITCH {
            let Some((_, before)) = self.steps.range(..at).next_back() else { break };
            let before = &before.instruction;
            if before.next_ip() != at {
                break;
            }
            match (before.mnemonic(), loads) {
                (Mnemonic::Movsxd, None) if before.memory_index_scale() == 4 => {
                    loads = Some(before.memory_base());
                }
                (Mnemonic::Lea, Some(base))
                    if before.op0_register() == base && before.is_ip_rel_memory_operand() =>
                {
                    return cases_in(image, function, before.ip_rel_memory_address());
                }
                _ => {}
            }
            at = before.ip();
        }
        Vec::new()
    }

    /// Whether control flow leads from an instruction to one of some places.
    pub fn leads_to_any(&self, image: &Image<'_>, from: &Step, places: &HashSet<u64>) -> bool {
        let mut seen = HashSet::new();
        let next = |instruction: &Instruction| {
            let switch = self.switches.get(&instruction.ip()).into_iter().flatten().copied();
            leads_to(image, instruction).into_iter().flatten().chain(switch).collect::<Vec<_>>()
        };
        let mut pending = next(&from.instruction);
        while let Some(at) = pending.pop() {
            if places.contains(&at) || seen.len() >= MAX_INSTRUCTIONS {
                return true;
            }
            if !seen.insert(at) {
                continue;
            }
            match decode(image, at) {
                // A switch that only exceptions lead to.
                Some(instruction)
                    if is_switch(&instruction) && !self.switches.contains_key(&at) =>
                {
                    return true;
                }
                Some(instruction) => pending.extend(next(&instruction)),
                None => {}
            }
        }
        false
    }

    /// The calls of functions whose names start with one of these, and the names.
    pub fn calls<'i>(&self, image: &'i Image<'_>, prefixes: &[&str]) -> Vec<(Step, &'i str)> {
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
        FlowControl::Call if never_returns(image, Svma(instruction.near_branch_target())) => {
            [None, None]
        }
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => [next, None],
        FlowControl::ConditionalBranch => [next, target()],
        FlowControl::UnconditionalBranch => [None, target()],
        _ => [None, None],
    }
}

/// Whether an instruction jumps to a place in a register.
fn is_switch(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::IndirectBranch
        && !instruction.is_ip_rel_memory_operand()
}

/// The places of a table of distances, as far as they lie in the function. What follows the table
/// may look like more of it: ways that are none make nothing known that is not.
fn cases_in(image: &Image<'_>, function: Symbol, table: u64) -> Vec<u64> {
    let extent = function.address.0..function.address.0.saturating_add(function.size);
    let distances = (0..MAX_CASES).map_while(|case| {
        let distance = image.constant_at(Svma(table.checked_add(case * 4)?), 4)?;
        let distance = i64::from(u32::try_from(distance).ok()?.cast_signed());
        let place = table.wrapping_add_signed(distance);
        extent.contains(&place).then_some(place)
    });
    distances.collect()
}

/// The depth after an instruction; `None` if it sets the stack pointer to what is not known.
fn depth_after(instruction: &Instruction, depth: i64) -> Option<i64> {
    let of_pointer =
        instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP;
    let constant = || instruction.immediate(1).cast_signed();
    match instruction.mnemonic() {
        Mnemonic::Call => Some(depth),
        Mnemonic::Sub if of_pointer && is_immediate(instruction) => depth.checked_add(constant()),
        Mnemonic::Add if of_pointer && is_immediate(instruction) => depth.checked_sub(constant()),
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
        let image = Image::parse(file).unwrap();
        Walk::of(&image, image.symbol("f").unwrap())
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

    #[test]
    fn the_cases_of_a_switch_are_followed() {
        // lea rcx,[0x3000]; movsxd rax,[rcx+rax*4]; add rax,rcx; jmp rax; push rbx; ret
        let code = sample::hex("488d0df91f0000 48630481 4801c8 ffe0 53 c3");
        let table = sample::hex("10e0ffff 11e0ffff 00000000");
        let file = sample::elf(&[("f", 0x1000, &code), ("", 0x3000, &table)]);
        let image = Image::parse(file).unwrap();
        let walk = Walk::of(&image, image.symbol("f").unwrap());
        assert!(walk.complete);
        assert!(walk.steps.contains_key(&0x1010));
        // The other way to the return is one push deeper.
        assert_eq!(depth(&walk, 0x1011), None);
        let entry = walk.steps[&0x1000];
        assert!(walk.leads_to_any(&image, &entry, &HashSet::from([0x1010])));
        assert!(!walk.leads_to_any(&image, &walk.steps[&0x1010], &HashSet::from([0x1010])));
    }

    #[test]
    fn a_jump_to_an_unknown_place_is_not_followed() {
        assert!(!walk("ffe0").complete);
        assert!(walk("c3").complete);
    }

    proptest! {
        #[test]
        fn ends_on_any_bytes(code in prop::collection::vec(any::<u8>(), 1..300)) {
            let image = Image::parse(sample::elf(&[("f", 0x1000, &code)])).unwrap();
            let walk = Walk::of(&image, image.symbol("f").unwrap());
            prop_assert!(walk.steps.len() <= code.len());
        }
    }
}
