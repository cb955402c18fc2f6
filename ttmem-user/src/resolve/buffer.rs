//! The fields of `Buffer`.
//!
//! Several functions show the same field: its accessor, the constructor that stores an argument
//! in it, the allocation that writes or passes it on. All that exist have to agree.

use ttmem_common::layout::{ABSENT, BufferLayout};

use super::{
    field::{Facts, Field, Refusal, agreed, paths, returned, returned_field},
    shard,
    symbolic::{
        exec::{Event, Executor, Outcome, Path, Target},
        expr::{Condition, Expr, Relation, Value, base_and_offset},
    },
};
use crate::image::Image;

/// Where the fields are relative to: `Buffer` itself, or what one of its pointers leads to.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a, 'i> {
    /// The image.
    pub image: &'a Image<'i>,
    /// Offset of the pointer; [`ABSENT`]: none.
    pub implementation: u32,
}

impl Home<'_, '_> {
    /// The offset of a field in the window, if it has the expected width.
    pub fn offset(&self, field: &Field, width: u8) -> Option<u32> {
        match *field.steps {
            _ if field.width != width => None,
            [offset] if self.implementation == ABSENT => Some(offset),
            [pointer, offset] if self.implementation == pointer => Some(offset),
            _ => None,
        }
    }

    /// The offset of the field that an expression reads.
    pub fn offset_of(&self, value: &Value, width: u8) -> Option<u32> {
        self.offset(&Field::of(value, 0)?, width)
    }

    fn accessor(&self, name: &str, width: u8) -> Result<u32, Refusal> {
        let symbol = format!("_ZNK2tt8tt_metal6Buffer{name}Ev");
        let field = returned_field(self.image, &Executor::new(self.image), &symbol, 0)?;
        self.offset(&field, width)
            .ok_or_else(|| format!("{symbol} returns {field}, which is not where the others are"))
    }

    fn class(&self) -> &'static str {
        if self.implementation == ABSENT { "6Buffer" } else { "10BufferImpl" }
    }
}

