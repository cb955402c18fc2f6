//! What single instructions do to a [`State`].
//!
//! Invariant: an instruction that is not modelled leaves nothing that it writes as it was.

use std::rc::Rc;

use iced_x86::{
    ConditionCode, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::{
    expr::{self, Condition, Expr, Op, Relation, Value, binary, constant, sign_extend, truncate},
    flags::Flags,
    state::State,
};

/// Number and width of a general register; `None` for others and for ah, bh, ch, dh.
fn general(register: Register) -> Option<(usize, u8)> {
    let high = matches!(register, Register::AH | Register::BH | Register::CH | Register::DH);
    if !register.is_gpr() || high {
        return None;
    }
    Some((register.full_register().number(), u8::try_from(register.size()).ok()?))
}

/// The address of the memory operand.
fn address(state: &mut State<'_>, instruction: &Instruction) -> Value {
    if instruction.segment_prefix() != Register::None {
        return state.unknown();
    }
    if instruction.is_ip_rel_memory_operand() {
        return constant(instruction.ip_rel_memory_address());
    }
    let mut sum = constant(0);
    if instruction.memory_base() != Register::None {
        sum = register(state, instruction.memory_base());
    }
    if instruction.memory_index() != Register::None {
        let index = register(state, instruction.memory_index());
        let scale = constant(instruction.memory_index_scale().into());
        sum = binary(Op::Add, &sum, &binary(Op::Mul, &index, &scale));
    }
    binary(Op::Add, &sum, &constant(instruction.memory_displacement64()))
}

fn register(state: &mut State<'_>, register: Register) -> Value {
    match general(register) {
        Some((number, width)) => state.register(number, width),
        None => state.unknown(),
    }
}

/// Width of an operand in bytes, if it is one that is computed with.
fn width(instruction: &Instruction, operand: u32) -> Option<u8> {
    let bytes = match instruction.op_kind(operand) {
        OpKind::Register => {
            return general(instruction.op_register(operand)).map(|register| register.1);
        }
        OpKind::Memory => instruction.memory_size().size(),
        OpKind::Immediate8 => 1,
        OpKind::Immediate16 | OpKind::Immediate8to16 => 2,
        OpKind::Immediate32 | OpKind::Immediate8to32 => 4,
        OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => 8,
        _ => return None,
    };
    u8::try_from(bytes).ok().filter(|bytes| matches!(bytes, 1 | 2 | 4 | 8))
}

/// An operand's value.
pub fn operand(state: &mut State<'_>, instruction: &Instruction, number: u32) -> Value {
    match (instruction.op_kind(number), width(instruction, number)) {
        (OpKind::Register, _) => register(state, instruction.op_register(number)),
        (OpKind::Memory, Some(width)) => {
            let address = address(state, instruction);
            state.read(&address, width)
        }
        (_, Some(width)) => constant(instruction.immediate(number) & expr::mask(width)),
        _ => state.unknown(),
    }
}

fn set_operand(state: &mut State<'_>, instruction: &Instruction, number: u32, value: &Value) {
    match instruction.op_kind(number) {
        OpKind::Register => {
            if let Some((register, width)) = general(instruction.op_register(number)) {
                state.set_register(register, width, value);
            } else {
                forget_written(state, instruction);
            }
        }
        OpKind::Memory => {
            let address = address(state, instruction);
            let width = width(instruction, number).unwrap_or(8);
            state.write(&address, width, value);
        }
        _ => {}
    }
}

/// The condition that a jump, move or set instruction depends on.
pub fn condition(state: &mut State<'_>, instruction: &Instruction) -> Condition {
    let code = instruction.condition_code();
    let known = state.flags.condition(code).filter(|_| code != ConditionCode::None);
    known.unwrap_or_else(|| {
        let unknown = state.unknown();
        Condition::new(Relation::Equal, &unknown, &constant(0), 8)
    })
}

/// Executes an instruction that does not branch.
pub fn execute(state: &mut State<'_>, instruction: &Instruction) {
    let done = match instruction.mnemonic() {
        Mnemonic::Nop | Mnemonic::Endbr64 => Some(()),
        Mnemonic::Lea => {
            let address = address(state, instruction);
            set_operand(state, instruction, 0, &address);
            Some(())
        }
        Mnemonic::Push => {
            let value = operand(state, instruction, 0);
            state.push(&value);
            Some(())
        }
        Mnemonic::Pop => {
            let value = state.pop();
            set_operand(state, instruction, 0, &value);
            Some(())
        }
        Mnemonic::Leave => {
            let frame = state.register(5, 8);
            state.set_register(super::state::RSP, 8, &frame);
            let value = state.pop();
            state.set_register(5, 8, &value);
            Some(())
        }
        Mnemonic::Xadd => exchange_add(state, instruction),
        _ => moves(state, instruction)
            .or_else(|| compares(state, instruction))
            .or_else(|| computes(state, instruction))
            .or_else(|| multiplies(state, instruction)),
    };
    if done.is_none() {
        forget_written(state, instruction);
    }
}

/// Makes everything that an instruction writes opaque.
fn forget_written(state: &mut State<'_>, instruction: &Instruction) {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let writes = |access| {
        matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    };
    for used in info.used_memory() {
        if writes(used.access()) {
            // A string is written through a register, and how much of it is not looked at.
            let address = if instruction.is_string_instruction() {
                state.forget_whole_stack();
                register(state, used.base())
            } else {
                address(state, instruction)
            };
            let value = state.unknown();
            let width = u8::try_from(used.memory_size().size()).unwrap_or(u8::MAX).max(1);
            state.write(&address, width, &value);
        }
    }
    for used in info.used_registers() {
        if writes(used.access()) && used.register().is_gpr() {
            let value = state.unknown();
            state.set_register(used.register().full_register().number(), 8, &value);
        }
    }
    if instruction.rflags_modified() != 0 {
        state.flags = Flags::Unknown;
    }
}

