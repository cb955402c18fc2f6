//! The one program behind every probe: who was hit, and what for, is in the attach cookie.

mod allocate;
mod circular;
mod describe;
mod failure;
mod fields;
mod free;
mod resize;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::bpf_pidns_info,
    helpers::{bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_get_ns_current_pid_tgid},
    macros::uprobe,
    programs::ProbeContext,
};
use ttmem_common::{
    layout::LayoutTable,
    probe::{ProbeId, cookie_probe, cookie_slot},
    record::FLAG_DATAFLOW,
};

use crate::{emit::Hit, maps::LAYOUTS, stack};

/// Device and inode of the agent's pid namespace; inode 0: it is the initial one.
///
/// Process and thread ids are then those that the agent's user knows.
#[unsafe(no_mangle)]
static PID_NS_DEV: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PID_NS_INO: Global<u64> = Global::new(0);

/// Entry of every probed function.
#[uprobe]
pub fn ttmem(ctx: ProbeContext) -> u32 {
    let _ = dispatch(&ctx);
    0
}

#[inline(always)]
fn dispatch(ctx: &ProbeContext) -> Option<()> {
    // SAFETY: the context is the one this program was called with.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let slot = cookie_slot(cookie);
    let layout = LAYOUTS.get(slot)?;
    let (tgid, tid) = current_ids()?;
    if layout.in_use == 0 || layout.tgid != tgid {
        return None;
    }
    let hit = Hit::enter(slot, tgid, tid)?;
    let wants_stack = on_probe(ctx, cookie_probe(cookie), &hit, layout).is_some();
    hit.cpu.leave();
    if wants_stack {
        stack::record(ctx, &hit);
    }
    Some(())
}

/// `Some`: there is a record that the stack belongs to.
#[inline(always)]
fn on_probe(ctx: &ProbeContext, probe: u16, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    match ProbeId::from_raw(probe)? {
        ProbeId::Allocate => return allocate::on_allocate(ctx, hit, layout),
        ProbeId::Failure => return failure::on_failure(ctx, hit, layout),
        ProbeId::Free => free::on_free(ctx, hit, layout),
        ProbeId::BulkFree => free::on_bulk_free(ctx, hit),
        ProbeId::DeviceOpen => describe::on_device_open(ctx, hit, layout),
        ProbeId::Resize => resize::on_resize(ctx, hit, layout),
        ProbeId::CircularContext => circular::on_context(ctx, hit, 0),
        ProbeId::DataflowContext => circular::on_context(ctx, hit, FLAG_DATAFLOW),
        ProbeId::Circular => circular::on_circular(ctx, hit, layout),
        ProbeId::Dataflow => circular::on_mark(ctx, hit, layout),
        ProbeId::ProgramEnd => circular::on_program_end(ctx, hit),
        ProbeId::Dispatch => circular::on_dispatch(ctx, hit, layout),
    };
    None
}

/// Process and thread id in the agent's pid namespace.
#[inline(always)]
fn current_ids() -> Option<(u32, u32)> {
    let inode = PID_NS_INO.load();
    if inode == 0 {
        let ids = bpf_get_current_pid_tgid();
        return Some(((ids >> 32) as u32, ids as u32));
    }
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: `ids` is as large as the size says.
    let error = unsafe {
        bpf_get_ns_current_pid_tgid(
            PID_NS_DEV.load(),
            inode,
            &raw mut ids,
            size_of::<bpf_pidns_info>() as u32,
        )
    };
    (error == 0).then_some((ids.tgid, ids.pid))
}
