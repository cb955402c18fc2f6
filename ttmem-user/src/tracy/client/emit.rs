//! Tracy's C interface.
//!
//! A pool is told from another by where its name lies: each text is kept for ever, once. Nothing
//! is sent while nobody is connected.

#![expect(unsafe_code, reason = "calls Tracy's client")]

use std::{
    collections::HashSet,
    ffi::{CStr, CString, c_char, c_void},
    ptr,
};

use tracy_client_sys as sys;

use crate::tracy::op::{Format, Name, Op, Severity};

/// The server keeps sizes in 47 bits.
const MAX_SIZE: u64 = (1 << 47) - 1;
/// What the zones are called in which it is looked who is connected.
const LOOK: &str = "ttmem";

/// An address that nothing has.
const NOWHERE: u64 = u64::MAX;

/// A name, and whether something has happened in the pool of that name since [`Client::settle`].
struct Known {
    text: &'static CStr,
    is_fresh: bool,
}

/// Tracy's client, of which a process has one.
pub struct Client {
    names: Vec<Known>,
    about: HashSet<String>,
}

impl Client {
    /// Starts it on that port. To be called once in a process, which has one thread.
    pub fn start(port: u16) -> Self {
        // SAFETY: there is one thread, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("TRACY_PORT", port.to_string()) };
        // SAFETY: nothing of it has been called before; the name is a C string.
        unsafe {
            sys::___tracy_startup_profiler();
            sys::___tracy_set_thread_name(c"ttmem".as_ptr());
        }
        Self { names: Vec::new(), about: HashSet::new() }
    }

    /// Sends what has not been sent, and stops.
    #[expect(clippy::unused_self, reason = "nothing can be called afterwards")]
    pub fn stop(self) {
        // SAFETY: it was started, and nothing of it is called afterwards.
        unsafe { sys::___tracy_shutdown_profiler() };
    }

    /// The number of the connection; `None` if there is none.
    ///
    /// Only the beginning of a zone says it, so the viewer sees short ones.
    #[expect(clippy::unused_self, reason = "it must have been started")]
    pub fn connection(&self) -> Option<u64> {
        let (text, len) = (LOOK.as_ptr().cast::<c_char>(), LOOK.len());
        // SAFETY: the text is so long, and copied; the location is used once, by the zone; the
        // zone ends on the thread that it begins on.
        let zone = unsafe {
            let place = sys::___tracy_alloc_srcloc(0, text, len, text, len, 0);
            let zone = sys::___tracy_emit_zone_begin_alloc(place, 1);
            sys::___tracy_emit_zone_end(zone);
            zone
        };
        (zone.active != 0).then_some(zone.connectionId)
    }

    /// Whether there is a connection.
    #[expect(clippy::unused_self, reason = "it must have been started")]
    pub fn is_connected(&self) -> bool {
        // SAFETY: it was started.
        unsafe { sys::___tracy_connected() != 0 }
    }

    /// The text of a name. They come in the order of their numbers.
    pub fn name(&mut self, name: Name, text: &str) {
        if name.0 as usize == self.names.len() {
            let text: String = text.chars().filter(|char| *char != '\0').collect();
            let text = CString::new(text).unwrap_or_default();
            self.names.push(Known { text: Box::leak(text.into_boxed_c_str()), is_fresh: false });
        }
    }

    /// All that has been said of pools so far was for the connection that there is.
    pub fn settle(&mut self) {
        for known in &mut self.names {
            known.is_fresh = false;
        }
    }

    /// Takes back what has been said of pools since then, and may be for one connection or the next.
    ///
    /// The viewer loses its clock over a pool that it has never heard of. It hears of it by a free
    /// that it takes no notice of.
    pub fn discard(&self) {
        for known in self.names.iter().filter(|known| known.is_fresh) {
            // SAFETY: the text lives for ever; the address is only a number to it.
            unsafe {
                sys::___tracy_emit_memory_free_named(place(NOWHERE), known.text.as_ptr());
                sys::___tracy_emit_memory_discard(known.text.as_ptr());
            }
        }
    }

    /// Shows it. What has an unknown name is left out.
    pub fn emit(&mut self, op: &Op<'_>) {
        match op {
            Op::Alloc { pool, address, size, .. } => {
                let Some(known) = self.names.get_mut(pool.0 as usize) else { return };
                known.is_fresh = true;
                let size = usize::try_from(*size.min(&MAX_SIZE)).unwrap_or(usize::MAX);
                // SAFETY: the address is only a number to it; the text lives for ever.
                unsafe {
                    sys::___tracy_emit_memory_alloc_named(
                        place(*address),
                        size,
                        known.text.as_ptr(),
                    );
                }
            }
            Op::Free { pool, address, .. } => {
                let Some(known) = self.names.get_mut(pool.0 as usize) else { return };
                known.is_fresh = true;
                // SAFETY: as above.
                unsafe {
                    sys::___tracy_emit_memory_free_named(place(*address), known.text.as_ptr());
                }
            }
            Op::Plot { plot, format } => {
                let Some(text) = self.text(*plot) else { return };
                // Steps, filled, in a colour of Tracy's choice.
                // SAFETY: the text lives for ever.
                unsafe {
                    let format = i32::from(*format == Format::Memory);
                    sys::___tracy_emit_plot_config(text, format, 1, 1, 0);
                }
            }
            Op::Point { plot, value, .. } => {
                let Some(text) = self.text(*plot) else { return };
                // SAFETY: the text lives for ever.
                unsafe { sys::___tracy_emit_plot_int(text, *value) };
            }
            Op::Message { severity, text, .. } => message(*severity, text),
            Op::AppInfo { text } => {
                // Tracy keeps it for later connections by itself.
                if self.about.insert((*text).to_owned()) {
                    // SAFETY: the text is so long, and copied.
                    unsafe { sys::___tracy_emit_message_appinfo(text.as_ptr().cast(), text.len()) };
                }
            }
        }
    }

    fn text(&self, name: Name) -> Option<*const c_char> {
        self.names.get(name.0 as usize).map(|known| known.text.as_ptr())
    }
}

fn place(address: u64) -> *const c_void {
    ptr::without_provenance(usize::try_from(address).unwrap_or(usize::MAX))
}

fn message(severity: Severity, text: &str) {
    let (severity, color) = match severity {
        Severity::Info => (2, 0),
        Severity::Warning => (3, 0x00ff_c000),
        Severity::Error => (4, 0x00ff_4040),
    };
    // SAFETY: the text is so long, and copied.
    unsafe { sys::___tracy_emit_logString(severity, color, 0, text.len(), text.as_ptr().cast()) };
}
