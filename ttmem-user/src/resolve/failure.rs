//! Where allocations fail, what the exception's message is made of, and which buffer it is about.
//!
//! `BankManager::allocate_buffer` calls a throwing function with the text of the message in
//! registers, and references to its numbers on the stack. The text says which number is which
//! ([`message`]). The buffer is on the stack too: `AllocatorImpl::allocate_buffer(Buffer*)`, which
//! called it, has put its argument into a place that nothing else writes to.
//!
//! Invariant: a call whose text is not proven is left out; a buffer whose place is not proven too.

mod message;
mod walk;

use std::collections::HashSet;

use iced_x86::{Code, Instruction, InstructionInfoFactory, OpKind, Register};
use ttmem_common::{
    failure::{FAILURE_FIELDS, FailureCaller, FailureLayout, FailureSite},
    layout::ABSENT,
    probe::ProbeId,
};

use self::walk::{Step, Walk, is_write, writes};
use super::{
    field::{Facts, Refusal},
    plan::AttachPoint,
    probes,
};
use crate::{
    image::{Image, Symbol},
    units::Svma,
};

const BANK_MANAGER: &str = "_ZN2tt8tt_metal11BankManager15allocate_buffer";
/// No message is longer.
const MAX_TEXT: usize = 4096;
/// Bytes of a return address, and of a pointer.
const WORD: i64 = 8;

/// What was decoded.
pub struct Failures {
    /// Where the probes go, one for each throwing function.
    pub points: Vec<AttachPoint>,
    /// For the eBPF side.
    pub layout: FailureLayout,
    /// What could not be decoded, and why.
    pub refused: Vec<(String, Refusal)>,
}

/// Decodes where allocations fail.
pub fn resolve(image: &Image<'_>, facts: &mut Facts) -> Failures {
    let mut failures =
        Failures { points: Vec::new(), layout: FailureLayout::ABSENT, refused: Vec::new() };
    let mut refuse = |what: &str, reason| failures.refused.push((what.to_owned(), reason));
    let functions = image.symbols_with_prefix(BANK_MANAGER);
    let (mut sites, mut unread) = (Vec::new(), Vec::new());
    for (name, function) in &functions {
        let walk = Walk::of(image, *function);
        if !walk.complete {
            refuse(ProbeId::Failure.name(), format!("not every way through {name} was understood"));
            continue;
        }
        for (step, throw) in walk.calls(image, &message::THROW) {
            let Some(text) = text_of(image, &walk, &step) else {
                unread.push((step.instruction.ip(), throw));
                continue;
            };
            match site(text, &step, throw) {
                Ok(Some((site, said))) => {
                    facts.note(&format!("failed allocation {}", sites.len() + 1), &said, throw);
                    sites.push((site, throw));
                }
                Ok(None) => {}
                Err(reason) => refuse(ProbeId::Failure.name(), reason),
            }
        }
    }
    // It throws what a failure throws, and may be one: to leave it out would be to miss them.
    for (at, _) in unread.iter().filter(|(_, throw)| sites.iter().any(|(_, known)| known == throw))
    {
        refuse(ProbeId::Failure.name(), format!("what is thrown at {at:#x} was not understood"));
    }
    for (_, throw) in &sites {
        if failures.points.iter().any(|point| point.symbol == *throw) {
            continue;
        }
        match probes::point_at(image, ProbeId::Failure, (*throw).to_owned()) {
            Ok(point) => failures.points.push(point),
            Err(reason) => refuse(ProbeId::Failure.name(), reason),
        }
    }
    if sites.len() > failures.layout.sites.len() {
        refuse(ProbeId::Failure.name(), format!("there are {} places that throw", sites.len()));
    }
    for (room, (site, _)) in failures.layout.sites.iter_mut().zip(&sites) {
        *room = *site;
    }
    if sites.is_empty() {
        let what = if functions.is_empty() { "there is no function" } else { "nothing throws in" };
        refuse(ProbeId::Failure.name(), format!("{what} {BANK_MANAGER}… for want of memory"));
        return failures;
    }
    match callers(image, facts) {
        Ok(callers) => failures.layout.callers = callers,
        Err(reason) => refuse(BUFFER, reason),
    }
    failures
}