/// Whether it is a conditional move (two operands) or set (one).
fn is_conditional(instruction: &Instruction, operands: u32) -> bool {
    instruction.condition_code() != ConditionCode::None && instruction.op_count() == operands
}

fn moves(state: &mut State<'_>, instruction: &Instruction) -> Option<()> {
    let to = width(instruction, 0)?;
    let value = match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx => {
            width(instruction, 1)?;
            operand(state, instruction, 1)
        }
        Mnemonic::Movsx | Mnemonic::Movsxd => {
            let from = width(instruction, 1)?;
            sign_extend(from, &operand(state, instruction, 1))
        }
        _ if is_conditional(instruction, 2) => {
            let condition = condition(state, instruction);
            let old = operand(state, instruction, 0);
            let new = operand(state, instruction, 1);
            match state.decide(&condition) {
                Some(true) => new,
                Some(false) => old,
                None => Rc::new(Expr::Select(condition, new, old)),
            }
        }
        _ if is_conditional(instruction, 1) => {
            let condition = condition(state, instruction);
            match state.decide(&condition) {
                Some(known) => constant(known.into()),
                None => Rc::new(Expr::Truth(condition)),
            }
        }
        _ => return None,
    };
    set_operand(state, instruction, 0, &truncate(to, &value));
    Some(())
}

/// Two operands of the same width, the second sign-extended if it is a shorter immediate.
fn pair(state: &mut State<'_>, instruction: &Instruction) -> Option<(Value, Value, u8)> {
    let bytes = width(instruction, 0)?;
    width(instruction, 1)?;
    let left = operand(state, instruction, 0);
    let right = operand(state, instruction, 1);
    Some((left, truncate(bytes, &right), bytes))
}

fn compares(state: &mut State<'_>, instruction: &Instruction) -> Option<()> {
    match instruction.mnemonic() {
        Mnemonic::Cmp => {
            let (left, right, width) = pair(state, instruction)?;
            state.flags = Flags::Compare(left, right, width);
        }
        // In memory, the bit may lie outside the operand.
        Mnemonic::Bt if instruction.op_kind(0) == OpKind::Register => {
            let bytes = width(instruction, 0)?;
            let left = operand(state, instruction, 0);
            let number = operand(state, instruction, 1);
            let number = binary(Op::And, &number, &constant(u64::from(bytes) * 8 - 1));
            let bit = binary(Op::And, &binary(Op::Shr, &left, &number), &constant(1));
            state.flags = Flags::Bit(bit);
        }
        Mnemonic::Test => {
            let (left, right, width) = pair(state, instruction)?;
            let both = if left == right { left } else { binary(Op::And, &left, &right) };
            state.flags = Flags::Logic(both, width);
        }
        _ => return None,
    }
    Some(())
}

