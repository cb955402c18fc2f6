//! Where in a function's first few instructions a probe costs the target least.
//!
//! The kernel emulates few instructions; on any other a probe single-steps, which costs the target
//! many times as much. Many functions begin with one of those (`endbr64` in all of a library that was
//! built for it) and come to a `push` right after. A probe sees the same there if
//!
//! - every call comes by: nothing before it jumps, and nothing in the function jumps to between the
//!   entry and it, which would also make it count twice;
//! - all that it reads is as it was at the entry: nothing before it has written to a register that
//!   holds an argument, to the stack pointer, or to memory.
//!
//! Else the probe stays at the entry.

use std::ops::Range;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

use super::{field::Refusal, plan::InstructionCost};
use crate::{
    image::{Image, Symbol},
    units::Svma,
};

/// Instructions that are looked at behind the first.
const FURTHER: usize = 8;

/// What a probe reads: the registers of the first six arguments, and the stack pointer.
const READ_BY_PROBES: [Register; 7] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
    Register::RSP,
];

/// Where a probe on a function goes, and what it costs there.
pub fn best_place(image: &Image<'_>, function: Symbol) -> Result<(Svma, InstructionCost), Refusal> {
    let entry = function.address;
    let code = image.code_at(entry).ok_or_else(|| format!("{entry} is not code"))?;
    let mut decoder = Decoder::with_ip(64, code, entry.0, DecoderOptions::NONE);
    let first = decoder.decode();
    if first.is_invalid() {
        return Err(format!("there is no instruction at {entry}"));
    }
    if is_emulated(&first, code) {
        return Ok((entry, InstructionCost::Emulated));
    }
    let further = further_on(&mut decoder, code, first, entry);
    let further =
        further.filter(|place| nothing_jumps_into(code, function, entry.0 + 1..*place + 1));
    Ok(match further {
        Some(place) => (Svma(place), InstructionCost::Emulated),
        None => (entry, InstructionCost::SingleStepped),
    })
}

/// The first instruction behind `first` that is emulated, where all is still as at the entry.
fn further_on(
    decoder: &mut Decoder<'_>,
    code: &[u8],
    first: Instruction,
    entry: Svma,
) -> Option<u64> {
    let mut before = first;
    for _ in 0..FURTHER {
        if !leaves_all_as_it_was(&before) {
            return None;
        }
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        let from_here = code.get(usize::try_from(instruction.ip() - entry.0).ok()?..)?;
        if is_emulated(&instruction, from_here) {
            return Some(instruction.ip());
        }
        before = instruction;
    }
    None
}

/// Whether what a probe would read is the same behind an instruction, and the next one follows.
fn leaves_all_as_it_was(instruction: &Instruction) -> bool {
    if instruction.flow_control() != FlowControl::Next {
        return false;
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let is_write = |access: OpAccess| {
        !matches!(
            access,
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
        )
    };
    let touches = |register: Register| READ_BY_PROBES.contains(&register.full_register());
    !info.used_registers().iter().any(|used| is_write(used.access()) && touches(used.register()))
        && !info.used_memory().iter().any(|used| is_write(used.access()))
}

/// Whether no jump of the function leads to one of these addresses. `false` if its end is not known.
fn nothing_jumps_into(code: &[u8], function: Symbol, addresses: Range<u64>) -> bool {
    let Some(code) = usize::try_from(function.size).ok().and_then(|size| code.get(..size)) else {
        return false;
    };
    let decoder = Decoder::with_ip(64, code, function.address.0, DecoderOptions::NONE);
    function.size > 0
        && decoder.into_iter().all(|instruction| {
            let is_near = matches!(
                instruction.op0_kind(),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
            );
            !is_near || !addresses.contains(&instruction.near_branch_target())
        })
}

/// Whether the kernel emulates an instruction; `code` begins with it.
fn is_emulated(instruction: &Instruction, code: &[u8]) -> bool {
    // uprobes emulate only this much (arch/x86/kernel/uprobes.c: branch_setup_xol_ops and
    // push_setup_xol_ops); endbr64 is not among it.
    match instruction.mnemonic() {
        Mnemonic::Push => {
            instruction.op0_kind() == OpKind::Register && instruction.code() == Code::Push_r64
        }
        Mnemonic::Nop => code.first() != Some(&0x2e),
        Mnemonic::Jmp => instruction.is_jmp_short_or_near(),
        Mnemonic::Call => instruction.is_call_near(),
        _ => instruction.is_jcc_short_or_near(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::sample;

    /// Where a probe on this code goes, from its start, and whether it is emulated there.
    fn place(code: &str) -> (u64, bool) {
        let code = sample::hex(code);
        let image = Image::parse(sample::elf(&[("f", 0x1000, &code)])).unwrap();
        let (address, cost) = best_place(&image, image.symbol("f").unwrap()).unwrap();
        (address.0 - 0x1000, cost == InstructionCost::Emulated)
    }

    #[test]
    fn an_emulated_entry_stays() {
        assert_eq!(place("55c3"), (0, true), "push rbp");
    }

    #[test]
    fn a_push_behind_harmless_instructions_is_better() {
        assert_eq!(place("f30f1efa 55c3"), (4, true), "endbr64; push rbp");
        assert_eq!(place("4889f8 4157c3"), (3, true), "mov rax,rdi; push r15");
        assert_eq!(place("f30f1efa 488b07 53c3"), (7, true), "endbr64; mov rax,[rdi]; push rbx");
        assert_eq!(place("4885ff 7401 c3c3"), (3, true), "test rdi,rdi; je");
    }

    #[test]
    fn what_a_probe_reads_must_not_have_changed() {
        assert_eq!(place("4889c7 55c3"), (0, false), "mov rdi,rax");
        assert_eq!(place("31f6 55c3"), (0, false), "xor esi,esi: the lower half is the register");
        assert_eq!(place("4883ec08 55c3"), (0, false), "sub rsp,8");
        assert_eq!(place("488907 55c3"), (0, false), "mov [rdi],rax");
        assert_eq!(place("ff07 55c3"), (0, false), "inc dword [rdi]");
        assert_eq!(
            place("f0480fb10f 55c3"),
            (0, false),
            "lock cmpxchg [rdi],rcx: a write, perhaps"
        );
    }

    #[test]
    fn every_call_must_come_by_once() {
        assert_eq!(place("c3 55"), (0, false), "ret");
        assert_eq!(place("ffe0 55"), (0, false), "an indirect jump");
        assert_eq!(place("4889f8 55 5d ebfc"), (0, false), "a loop back to the push");
        assert_eq!(place("4889f8 55 5d ebf9"), (3, true), "a loop to the entry comes by as before");
        assert_eq!(
            place("4889f8 4889f8 4889f8 4889f8 4889f8 4889f8 4889f8 4889f8 4889f8 55c3"),
            (0, false),
            "too far"
        );
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let code = [0x06];
        let image = Image::parse(sample::elf(&[("f", 0x1000, &code)])).unwrap();
        let refusal = best_place(&image, image.symbol("f").unwrap()).unwrap_err();
        assert!(refusal.starts_with("there is no instruction"), "{refusal}");
    }
}
