//! Where things are in a table's file, as its header says and the file allows.

use ttmem_common::table::{CHIP_SLOTS, MAGIC, POOLS, VERSION, chip, header, pool};

/// Where things are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub chips_offset: u64,
    pub chip_bytes: u64,
    pub chip_slots: u64,
    pub pools_offset: u64,
    pub pool_bytes: u64,
}

impl Shape {
    /// Takes it from the header of a file of `size` bytes; or says what is wrong.
    pub fn check(load: impl Fn(u64) -> u64, size: u64) -> Result<Self, String> {
        let at = |at: usize| load(at as u64);
        if at(header::MAGIC) != MAGIC {
            return Err("it does not begin with TTMEMTAB".to_owned());
        }
        let version = at(header::VERSION);
        if version != VERSION {
            return Err(format!("its version is {version}, this ttmem reads {VERSION}"));
        }
        let shape = Self {
            chips_offset: at(header::CHIPS_OFFSET),
            chip_bytes: at(header::CHIP_BYTES),
            chip_slots: at(header::CHIP_SLOTS),
            pools_offset: at(header::POOLS_OFFSET),
            pool_bytes: at(header::POOL_BYTES),
        };
        let wanted = at(header::FILE_BYTES);
        if wanted > size {
            return Err(format!("it has {size} bytes and should have {wanted}"));
        }
        if shape.fits(wanted) { Ok(shape) } else { Err("its parts do not fit into it".to_owned()) }
    }

    fn fits(&self, size: u64) -> bool {
        let Self { chips_offset, chip_bytes, chip_slots, pools_offset, pool_bytes } = *self;
        let all = [chips_offset, chip_bytes, pools_offset, pool_bytes];
        let end = || {
            let pools = pools_offset.checked_add(pool_bytes.checked_mul(POOLS as u64)?)?;
            let chips = chips_offset.checked_add(chip_bytes.checked_mul(chip_slots)?)?;
            Some(pools <= chip_bytes && chips <= size)
        };
        all.iter().all(|offset| offset.is_multiple_of(8))
            && chips_offset >= header::LAST_BYTE
            && pools_offset >= chip::LAST_BYTE
            && pool_bytes >= pool::LAST_BYTE
            && (1..=CHIP_SLOTS as u64 * 64).contains(&chip_slots)
            && end() == Some(true)
    }
}