/// The name of the buffer of a failed allocation, in messages.
pub const BUFFER: &str = "buffer of a failed allocation";

/// A call of the throwing function; `None` if it is about something else.
fn site(text: &str, step: &Step, throw: &str) -> Result<Option<(FailureSite, String)>, Refusal> {
    if !text.starts_with(message::START) {
        return Ok(None);
    }
    let kinds = message::kinds(throw).unwrap_or_default();
    let places = message::places(text, &kinds)?;
    let mut site = FailureSite {
        return_address: step.instruction.next_ip(),
        // From the stack pointer in the throwing function, which is the call's return address.
        to_caller: step.depth.and_then(|depth| u32::try_from(depth + WORD).ok()).unwrap_or(ABSENT),
        ..FailureSite::UNUSED
    };
    for field in 0..FAILURE_FIELDS {
        if let Some(index) = places.index[field] {
            // The first word is the return address.
            site.places[field] = index + 1;
            site.widths[field] = places.width[field];
        }
    }
    Ok(Some((site, places.names())))
}

/// The message's text, which the call passes as pointer and length.
fn text_of<'i>(image: &'i Image<'_>, walk: &Walk, step: &Step) -> Option<&'i str> {
    let pointer = walk.last_write(step, Register::R8)?;
    if pointer.code() != Code::Lea_r64_m || !pointer.is_ip_rel_memory_operand() {
        return None;
    }
    let length = walk.last_write(step, Register::R9)?;
    if length.code() != Code::Mov_r32_imm32 {
        return None;
    }
    let length = usize::try_from(length.immediate32()).ok().filter(|length| *length <= MAX_TEXT)?;
    let at = Svma(pointer.ip_rel_memory_address());
    // Not what could be written to.
    image.constant_at(at, 1)?;
    std::str::from_utf8(image.bytes_at(at)?.get(..length)?).ok()
}

type Callers = [FailureCaller; ttmem_common::failure::FAILURE_CALLERS];

/// The calls of `BankManager::allocate_buffer`, and how far the `Buffer*` is from each.
fn callers(image: &Image<'_>, facts: &mut Facts) -> Result<Callers, Refusal> {
    let class = probes::allocator_class(image).ok_or("there is no deallocate_buffer(Buffer*)")?;
    let name = format!("_ZN2tt8tt_metal{class}15allocate_buffer{BUFFER_ARGUMENT}");
    let function = image.symbol(&name).filter(|symbol| symbol.is_function);
    let function = function.ok_or_else(|| format!("there is no function {name}"))?;
    let walk = Walk::of(image, function);
    if !walk.complete {
        return Err(format!("not every way through {name} was understood"));
    }
    let mut callers = FailureLayout::ABSENT.callers;
    let calls = walk.calls(image, &[BANK_MANAGER]);
    let places = calls.iter().map(|(step, _)| step.instruction.ip()).collect();
    let kept = kept_argument(image, function, &walk, &places)
        .ok_or_else(|| format!("{name} does not keep its Buffer* in one place on the stack"))?;
    if calls.is_empty() || calls.len() > callers.len() {
        return Err(format!("{name} calls BankManager::allocate_buffer {} times", calls.len()));
    }
    for (caller, (step, _)) in callers.iter_mut().zip(&calls) {
        let depth = step.depth.ok_or_else(|| format!("the stack of {name} is not understood"))?;
        let to_buffer = depth + WORD - kept;
        let to_buffer = u32::try_from(to_buffer).map_err(|_| "the Buffer* is below the call")?;
        caller.return_address = step.instruction.next_ip();
        caller.to_buffer = to_buffer;
    }
    facts.note(BUFFER, &format!("its caller's return address-{kept:#x}"), &name);
    Ok(callers)
}

