//! The fields of a buffer that every allocation needs, in as few reads as can be: each read costs
//! the target about as much as half of all the rest.
//!
//! Up to the unique id it is more than the stack has room for. So it is read into memory of the
//! CPU's own; by who does not have that alone, in two pieces.

use ttmem_common::{
    cpu_ring::SPAN_WORDS,
    layout::{ABSENT, BufferLayout, MAX_SPAN, MAX_WINDOW},
    record::FLAG_NO_UNIQUE_ID,
};

use crate::{
    emit::Hit,
    user_memory::{Fault, read, read_into, read_raw},
};

/// A power of two.
const WINDOW_WORDS: usize = MAX_WINDOW as usize / 8;

/// What is read of each buffer.
pub struct Fields {
    pub device: u64,
    pub allocator: u64,
    pub size: u64,
    pub page_size: u64,
    pub address: u64,
    /// 0 with [`FLAG_NO_UNIQUE_ID`].
    pub unique_id: u64,
    pub buffer_type: u32,
    pub memory_layout: u32,
    /// 0 or [`FLAG_NO_UNIQUE_ID`].
    pub flags: u32,
    pub hooked: u8,
}

impl Fields {
    /// Reads them; and the address of the object that holds them.
    #[inline(always)]
    pub fn read(buffer: u64, hit: &Hit, layout: &BufferLayout) -> Result<(u64, Self), Fault> {
        if let Some(read) = Self::read_at_once(buffer, hit, layout) {
            return Ok(read);
        }
        let fields = fields_of(buffer, layout)?;
        let window = Window::read(fields, layout)?;
        let unique_id = match layout.unique_id {
            ABSENT => None,
            offset => Some(read(fields.wrapping_add(u64::from(offset)))?),
        };
        Ok((fields, Self::of(layout, unique_id, |offset| window.word(offset))))
    }

    /// `None`: that is not possible now, or not with this layout.
    #[inline(always)]
    pub fn read_at_once(buffer: u64, hit: &Hit, layout: &BufferLayout) -> Option<(u64, Self)> {
        let (start, len) = (layout.window_start, layout.span_len);
        if len == 0 || len > MAX_SPAN {
            return None;
        }
        let state = hit.cpu.alone()?;
        // SAFETY: a live element of an array map, and this program's alone.
        unsafe {
            let words = &raw mut (*state).words;
            let mut fields = buffer;
            let mut error = 0;
            if layout.implementation != ABSENT {
                // Not onto the stack: the kernel would look whether it is the stack's.
                let from = buffer.wrapping_add(u64::from(layout.implementation));
                error = read_raw(words.cast(), 8, from);
                fields = (*words)[0];
            }
            if error == 0 {
                error = read_raw(words.cast(), len, fields.wrapping_add(u64::from(start)));
            }
            // What cannot be read in one piece may be read in two.
            if error != 0 {
                return None;
            }
            let word = |offset: u32| {
                // A mask for the verifier: the agent refuses a layout with a field elsewhere.
                let index = offset.wrapping_sub(start) as usize / 8;
                (*words)[index & (SPAN_WORDS - 1)]
            };
            Some((fields, Self::of(layout, Some(word(layout.unique_id)), word)))
        }
    }

    #[inline(always)]
    fn of(layout: &BufferLayout, unique_id: Option<u64>, word: impl Fn(u32) -> u64) -> Self {
        let half = |offset: u32| (word(offset) >> ((offset & 4) * 8)) as u32;
        Self {
            device: word(layout.device),
            allocator: word(layout.allocator),
            size: word(layout.size),
            page_size: word(layout.page_size),
            address: word(layout.address),
            unique_id: unique_id.unwrap_or(0),
            buffer_type: half(layout.buffer_type),
            memory_layout: half(layout.memory_layout),
            flags: if unique_id.is_none() { FLAG_NO_UNIQUE_ID } else { 0 },
            hooked: (word(layout.hooked) >> ((layout.hooked & 7) * 8)) as u8,
        }
    }
}

/// The fields of a buffer that lie close together, as read from the target.
pub struct Window {
    bytes: [u64; WINDOW_WORDS],
    start: u32,
}

impl Window {
    /// Reads them from the object that holds them.
    #[inline(always)]
    pub fn read(fields: u64, layout: &BufferLayout) -> Result<Self, Fault> {
        let mut window = Self { bytes: [0; WINDOW_WORDS], start: layout.window_start };
        let len = layout.window_len;
        if len > MAX_WINDOW {
            return Err(Fault);
        }
        let from = fields.wrapping_add(u64::from(window.start));
        read_into(window.bytes.as_mut_ptr().cast(), len, from)?;
        Ok(window)
    }

    /// The 8 bytes in which a field lies.
    #[inline(always)]
    pub fn word(&self, offset: u32) -> u64 {
        // A mask, and not a comparison: the verifier loses track of comparisons. The agent refuses
        // a layout with a field outside the window.
        let index = offset.wrapping_sub(self.start) as usize / 8;
        self.bytes[index & (WINDOW_WORDS - 1)]
    }

    /// A field of 4 bytes.
    #[inline(always)]
    pub fn half(&self, offset: u32) -> u32 {
        (self.word(offset) >> ((offset & 4) * 8)) as u32
    }
}

/// Whether each core of a buffer has an address of its own.
#[inline(always)]
pub fn is_per_core(fields: u64, layout: &BufferLayout) -> Result<bool, Fault> {
    if layout.per_core == ABSENT {
        return Ok(false);
    }
    Ok(read::<u8>(fields.wrapping_add(u64::from(layout.per_core)))? != 0)
}

/// Address of the object that holds a buffer's fields.
#[inline(always)]
pub fn fields_of(buffer: u64, layout: &BufferLayout) -> Result<u64, Fault> {
    if layout.implementation == ABSENT {
        Ok(buffer)
    } else {
        read(buffer.wrapping_add(u64::from(layout.implementation)))
    }
}
