//! Which number is which in the message of a failed allocation.
//!
//! The text of the message says it: "allocated: {} B" is followed by what is allocated. The mangled
//! name of the throwing function says of which type the arguments are.
//!
//! Invariant: a field is known only if exactly one placeholder is it, and its type is the right one.

use ttmem_common::failure::{FAILURE_FIELDS, FailureField};

use crate::resolve::field::Refusal;

/// How the text of every message of a failed allocation begins.
pub const START: &str = "Out of Memory: Not enough space";

/// How the throwing function's name begins, up to the types of its arguments.
pub const THROW: [&str; 2] = ["_ZN2tt6assert6detail8tt_throwIJ", "_ZN2tt6assert8tt_throwIJ"];

/// What comes after the types.
const REST: &str = "EEEvPKci";
const STRING_VIEW: &str = "St17basic_string_viewIcSt11char_traitsIcEE";
/// More than any message has.
const MAX_ARGUMENTS: usize = 40;

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `unsigned long`.
    Long,
    /// `unsigned int`.
    Int,
    /// `std::string_view`.
    Text,
}

impl Kind {
    const fn width(self) -> u8 {
        match self {
            Self::Long => 8,
            Self::Int => 4,
            Self::Text => 16,
        }
    }
}

/// A field: its name, what comes before and after it in each wording, and its type.
type Wording = (FailureField, &'static str, &'static [(&'static str, &'static str)], Kind);

const FIELDS: [Wording; FAILURE_FIELDS] = [
    (FailureField::Size, "size", &[(" to allocate ", " B ")], Kind::Long),
    (FailureField::Type, "type", &[(" B ", " buffer across "), (" B ", " across ")], Kind::Text),
    (FailureField::Banks, "banks", &[(" across ", " banks")], Kind::Int),
    (
        FailureField::BankBytes,
        "bytes per bank",
        &[(" bank needs to store ", " B"), (" banks (", " B per bank)")],
        Kind::Long,
    ),
    (FailureField::BankSize, "bank size", &[(" bank size is ", " B")], Kind::Long),
    (FailureField::Allocated, "allocated", &[("(allocated: ", " B")], Kind::Long),
    (FailureField::Free, "free", &[(", free: ", " B")], Kind::Long),
    (
        FailureField::LargestFree,
        "largest free block",
        &[("largest free block: ", " B")],
        Kind::Long,
    ),
];

/// Where the fields of a message are among the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// By [`FailureField`]: index among the message's arguments.
    pub index: [Option<u8>; FAILURE_FIELDS],
    /// By [`FailureField`]: bytes.
    pub width: [u8; FAILURE_FIELDS],
}

impl Places {
    /// The names of the fields that the message has.
    pub fn names(&self) -> String {
        let known = FIELDS.iter().zip(self.index).filter(|(_, index)| index.is_some());
        known.map(|(field, _)| field.1).collect::<Vec<_>>().join(", ")
    }
}

/// The types of the message's arguments; those from the first unknown type on are left out.
/// `None`: that is no throwing function.
pub fn kinds(mangled: &str) -> Option<Vec<Kind>> {
    let mut rest = THROW.iter().find_map(|start| mangled.strip_prefix(start))?;
    let mut kinds = Vec::new();
    while !rest.starts_with(REST) && kinds.len() < MAX_ARGUMENTS {
        let known = [("m", Kind::Long), ("j", Kind::Int), (STRING_VIEW, Kind::Text)];
        let next = known.iter().find_map(|(name, kind)| Some((rest.strip_prefix(name)?, *kind)));
        let Some((after, kind)) = next else { break };
        kinds.push(kind);
        rest = after;
    }
    Some(kinds)
}

