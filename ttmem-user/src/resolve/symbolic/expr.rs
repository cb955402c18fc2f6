//! The values that the executor computes with.
//!
//! Expressions are kept in one simple form (constants folded, offsets added up, truncations that
//! change nothing dropped), so that equal computations compare equal.

use std::{fmt, rc::Rc};

/// A shared expression.
pub type Value = Rc<Expr>;

/// A 64-bit value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A known number.
    Const(u64),
    /// What an argument register held at entry: 0 is rdi, 1 is rsi, and so on.
    Arg(u8),
    /// An address on the stack, relative to the stack pointer at entry.
    Stack(i64),
    /// Memory at an address, zero-extended.
    Load {
        /// The address.
        address: Value,
        /// Bytes: 1, 2, 4 or 8.
        width: u8,
    },
    /// The low bytes of a value, zero-extended.
    Low(u8, Value),
    /// The low bytes of a value, sign-extended.
    Signed(u8, Value),
    /// The low bytes of the first value replaced by those of the second.
    Insert(u8, Value, Value),
    /// A computation.
    Binary(Op, Value, Value),
    /// 1 if the condition holds, else 0.
    Truth(Condition),
    /// The first value if the condition holds, else the second.
    Select(Condition, Value, Value),
    /// What the n-th call on the path returned.
    Returned(u32),
    /// Something not understood; the number makes it differ from everything else.
    Opaque(u32),
}

/// A computation of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Unsigned quotient.
    Div,
    /// Unsigned remainder.
    Rem,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Shift left.
    Shl,
    /// Unsigned shift right.
    Shr,
    /// Signed shift right.
    Sar,
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Unsigned less.
    Below,
    /// Unsigned less or equal.
    BelowEqual,
    /// Unsigned greater.
    Above,
    /// Unsigned greater or equal.
    AboveEqual,
    /// Signed less.
    Less,
    /// Signed less or equal.
    LessEqual,
    /// Signed greater.
    Greater,
    /// Signed greater or equal.
    GreaterEqual,
}

impl Relation {
    /// What holds when this does not.
    #[must_use]
    pub const fn negated(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Below => Self::AboveEqual,
            Self::AboveEqual => Self::Below,
            Self::BelowEqual => Self::Above,
            Self::Above => Self::BelowEqual,
            Self::Less => Self::GreaterEqual,
            Self::GreaterEqual => Self::Less,
            Self::LessEqual => Self::Greater,
            Self::Greater => Self::LessEqual,
        }
    }

    /// Whether it holds for two numbers of a width in bytes.
    pub fn holds(self, left: u64, right: u64, width: u8) -> bool {
        let (left, right) = (low(width, left), low(width, right));
        let (signed_left, signed_right) = (signed(width, left), signed(width, right));
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Below => left < right,
            Self::BelowEqual => left <= right,
            Self::Above => left > right,
            Self::AboveEqual => left >= right,
            Self::Less => signed_left < signed_right,
            Self::LessEqual => signed_left <= signed_right,
            Self::Greater => signed_left > signed_right,
            Self::GreaterEqual => signed_left >= signed_right,
        }
    }
}

/// A comparison of two values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// How they compare.
    pub relation: Relation,
    /// The left value.
    pub left: Value,
    /// The right value.
    pub right: Value,
    /// Bytes compared.
    pub width: u8,
}

impl Condition {
    /// Builds a comparison; a comparison of a truth value with 0 becomes that truth itself.
    pub fn new(relation: Relation, left: &Value, right: &Value, width: u8) -> Self {
        let (left, right) = (truncate(width, left), truncate(width, right));
        if let (Expr::Truth(inner), Expr::Const(0)) = (&*left, &*right) {
            match relation {
                Relation::NotEqual => return inner.clone(),
                Relation::Equal => return inner.negated(),
                _ => {}
            }
        }
        Self { relation, left, right, width }
    }