/// What one function shows of a field; `None` if the function does not exist.
type Shown = Option<(&'static str, Result<u32, Refusal>)>;

/// The offset that all functions show which exist.
fn settle(facts: &mut Facts, name: &str, shown: Vec<Shown>) -> Result<u32, Refusal> {
    let mut offsets = Vec::new();
    let mut sources = Vec::new();
    for (source, offset) in shown.into_iter().flatten() {
        offsets.push(offset.map_err(|reason| format!("{name}: {reason}"))?);
        sources.push(source);
    }
    let offset = agreed(name, offsets)?;
    facts.note(name, &format!("+{offset:#x}"), &sources.join(", "));
    Ok(offset)
}

/// Which pointer of `Buffer` the fields are behind, if any.
pub fn home<'a, 'i>(image: &'a Image<'i>) -> Result<Home<'a, 'i>, Refusal> {
    let name = "_ZNK2tt8tt_metal6Buffer9page_sizeEv";
    let field = returned_field(image, &Executor::new(image), name, 0)?;
    let implementation = match *field.steps {
        [_] => ABSENT,
        [pointer, _] => pointer,
        _ => return Err(format!("Buffer::page_size is {field}")),
    };
    Ok(Home { image, implementation })
}

/// Offset of a write to the object that argument 0 points to.
pub(super) fn own_write(event: &Event) -> Option<(u32, u8, &Value)> {
    let Event::Write { address, width, value } = event else { return None };
    let (base, offset) = base_and_offset(address);
    (**base == Expr::Arg(0)).then_some(())?;
    Some((u32::try_from(offset).ok()?, *width, value))
}

fn strip(value: &Value) -> &Value {
    super::symbolic::expr::untruncated(value)
}

/// What the constructor shows: (device, size, page size, type), and the unique id.
struct Constructor {
    paths: Vec<Path>,
}

impl Constructor {
    /// Finds it by the parameters whose meaning is used.
    fn find(home: &Home<'_, '_>) -> Option<Self> {
        let prefix = format!("_ZN2tt8tt_metal{}C2EPNS0_7IDeviceEmmNS0_10BufferTypeE", home.class());
        let found = home.image.symbols_with_prefix(&prefix);
        let [(_, symbol)] = *found else { return None };
        Some(Self { paths: Executor::new(home.image).run(symbol.address) })
    }

    /// Where an argument is stored, on every path that gets so far.
    fn stored(&self, argument: u8, width: u8) -> Result<u32, Refusal> {
        let stores = self.paths.iter().filter_map(|path| {
            path.events.iter().filter_map(own_write).find_map(|(offset, bytes, value)| {
                (bytes == width && **strip(value) == Expr::Arg(argument)).then_some(offset)
            })
        });
        agreed(&format!("where the constructor stores argument {argument}"), stores)
    }

    /// Where the old value of the process-wide counter is stored.
    fn unique_id(&self, counter: u64) -> Result<u32, Refusal> {
        let stores = self.paths.iter().filter_map(|path| {
            path.events.iter().filter_map(own_write).find_map(|(offset, width, value)| {
                let Expr::Load { address, width: 8 } = &**value else { return None };
                (width == 8 && **address == Expr::Const(counter)).then_some(offset)
            })
        });
        agreed("where the constructor stores the unique id", stores)
    }
}

/// What the allocation shows.
struct Allocation {
    paths: Vec<Path>,
}

impl Allocation {
    fn find(home: &Home<'_, '_>) -> Result<Self, Refusal> {
        let (class, parameters) = match home.class() {
            "6Buffer" => ("6Buffer", "v"),
            class => (class, "RNS0_6BufferE"),
        };
        let name = format!("_ZN2tt8tt_metal{class}13allocate_implE{parameters}");
        Ok(Self { paths: paths(home.image, &Executor::new(home.image), &name)? })
    }

    fn argument_of(&self, callee: &str) -> Result<u32, Refusal> {
        let calls =
            self.paths.iter().flat_map(Path::calls).filter(
                |call| matches!(&call.target, Target::Named(name) if name.ends_with(callee)),
            );
        // Every call has to be understood: another one may be made with another object.
        let found = calls.map(|call| {
            let field = Field::of(&call.arguments[0], 0)?;
            (field.width == 8 && field.steps.len() == 1).then(|| field.steps[0])
        });
        agreed(&format!("what allocate_impl calls {callee} with"), found)?
            .ok_or_else(|| format!("what allocate_impl calls {callee} with is no field"))
    }

    /// Where the result of `allocate_buffer` goes.
    fn address(&self) -> Result<u32, Refusal> {
        let found = self.paths.iter().filter_map(|path| {
            let call = path.calls().find(|call| {
                matches!(&call.target, Target::Named(name)
                    if name.ends_with("15allocate_bufferEPNS0_6BufferE"))
            })?;
            path.events.iter().filter_map(own_write).find_map(|(offset, width, value)| {
                (width == 8 && **value == Expr::Returned(call.number)).then_some(offset)
            })
        });
        agreed("where allocate_impl stores the address", found)
    }

    /// The bytes that are set to 1 on paths where `hook_allocate` did, or did not, take over.
    fn set_bytes(&self, hooked: bool) -> Vec<Vec<u32>> {
        let taken = |path: &&Path| {
            let is_tracked = path.calls().any(|call| {
                matches!(&call.target, Target::Named(name) if &**name == super::probes::ALLOCATE)
            });
            let hook = path.calls().find(|call| {
                matches!(&call.target, Target::Named(name)
                    if name.ends_with("13hook_allocateEPKNS0_6BufferE"))
            });
            let Some(hook) = hook.filter(|_| is_tracked) else { return false };
            path.conditions.iter().any(|condition| {
                let wanted = if hooked { Relation::NotEqual } else { Relation::Equal };
                condition.relation == wanted
                    && *condition.right == Expr::Const(0)
                    && **strip(&condition.left) == Expr::Returned(hook.number)
            })
        };
        let ones = |path: &Path| {
            let mut ones: Vec<u32> = path
                .events
                .iter()
                .filter_map(own_write)
                .filter(|(_, width, value)| *width == 1 && ***value == Expr::Const(1))
                .map(|(offset, ..)| offset)
                .collect();
            ones.sort_unstable();
            ones.dedup();
            ones
        };
        self.paths.iter().filter(taken).map(ones).collect()
    }

    /// The status byte and the hooked byte.
    fn flags(&self) -> Result<(u32, u32), Refusal> {
        let plain = agreed("what allocate_impl sets", self.set_bytes(false))?;
        let hooked = agreed("what a hooked allocate_impl sets", self.set_bytes(true))?;
        let [status] = *plain else {
            return Err(format!("allocate_impl sets {plain:x?}, expected one status byte"));
        };
        let extra: Vec<u32> = hooked.iter().copied().filter(|byte| *byte != status).collect();
        match *extra {
            [byte] if hooked.contains(&status) => Ok((status, byte)),
            _ => Err(format!("a hooked allocate_impl sets {hooked:x?}, status is {status:#x}")),
        }
    }
}

fn status(home: &Home<'_, '_>) -> Result<u32, Refusal> {
    let name = "_ZNK2tt8tt_metal6Buffer12is_allocatedEv";
    let value = returned(&paths(home.image, &Executor::new(home.image), name)?, name)?;
    let mut found = None;
    super::symbolic::expr::walk(&value, &mut |part| {
        if let Expr::Truth(Condition { relation: Relation::Equal, left, right, .. }) = &**part
            && **right == Expr::Const(1)
        {
            found = home.offset_of(left, 1);
        }
    });
    found.ok_or_else(|| format!("{name} is not a comparison with 1, but {value}"))
}

fn address(home: &Home<'_, '_>) -> Result<u32, Refusal> {
    let name = "_ZNK2tt8tt_metal6Buffer7addressEv";
    let value = returned(&paths(home.image, &Executor::new(home.image), name)?, name)?;
    // The field has 8 bytes (the allocation writes them all), the accessor returns the low 4.
    home.offset_of(&value, 4)
        .or_else(|| home.offset_of(&value, 8))
        .ok_or_else(|| format!("{name} returns {value}"))
}

/// The type, from `is_dram()`: `(type & !4) == 0`.
fn type_by_is_dram(home: &Home<'_, '_>) -> Result<u32, Refusal> {
    let name = "_ZNK2tt8tt_metal6Buffer7is_dramEv";
    let value = returned(&paths(home.image, &Executor::new(home.image), name)?, name)?;
    let mut loads = Vec::new();
    super::symbolic::expr::walk(&value, &mut |part| loads.extend(home.offset_of(part, 4)));
    agreed("what is_dram() looks at", loads)
}

/// Size and page size, from `num_pages()`: their quotient.
fn sizes_by_num_pages(home: &Home<'_, '_>) -> Result<(u32, u32), Refusal> {
    let name = "_ZNK2tt8tt_metal6Buffer9num_pagesEv";
    let quotients = paths(home.image, &Executor::new(home.image), name)?;
    let quotients = quotients.iter().filter_map(|path| match &path.outcome {
        Outcome::Return(value) if **value != Expr::Const(0) => Some(quotient(home, value)),
        Outcome::Unknown(_) => Some(None),
        _ => None,
    });
    agreed("the quotient that num_pages() returns", quotients)?
        .ok_or_else(|| "num_pages() is no quotient of two fields".into())
}

fn quotient(home: &Home<'_, '_>, value: &Value) -> Option<(u32, u32)> {
    let Expr::Binary(super::symbolic::expr::Op::Div, size, page) = &**strip(value) else {
        return None;
    };
    Some((home.offset_of(strip(size), 8)?, home.offset_of(strip(page), 8)?))
}

/// What only `Buffer` accessors exist for in some versions.
fn optional(home: &Home<'_, '_>, name: &'static str, width: u8) -> Shown {
    let symbol = format!("_ZNK2tt8tt_metal6Buffer{name}Ev");
    home.image.symbol(&symbol)?;
    Some((name.trim_start_matches(|c: char| c.is_ascii_digit()), home.accessor(name, width)))
}

/// The fields that every allocation record needs.
pub fn essential(
    home: &Home<'_, '_>,
    facts: &mut Facts,
    layout: &mut BufferLayout,
) -> Result<(), Refusal> {
    let constructor = Constructor::find(home);
    let built =
        |argument, width| Some(("the constructor", constructor.as_ref()?.stored(argument, width)));
    let allocation = Allocation::find(home)?;
    let (status_byte, hooked) = allocation.flags()?;
    let pages = sizes_by_num_pages(home);
    let part = |size: bool| {
        let offset = pages.clone().map(|both| if size { both.0 } else { both.1 });
        Some(("num_pages", offset))
    };
    layout.implementation = home.implementation;
    let device = vec![optional(home, "6device", 8), built(1, 8)];
    layout.device = settle(facts, "Buffer::device", device)?;
    let size = vec![optional(home, "4size", 8), part(true), built(2, 8)];
    layout.size = settle(facts, "Buffer::size", size)?;
    let page_size = vec![optional(home, "9page_size", 8), part(false), built(3, 8)];
    layout.page_size = settle(facts, "Buffer::page_size", page_size)?;
    let by_is_dram = Some(("is_dram", type_by_is_dram(home)));
    let kind = vec![optional(home, "11buffer_type", 4), by_is_dram, built(4, 4)];
    layout.buffer_type = settle(facts, "Buffer::buffer_type", kind)?;
    let by_allocation = Some(("allocate_impl", allocation.address()));
    let address = vec![Some(("address", address(home))), by_allocation];
    layout.address = settle(facts, "Buffer::address", address)?;
    let by_range = Some(("num_cores", shard::layout_field(home, facts)));
    let memory_layout = vec![optional(home, "13buffer_layout", 4), by_range];
    layout.memory_layout = settle(facts, "Buffer::buffer_layout", memory_layout)?;
    let passed = allocation.argument_of("15allocate_bufferEPNS0_6BufferE");
    layout.allocator = settle(facts, "Buffer::allocator", vec![Some(("allocate_impl", passed))])?;
    let by_allocation = Some(("allocate_impl", Ok(status_byte)));
    let status = vec![Some(("is_allocated", status(home))), by_allocation];
    layout.status = settle(facts, "Buffer::status", status)?;
    layout.hooked = settle(facts, "Buffer::hooked", vec![Some(("allocate_impl", Ok(hooked)))])?;
    unique_id(home, facts, layout, constructor.as_ref());
    Ok(())
}

/// The unique id, which not every version has: its absence is a fact, not a failure.
fn unique_id(
    home: &Home<'_, '_>,
    facts: &mut Facts,
    layout: &mut BufferLayout,
    constructor: Option<&Constructor>,
) {
    let counter = format!("_ZN2tt8tt_metal{}14next_unique_idE", home.class());
    let built = constructor.zip(home.image.symbol(&counter)).map(|(constructor, counter)| {
        ("the constructor", constructor.unique_id(counter.address.0))
    });
    // The constructor is long: where its end is not reached, the accessor alone has to do.
    let accessor = optional(home, "9unique_id", 8);
    let shown = vec![built.filter(|built| built.1.is_ok() || accessor.is_none()), accessor];
    match settle(facts, "Buffer::unique_id", shown) {
        Ok(offset) => layout.unique_id = offset,
        Err(reason) => facts.note("Buffer::unique_id", &format!("absent: {reason}"), "—"),
    }
}

#[cfg(test)]
mod tests;
