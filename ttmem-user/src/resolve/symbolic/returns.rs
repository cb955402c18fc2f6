//! Whether a function can return at all.
//!
//! What follows a call to a function that always throws is not part of the path: often it is not
//! even part of the caller. Only names tell that of other libraries' functions; those of the image
//! itself are looked at.
//!
//! Invariant: bounded in instructions and depth; whatever is not understood may return.

use std::collections::HashSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use crate::{
    image::{Image, SlotValue, is_cold_part},
    units::Svma,
};

/// Functions that end a path are short; looking at more is not worth it.
const MAX_INSTRUCTIONS: u32 = 200;
const MAX_DEPTH: u32 = 2;

/// Names of functions that do not return.
const NO_RETURN: [&str; 9] = [
    "tt_throw",
    "tt_assert",
    "__cxa_throw",
    "__cxa_rethrow",
    "_Unwind_Resume",
    "__throw_",
    "_ZSt9terminatev",
    "abort",
    "__assert_fail",
];

/// Whether a function's name says that it does not return.
pub fn is_named_so(name: &str) -> bool {
    NO_RETURN.iter().any(|part| name.contains(part))
}

/// The name of the function at an address, seen through a stub.
pub fn name_of<'a>(image: &'a Image<'_>, address: Svma) -> Option<&'a str> {
    if let Some(name) = image.function_at(address) {
        return Some(name);
    }
    match image.stub_target(address)? {
        SlotValue::Symbol(name, 0) => Some(name),
        SlotValue::Symbol(..) => None,
        SlotValue::Address(function) => image.function_at(function),
    }
}

/// Whether a call to an address never comes back: by the callee's name, or because every path of
/// it ends in a call that does not.
pub fn never_returns(image: &Image<'_>, address: Svma) -> bool {
    let mut left = MAX_INSTRUCTIONS;
    callee_ends(image, address, &mut left, MAX_DEPTH)
}

fn callee_ends(image: &Image<'_>, address: Svma, left: &mut u32, depth: u32) -> bool {
    let Some(name) = name_of(image, address) else { return false };
    if is_named_so(name) {
        return true;
    }
    let callee = image.symbol(name).filter(|callee| depth > 0 && callee.is_function);
    callee.is_some_and(|callee| Walk { image, left, depth }.ends(callee.address))
}

/// Where an instruction leads.
enum Step {
    /// To these places.
    To([Option<u64>; 2]),
    /// Nowhere: the process ends, or an exception takes over.
    End,
    /// Out of the function, or to a place that is not known.
    Leaves,
}

struct Walk<'a, 'i> {
    image: &'a Image<'i>,
    left: &'a mut u32,
    depth: u32,
}

impl Walk<'_, '_> {
    fn ends(&mut self, entry: Svma) -> bool {
        let mut pending = vec![entry.0];
        let mut seen = HashSet::new();
        let mut ends = false;
        while let Some(at) = pending.pop() {
            if !seen.insert(at) {
                continue;
            }
            if *self.left == 0 {
                return false;
            }
            *self.left -= 1;
            match self.step(at) {
                Step::To(places) => pending.extend(places.into_iter().flatten()),
                Step::End => ends = true,
                Step::Leaves => return false,
            }
        }
        // Without an end it would be an endless loop, which is no way to leave either.
        ends
    }

    fn step(&mut self, at: u64) -> Step {
        let Some(code) = self.image.code_at(Svma(at)) else { return Step::Leaves };
        let instruction = Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode();
        if instruction.is_invalid() {
            return Step::Leaves;
        }
        let target = instruction.near_branch_target();
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch => self.jump(target, None),
            FlowControl::ConditionalBranch => self.jump(target, Some(instruction.next_ip())),
            FlowControl::Call if self.ends_in(target) => Step::End,
            FlowControl::IndirectCall | FlowControl::IndirectBranch
                if self.slot_ends(&instruction) =>
            {
                Step::End
            }
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                self.next(&instruction)
            }
            FlowControl::Exception | FlowControl::Interrupt => Step::End,
            FlowControl::Return | FlowControl::IndirectBranch | FlowControl::XbeginXabortXend => {
                Step::Leaves
            }
        }
    }

    fn next(&self, instruction: &Instruction) -> Step {
        let next = instruction.next_ip();
        if self.image.function_at(Svma(next)).is_some() {
            return Step::Leaves;
        }
        Step::To([Some(next), None])
    }

    fn jump(&mut self, target: u64, next: Option<u64>) -> Step {
        match name_of(self.image, Svma(target)) {
            Some(name) if !is_cold_part(name) => match (self.ends_in(target), next) {
                (true, None) => Step::End,
                (true, Some(_)) => Step::To([next, None]),
                (false, _) => Step::Leaves,
            },
            _ => Step::To([Some(target), next]),
        }
    }

    fn ends_in(&mut self, target: u64) -> bool {
        callee_ends(self.image, Svma(target), self.left, self.depth - 1)
    }

    fn slot_ends(&self, instruction: &Instruction) -> bool {
        instruction.is_ip_rel_memory_operand()
            && matches!(
                self.image.slot(Svma(instruction.ip_rel_memory_address())),
                Some(SlotValue::Symbol(name, 0)) if is_named_so(name)
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::sample;

    fn ends(code: &str) -> bool {
        let code = sample::hex(code);
        let file = sample::elf(&[
            ("function", 0x1000, &code),
            ("returns", 0x2000, &[0xc3]),
            ("__cxa_throw", 0x3000, &[0xc3]),
            // call 0x3000; what follows is a landing pad that nothing leads to
            ("throws", 0x4000, &sample::hex("e8fbefffff c3")),
        ]);
        never_returns(&Image::parse(file).unwrap(), Svma(0x1000))
    }

    #[test]
    fn follows_callees() {
        // call 0x3000; call 0x4000; jmp 0x4000
        assert!(ends("e8fb1f0000 c3"));
        assert!(ends("e8fb2f0000 c3"));
        assert!(ends("e9fb2f0000"));
        // call 0x2000; ret, and the same with a throw behind it
        assert!(!ends("e8fb0f0000 c3"));
        assert!(ends("e8fb0f0000 e8f61f0000"));
        // test edi,edi; je over the throw to a return
        assert!(!ends("85ff 7405 e8f71f0000 c3"));
    }

    #[test]
    fn what_is_not_understood_may_return() {
        assert!(!ends("c3"));
        // jmp rax; jmp to itself; nothing that is an instruction; runs off the end
        assert!(!ends("ffe0"));
        assert!(!ends("ebfe"));
        assert!(!ends("06"));
        assert!(!ends("9090"));
    }
}