    /// The opposite.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { relation: self.relation.negated(), ..self.clone() }
    }

    /// Whether it holds, if that is known without running.
    pub fn known(&self) -> Option<bool> {
        match (&*self.left, &*self.right) {
            (Expr::Const(left), Expr::Const(right)) => {
                Some(self.relation.holds(*left, *right, self.width))
            }
            // Only the two that need no more than sameness; the values may be opaque.
            _ if self.left == self.right => match self.relation {
                Relation::Equal => Some(true),
                Relation::NotEqual => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The mask of the low bytes of a value.
pub const fn mask(width: u8) -> u64 {
    if width >= 8 { u64::MAX } else { (1 << (width as u32 * 8)) - 1 }
}

const fn low(width: u8, value: u64) -> u64 {
    value & mask(width)
}

const fn signed(width: u8, value: u64) -> i64 {
    let unused = 64 - 8 * (if width >= 8 { 8 } else { width as u32 });
    if unused >= 64 {
        return 0;
    }
    (value << unused).cast_signed() >> unused
}

/// A number.
pub fn constant(value: u64) -> Value {
    Rc::new(Expr::Const(value))
}

/// How many of a value's low bits can be set.
fn bits(value: &Expr) -> u32 {
    match value {
        Expr::Const(number) => 64 - number.leading_zeros(),
        Expr::Load { width, .. } => u32::from(*width) * 8,
        Expr::Low(width, inner) => (u32::from(*width) * 8).min(bits(inner)),
        Expr::Truth(_) => 1,
        Expr::Binary(Op::And, left, right) => bits(left).min(bits(right)),
        Expr::Binary(Op::Div | Op::Shr, left, _) => bits(left),
        Expr::Select(_, left, right) | Expr::Binary(Op::Or | Op::Xor, left, right) => {
            bits(left).max(bits(right))
        }
        _ => 64,
    }
}

/// The low bytes of a value, zero-extended.
pub fn truncate(width: u8, value: &Value) -> Value {
    if width >= 8 {
        return Rc::clone(value);
    }
    match &**value {
        Expr::Const(number) => constant(low(width, *number)),
        Expr::Insert(inserted, _, new) if *inserted == width => truncate(width, new),
        Expr::Insert(inserted, old, _) if *inserted == 0 => truncate(width, old),
        Expr::Low(_, inner) | Expr::Signed(_, inner) if narrows(value, width) => {
            truncate(width, inner)
        }
        other if bits(other) <= u32::from(width) * 8 => Rc::clone(value),
        _ => Rc::new(Expr::Low(width, Rc::clone(value))),
    }
}

/// Whether a value's own extension keeps more bytes than `width`.
fn narrows(value: &Expr, width: u8) -> bool {
    matches!(value, Expr::Low(own, _) | Expr::Signed(own, _) if *own >= width)
}

/// The low bytes of a value, sign-extended.
pub fn sign_extend(width: u8, value: &Value) -> Value {
    match &**value {
        _ if width >= 8 => Rc::clone(value),
        Expr::Const(number) => constant(signed(width, *number).cast_unsigned()),
        other if bits(other) < u32::from(width) * 8 => Rc::clone(value),
        _ => Rc::new(Expr::Signed(width, truncate(width, value))),
    }
}

/// A value with its low bytes replaced.
pub fn insert(width: u8, old: &Value, new: &Value) -> Value {
    match (&**old, &**new) {
        (Expr::Const(old), Expr::Const(new)) => constant((old & !mask(width)) | low(width, *new)),
        (Expr::Insert(inner, below, _), _) if *inner <= width => {
            Rc::new(Expr::Insert(width, Rc::clone(below), truncate(width, new)))
        }
        _ => Rc::new(Expr::Insert(width, Rc::clone(old), truncate(width, new))),
    }
}

/// Memory at an address.
pub fn load(address: &Value, width: u8) -> Value {
    Rc::new(Expr::Load { address: Rc::clone(address), width })
}

fn fold(op: Op, left: u64, right: u64) -> Option<u64> {
    let shift = u32::try_from(right).unwrap_or(64);
    Some(match op {
        Op::Add => left.wrapping_add(right),
        Op::Sub => left.wrapping_sub(right),
        Op::Mul => left.wrapping_mul(right),
        Op::Div => left.checked_div(right)?,
        Op::Rem => left.checked_rem(right)?,
        Op::And => left & right,
        Op::Or => left | right,
        Op::Xor => left ^ right,
        Op::Shl => left.checked_shl(shift).unwrap_or(0),
        Op::Shr => left.checked_shr(shift).unwrap_or(0),
        Op::Sar => (left.cast_signed() >> shift.min(63)).cast_unsigned(),
    })
}

/// A computation, simplified.
pub fn binary(op: Op, left: &Value, right: &Value) -> Value {
    use Expr::{Binary, Const, Stack};
    let plain = || Rc::new(Binary(op, Rc::clone(left), Rc::clone(right)));
    match (op, &**left, &**right) {
        (_, Const(a), Const(b)) => fold(op, *a, *b).map_or_else(plain, constant),
        (Op::Add, Const(_), _) => binary(op, right, left),
        (Op::Sub, _, Const(b)) => binary(Op::Add, left, &constant(b.wrapping_neg())),
        (Op::Add | Op::Or | Op::Xor | Op::Shl | Op::Shr | Op::Sar, _, Const(0)) => Rc::clone(left),
        (Op::Or | Op::Xor, Const(0), _) => Rc::clone(right),
        (Op::And | Op::Mul, _, Const(0)) | (Op::And | Op::Mul, Const(0), _) => constant(0),
        (Op::Mul | Op::Div, _, Const(1)) => Rc::clone(left),
        (Op::And, _, Const(number)) if number.checked_add(1).is_some_and(u64::is_power_of_two) => {
            match number.count_ones() {
                8 => truncate(1, left),
                16 => truncate(2, left),
                32 => truncate(4, left),
                _ => plain(),
            }
        }
        (Op::Add, Stack(at), Const(b)) => Rc::new(Stack(at.wrapping_add(b.cast_signed()))),
        (Op::Add, Binary(Op::Add, inner, offset), Const(_)) if is_const(offset) => {
            binary(Op::Add, inner, &binary(Op::Add, offset, right))
        }
        (Op::Sub | Op::Xor, a, b) if a == b => constant(0),
        _ => plain(),
    }
}

fn is_const(value: &Expr) -> bool {
    matches!(value, Expr::Const(_))
}

/// Splits an address into what it is relative to and the offset from there.
pub fn base_and_offset(address: &Value) -> (&Value, i64) {
    if let Expr::Binary(Op::Add, base, offset) = &**address
        && let Expr::Const(offset) = &**offset
    {
        return (base, offset.cast_signed());
    }
    (address, 0)
}

/// Calls `visit` for an expression and everything in it.
pub fn walk(value: &Value, visit: &mut dyn FnMut(&Value)) {
    visit(value);
    let condition = |condition: &Condition, visit: &mut dyn FnMut(&Value)| {
        walk(&condition.left, visit);
        walk(&condition.right, visit);
    };
    match &**value {
        Expr::Load { address: inner, .. } | Expr::Low(_, inner) | Expr::Signed(_, inner) => {
            walk(inner, visit);
        }
        Expr::Insert(_, left, right) | Expr::Binary(_, left, right) => {
            walk(left, visit);
            walk(right, visit);
        }
        Expr::Truth(inner) => condition(inner, visit),
        Expr::Select(inner, left, right) => {
            condition(inner, visit);
            walk(left, visit);
            walk(right, visit);
        }
        Expr::Const(_) | Expr::Arg(_) | Expr::Stack(_) | Expr::Returned(_) | Expr::Opaque(_) => {}
    }
}

/// A value without the truncations around it.
pub fn untruncated(value: &Value) -> &Value {
    match &**value {
        Expr::Low(_, inner) => untruncated(inner),
        _ => value,
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Const(number) if *number < 10 => write!(f, "{number}"),
            Self::Const(number) => write!(f, "{number:#x}"),
            Self::Arg(number) => write!(f, "arg{number}"),
            Self::Stack(offset) => write!(f, "stack[{offset}]"),
            Self::Load { address, width } => write!(f, "u{}[{address}]", u32::from(*width) * 8),
            Self::Low(width, inner) => write!(f, "low{width}({inner})"),
            Self::Signed(width, inner) => write!(f, "signed{width}({inner})"),
            Self::Insert(width, old, new) => write!(f, "insert{width}({old}, {new})"),
            Self::Binary(op, left, right) => write!(f, "{op:?}({left}, {right})"),
            Self::Truth(condition) => write!(f, "({condition})"),
            Self::Select(condition, left, right) => write!(f, "({condition} ? {left} : {right})"),
            Self::Returned(number) => write!(f, "result{number}"),
            Self::Opaque(number) => write!(f, "?{number}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.left, self.relation, self.right)
    }
}