/// Finds the fields in the text of a message; `kinds` are the types of its arguments.
pub fn places(text: &str, kinds: &[Kind]) -> Result<Places, Refusal> {
    let pieces: Vec<&str> = text.split("{}").collect();
    // A placeholder of another form would make the count wrong.
    if pieces.iter().any(|piece| piece.contains(['{', '}'])) {
        return Err(format!("the message {text:?} has placeholders that are not {{}}"));
    }
    let mut places = Places { index: [None; FAILURE_FIELDS], width: [0; FAILURE_FIELDS] };
    for (field, name, wordings, kind) in FIELDS {
        let fits = |(_, pair): &(usize, &[&str])| {
            let [before, after] = **pair else { return false };
            wordings.iter().any(|(end, start)| before.ends_with(end) && after.starts_with(start))
        };
        let mut found = pieces.windows(2).enumerate().filter(fits).map(|(index, _)| index);
        let Some(index) = found.next() else { continue };
        if found.next().is_some() {
            return Err(format!("the message {text:?} says its {name} twice"));
        }
        if kinds.get(index) != Some(&kind) {
            return Err(format!("the {name} of the message {text:?} is of an unexpected type"));
        }
        let field = field as usize;
        places.index[field] = u8::try_from(index).ok();
        places.width[field] = kind.width();
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 0.81.1.
    const NAME: &str = "_ZN2tt6assert6detail8tt_throwIJmSt17basic_string_viewIcSt11char_traitsIcEEjmmmmmNSt7\
        __cxx1112basic_stringIcS5_SaIcEEEEEEvPKciSC_SC_N3fmt3v117fstringIJDpRKT_EE1tESJ_";
    const TEXT: &str = "Out of Memory: Not enough space to allocate {} B {} buffer across {} banks, where each \
        bank needs to store {} B, but bank size is {} B (allocated: {} B, free: {} B, largest free block: {} B).{}";
    /// 0.62.2.
    const OLD_NAME: &str = "_ZN2tt6assert8tt_throwIJmSt17basic_string_viewIcSt11char_traitsIcEEjmEEEvPKciS7_S7_N3fmt3v11\
        7fstringIJDpRKT_EE1tESE_";
    const OLD_TEXT: &str = "Out of Memory: Not enough space to allocate {} B {} buffer across {} banks, where each bank \
        needs to store {} B";
    /// 0.79.0.
    const DEPENDENT: &str = "Out of Memory: Not enough space after considering dependencies to allocate {} B {} across {} \
        banks ({} B per bank), bank size is {} B (allocated: {} B, free: {} B, largest free block: {} B). After subtracting \
        {} dependency range(s) and {} additional occupied range(s), {} B remained placeable across {} window(s), largest {} B";

    fn all() -> [Option<u8>; FAILURE_FIELDS] {
        [Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7)]
    }

    #[test]
    fn the_text_says_which_is_which() {
        use Kind::{Int, Long, Text};
        let kinds_81 = [Long, Text, Int, Long, Long, Long, Long, Long];
        assert_eq!(kinds(NAME).unwrap(), kinds_81);
        let places = places(TEXT, &kinds_81).unwrap();
        assert_eq!(places.index, all());
        assert_eq!(places.width, [8, 16, 4, 8, 8, 8, 8, 8]);
        assert!(places.names().starts_with("size, type, banks, bytes per bank"));
    }

    #[test]
    fn other_versions_say_less_or_more() {
        let old = places(OLD_TEXT, &kinds(OLD_NAME).unwrap()).unwrap();
        assert_eq!(old.index, [Some(0), Some(1), Some(2), Some(3), None, None, None, None]);
        let mut kinds = kinds(NAME).unwrap();
        kinds.extend([Kind::Long; 5]);
        assert_eq!(places(DEPENDENT, &kinds).unwrap().index, all());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let kinds = kinds(NAME).unwrap();
        for (text, why) in [
            (TEXT.replace(" to allocate {}", " to allocate {:x}"), "not {}"),
            (TEXT.replace("{} banks", "{} banks, free: {} B, free: {} B"), "twice"),
            (TEXT.replace("space to", "space in {} to"), "unexpected type"),
        ] {
            assert!(places(&text, &kinds).unwrap_err().contains(why), "{text}");
        }
        assert!(places(TEXT, &kinds[..7]).is_err());
        assert_eq!(super::kinds("_ZN2tt6assert6other"), None);
        // int is no size; what follows an unknown type has no known place.
        assert_eq!(super::kinds("_ZN2tt6assert8tt_throwIJmijEEEvPKci").unwrap(), [Kind::Long]);
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[a-z:({} B]{0,200}", name in "[mjSNE]{0,80}") {
            let kinds = kinds(&format!("{}{name}", THROW[0])).unwrap();
            let _ = places(&text, &kinds);
        }
    }
}
