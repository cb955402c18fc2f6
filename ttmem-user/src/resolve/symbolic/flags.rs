//! What the last instruction that set the processor's flags compared.
//!
//! Only the flags that follow from the kept values are answered; the others are `None`, and the
//! caller makes the condition opaque.

use iced_x86::ConditionCode;

use super::expr::{Condition, Relation, Value, constant};

/// The origin of the flags.
#[derive(Clone, Debug)]
pub enum Flags {
    /// A subtraction: every condition follows.
    Compare(Value, Value, u8),
    /// A bitwise result: carry and overflow are clear.
    Logic(Value, u8),
    /// Another result: only zero and sign follow.
    Result(Value, u8),
    /// A single bit: carry is that bit, 0 or 1.
    Bit(Value),
    /// Nothing is known.
    Unknown,
}

/// The relation of a subtraction's operands that a condition code stands for.
const fn relation(code: ConditionCode) -> Option<Relation> {
    Some(match code {
        ConditionCode::e => Relation::Equal,
        ConditionCode::ne => Relation::NotEqual,
        ConditionCode::b => Relation::Below,
        ConditionCode::be => Relation::BelowEqual,
        ConditionCode::a => Relation::Above,
        ConditionCode::ae => Relation::AboveEqual,
        ConditionCode::l => Relation::Less,
        ConditionCode::le => Relation::LessEqual,
        ConditionCode::g => Relation::Greater,
        ConditionCode::ge => Relation::GreaterEqual,
        _ => return None,
    })
}

/// The relation of a result to 0 that a condition code stands for.
const fn relation_to_zero(code: ConditionCode, is_logic: bool) -> Option<Relation> {
    Some(match code {
        ConditionCode::e => Relation::Equal,
        ConditionCode::ne => Relation::NotEqual,
        ConditionCode::s => Relation::Less,
        ConditionCode::ns => Relation::GreaterEqual,
        // With carry and overflow clear, comparing with 0 is what a subtraction of 0 would say.
        _ if is_logic => return relation(code),
        _ => return None,
    })
}

impl Flags {
    /// The condition that a condition code stands for, if it follows from what is kept.
    pub fn condition(&self, code: ConditionCode) -> Option<Condition> {
        let zero = constant(0);
        match self {
            Self::Compare(left, right, width) => {
                Some(Condition::new(relation(code)?, left, right, *width))
            }
            Self::Logic(value, width) => {
                Some(Condition::new(relation_to_zero(code, true)?, value, &zero, *width))
            }
            Self::Result(value, width) => {
                Some(Condition::new(relation_to_zero(code, false)?, value, &zero, *width))
            }
            Self::Bit(bit) => {
                let relation = match code {
                    ConditionCode::b => Relation::NotEqual,
                    ConditionCode::ae => Relation::Equal,
                    _ => return None,
                };
                Some(Condition::new(relation, bit, &zero, 8))
            }
            Self::Unknown => None,
        }
    }
}