fn computes(state: &mut State<'_>, instruction: &Instruction) -> Option<()> {
    let op = match instruction.mnemonic() {
        Mnemonic::Add | Mnemonic::Inc => Op::Add,
        Mnemonic::Sub | Mnemonic::Dec => Op::Sub,
        Mnemonic::And => Op::And,
        Mnemonic::Or => Op::Or,
        Mnemonic::Xor => Op::Xor,
        Mnemonic::Shl => Op::Shl,
        Mnemonic::Shr => Op::Shr,
        Mnemonic::Sar => Op::Sar,
        _ => return None,
    };
    let bytes = width(instruction, 0)?;
    let left = operand(state, instruction, 0);
    let mut right = match instruction.mnemonic() {
        Mnemonic::Inc | Mnemonic::Dec => constant(1),
        _ => {
            width(instruction, 1)?;
            truncate(bytes, &operand(state, instruction, 1))
        }
    };
    if matches!(op, Op::Shl | Op::Shr | Op::Sar) {
        // The processor masks the count; an unknown one may be 0, which leaves the flags alone.
        let most = if bytes == 8 { 63 } else { 31 };
        right = binary(Op::And, &right, &constant(most));
    }
    let signed_left = if op == Op::Sar { sign_extend(bytes, &left) } else { Rc::clone(&left) };
    let value = truncate(bytes, &binary(op, &signed_left, &right));
    state.flags = match (op, instruction.mnemonic(), &*right) {
        (Op::Sub, Mnemonic::Sub, _) => Flags::Compare(left, right, bytes),
        (Op::And | Op::Or | Op::Xor, ..) => Flags::Logic(Rc::clone(&value), bytes),
        (Op::Shl | Op::Shr | Op::Sar, _, Expr::Const(1..)) | (Op::Add | Op::Sub, ..) => {
            Flags::Result(Rc::clone(&value), bytes)
        }
        _ => Flags::Unknown,
    };
    set_operand(state, instruction, 0, &value);
    Some(())
}

fn multiplies(state: &mut State<'_>, instruction: &Instruction) -> Option<()> {
    let bytes = width(instruction, 0)?;
    match (instruction.mnemonic(), instruction.op_count()) {
        (Mnemonic::Imul, 2) => {
            let (left, right, _) = pair(state, instruction)?;
            set_operand(state, instruction, 0, &truncate(bytes, &binary(Op::Mul, &left, &right)));
        }
        (Mnemonic::Imul, 3) => {
            let left = operand(state, instruction, 1);
            let right = operand(state, instruction, 2);
            set_operand(state, instruction, 0, &truncate(bytes, &binary(Op::Mul, &left, &right)));
        }
        (Mnemonic::Div, _) if bytes >= 4 && *state.register(2, bytes) == Expr::Const(0) => {
            let left = state.register(0, bytes);
            let right = operand(state, instruction, 0);
            let quotient = binary(Op::Div, &left, &right);
            let rest = binary(Op::Rem, &left, &right);
            state.set_register(0, bytes, &quotient);
            state.set_register(2, bytes, &rest);
        }
        _ => return None,
    }
    state.flags = Flags::Unknown;
    Some(())
}

fn exchange_add(state: &mut State<'_>, instruction: &Instruction) -> Option<()> {
    let bytes = width(instruction, 0)?;
    let old = operand(state, instruction, 0);
    let added = operand(state, instruction, 1);
    set_operand(state, instruction, 0, &truncate(bytes, &binary(Op::Add, &old, &added)));
    set_operand(state, instruction, 1, &old);
    state.flags = Flags::Unknown;
    Some(())
}
