//! From expressions to field offsets, and the record of where each came from.
//!
//! Invariant: an offset leaves here only if every path of a function agrees on it.

use std::rc::Rc;

use ttmem_common::layout::Chain;

use super::{
    plan::Fact,
    symbolic::{
        exec::{Executor, Outcome, Path},
        expr::{Expr, Relation, Value, base_and_offset},
    },
};
use crate::image::Image;

/// Why something was not decoded.
pub type Refusal = String;

/// A field, reached from an object by following pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Offsets; all but the last lead to pointers.
    pub steps: Vec<u32>,
    /// Bytes of the value.
    pub width: u8,
}

impl Field {
    /// Reads an expression as a field of the object that argument `root` points to.
    pub fn of(value: &Value, root: u8) -> Option<Self> {
        let Expr::Load { address, width } = &**value else { return None };
        let (base, offset) = base_and_offset(address);
        let offset = u32::try_from(offset).ok()?;
        if **base == Expr::Arg(root) {
            return Some(Self { steps: vec![offset], width: *width });
        }
        let mut pointer = Self::of(base, root)?;
        if pointer.width != 8 {
            return None;
        }
        pointer.steps.push(offset);
        Some(Self { width: *width, ..pointer })
    }

    /// As the eBPF side follows it.
    pub fn chain(&self) -> Result<Chain, Refusal> {
        Chain::new(&self.steps, self.width.into())
            .ok_or_else(|| format!("{self} cannot be followed in so few steps"))
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for _ in 1..self.steps.len() {
            write!(f, "*(")?;
        }
        write!(f, "this")?;
        for (number, step) in self.steps.iter().enumerate() {
            write!(f, "{}+{step:#x}", if number == 0 { "" } else { ")" })?;
        }
        write!(f, " ({} bytes)", self.width)
    }
}

/// What has been decoded so far.
#[derive(Debug, Default)]
pub struct Facts(pub Vec<Fact>);

impl Facts {
    /// Notes a decoded value and the function it came from.
    pub fn note(&mut self, name: &str, value: &dyn std::fmt::Display, from: &str) {
        self.0.push(Fact {
            name: name.to_owned(),
            value: value.to_string(),
            from: from.to_owned(),
        });
    }
}

/// The paths of a function.
pub fn paths(image: &Image<'_>, executor: &Executor<'_>, name: &str) -> Result<Vec<Path>, Refusal> {
    let symbol = image.symbol(name).filter(|symbol| symbol.is_function);
    let symbol = symbol.ok_or_else(|| format!("there is no function {name}"))?;
    Ok(executor.run(symbol.address))
}

/// What a function returns if it does not throw; all paths have to agree, but for those that
/// return 0 for want of an object to read the value from.
pub fn returned(paths: &[Path], name: &str) -> Result<Value, Refusal> {
    let mut values: Vec<(&Path, &Value)> = Vec::new();
    for path in paths {
        match &path.outcome {
            Outcome::Throws => {}
            Outcome::Unknown(why) => return Err(format!("{name} was not understood: {why}")),
            Outcome::Return(value) => values.push((path, value)),
        }
    }
    let first = values.iter().find(|(_, value)| ***value != Expr::Const(0)).or(values.first());
    let value = first.ok_or_else(|| format!("{name} always throws"))?.1;
    let fits = |(path, other): &(&Path, &Value)| {
        *other == value || (***other == Expr::Const(0) && lacks_object(path, value))
    };
    if !values.iter().all(fits) {
        return Err(format!("{name} returns different fields on different paths"));
    }
    Ok(Rc::clone(value))
}

/// Whether a pointer is null on a path that leads from one object to the next on the way to a
/// value.
fn lacks_object(path: &Path, value: &Value) -> bool {
    let Expr::Load { address, .. } = &**value else { return false };
    let pointer = base_and_offset(address).0;
    let is_null = path.conditions.iter().any(|condition| {
        condition.relation == Relation::Equal
            && condition.width == 8
            && condition.left == *pointer
            && *condition.right == Expr::Const(0)
    });
    matches!(**pointer, Expr::Load { .. }) && (is_null || lacks_object(path, pointer))
}

/// The field of argument `root` that a function returns.
pub fn returned_field(
    image: &Image<'_>,
    executor: &Executor<'_>,
    name: &str,
    root: u8,
) -> Result<Field, Refusal> {
    let value = returned(&paths(image, executor, name)?, name)?;
    Field::of(&value, root).ok_or_else(|| format!("{name} does not return a field, but {value}"))
}

/// The one value that all agree on.
pub fn agreed<T: PartialEq + std::fmt::Debug>(
    what: &str,
    values: impl IntoIterator<Item = T>,
) -> Result<T, Refusal> {
    let mut values = values.into_iter();
    let first = values.next().ok_or_else(|| format!("{what} was not found"))?;
    match values.find(|value| *value != first) {
        Some(other) => Err(format!("{what} is ambiguous: {first:x?} or {other:x?}")),
        None => Ok(first),
    }
}