const BUFFER_ARGUMENT: &str = "EPNS0_6BufferE";

/// Bytes from the place where a function keeps its second argument up to its return address.
///
/// It has to be stored before anything else can happen. No other instruction from which one of the
/// `calls` can be reached may write there or take the place's address.
fn kept_argument(
    image: &Image<'_>,
    function: Symbol,
    walk: &Walk,
    calls: &HashSet<u64>,
) -> Option<i64> {
    let mut factory = InstructionInfoFactory::new();
    let mut at = function.address.0;
    let store = loop {
        let step = walk.steps.get(&at)?;
        let instruction = &step.instruction;
        if instruction.code() == Code::Mov_rm64_r64
            && instruction.op1_register() == Register::RSI
            && on_stack(instruction)
        {
            break *step;
        }
        let goes_on = instruction.flow_control() == iced_x86::FlowControl::Next;
        if !goes_on || writes(&mut factory, instruction, Register::RSI) {
            return None;
        }
        at = instruction.next_ip();
    };
    let kept = place(&store.instruction, store.depth?)?;
    let others = every_step(image, function, walk, store.depth?);
    let mut others = others.iter().filter(|step| step.instruction.ip() != at);
    let mut spoils =
        |step: &Step| touches(&mut factory, step, kept) && walk.leads_to_any(image, step, calls);
    others.all(|step| !spoils(step)).then_some(kept)
}

/// The instructions that control flow reaches, and all others in the function's extent: exceptions
/// are caught there, with the stack as deep as after the function's start.
fn every_step(image: &Image<'_>, function: Symbol, walk: &Walk, depth: i64) -> Vec<Step> {
    let mut steps: Vec<Step> = walk.steps.values().copied().collect();
    let mut at = function.address.0;
    let end = at.saturating_add(function.size);
    while at < end {
        let Some(instruction) = walk::decode(image, at) else { break };
        if !walk.steps.contains_key(&at) {
            steps.push(Step { instruction, depth: Some(depth) });
        }
        at = instruction.next_ip();
    }
    steps
}

/// Whether the memory operand is a fixed place on the stack.
fn on_stack(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|number| instruction.op_kind(number) == OpKind::Memory)
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None
}

/// Bytes from the memory operand up to the return address.
fn place(instruction: &Instruction, depth: i64) -> Option<i64> {
    depth.checked_sub(instruction.memory_displacement64().cast_signed())
}

/// Whether an instruction may write to the word at a place, or takes its address.
fn touches(factory: &mut InstructionInfoFactory, step: &Step, kept: i64) -> bool {
    let instruction = &step.instruction;
    if instruction.code() == Code::Mov_r64_rm64 && instruction.op1_register() == Register::RSP
        || instruction.code() == Code::Mov_rm64_r64 && instruction.op1_register() == Register::RSP
    {
        return step.depth.is_none_or(|depth| depth > kept - WORD && depth <= kept);
    }
    if instruction.memory_base() != Register::RSP {
        return false;
    }
    let takes_address = instruction.mnemonic() == iced_x86::Mnemonic::Lea;
    let info = factory.info(instruction);
    let bytes: usize = info
        .used_memory()
        .iter()
        .filter(|used| used.base() == Register::RSP && is_write(used.access()))
        .map(|used| used.memory_size().size())
        .max()
        .unwrap_or(0);
    if bytes == 0 && !takes_address {
        return false;
    }
    if instruction.memory_index() != Register::None {
        return !takes_address;
    }
    let Some(place) = step.depth.and_then(|depth| place(instruction, depth)) else { return true };
    let bytes = if takes_address { 1 } else { i64::try_from(bytes).unwrap_or(i64::MAX) };
    // Places count downwards: a write covers place, place-1, … place-bytes+1.
    place > kept - WORD && place.saturating_sub(bytes) < kept
}

#[cfg(test)]
mod tests;
