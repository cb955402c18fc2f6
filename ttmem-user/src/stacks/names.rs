//! Mangled names as people read them.

use cpp_demangle::{DemangleNodeType, DemangleOptions, DemangleWrite, ParseOptions, Symbol};

/// Names longer than this are cut off, and marked so.
const LONGEST: usize = 2048;
/// How deep a name may be nested: each level takes some of the thread's stack.
const DEEPEST: u32 = 96;

/// A function's name: demangled, without its parameters and what it returns.
pub fn demangled(name: &[u8]) -> String {
    let plain = || shortened(&String::from_utf8_lossy(name));
    let options = ParseOptions::default().recursion_limit(DEEPEST);
    let Ok(symbol) = Symbol::new_with_options(name, &options) else { return plain() };
    let options = DemangleOptions::new().no_params().no_return_type().recursion_limit(DEEPEST);
    let mut out = Bounded::default();
    match symbol.structured_demangle(&mut out, &options) {
        Ok(()) => out.text,
        Err(_) if out.is_full => out.text + "…",
        Err(_) => plain(),
    }
}

/// A name without what is between `<` and `>`.
pub fn without_arguments(name: &str) -> String {
    /// What opens or closes nothing after `operator`; the longest that fits.
    const SIGNS: [&str; 11] = ["->*", "<=>", "<<=", ">>=", "->", "<<", ">>", "<=", ">=", "<", ">"];
    let mut short = String::with_capacity(name.len().min(256));
    let mut depth = 0_usize;
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("operator") {
            let sign = SIGNS.into_iter().find(|sign| after.starts_with(sign)).unwrap_or_default();
            let (operator, after) = rest.split_at("operator".len() + sign.len());
            short.push_str(if depth == 0 { operator } else { "" });
            rest = after;
            continue;
        }
        match next {
            '<' => {
                short.push_str(if depth == 0 { "<…>" } else { "" });
                depth += 1;
            }
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => short.push(next),
            _ => {}
        }
        rest = &rest[next.len_utf8()..];
    }
    short
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// A text that does not grow beyond all bounds: a short name can stand for a very long one.
#[derive(Default)]
struct Bounded {
    text: String,
    is_full: bool,
}

impl DemangleWrite for Bounded {
    fn push_demangle_node(&mut self, _: DemangleNodeType) {}

    fn write_string(&mut self, text: &str) -> std::fmt::Result {
        let room = LONGEST - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        self.is_full = true;
        Err(std::fmt::Error)
    }

    fn pop_demangle_node(&mut self) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_demangled_without_parameters() {
        let name = demangled(b"_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE");
        assert_eq!(name, "tt::tt_metal::GraphTracker::track_allocate");
        assert_eq!(demangled(b"main"), "main");
        assert_eq!(demangled(b"_Znwm"), "operator new");
        assert_eq!(demangled(b"_Z"), "_Z", "what cannot be demangled stays");
        let cold = demangled(b"_ZN3foo3barEv.cold");
        assert!(cold.starts_with("foo::bar"), "{cold}");
    }

    #[test]
    fn what_a_template_is_made_for_can_be_left_out() {
        let short = |name| without_arguments(name);
        assert_eq!(short("a::b<c<d>, e>::f<g>"), "a::b<…>::f<…>");
        assert_eq!(short("a::operator<"), "a::operator<");
        assert_eq!(short("operator<<<a>::x"), "operator<<<…>::x");
        assert_eq!(short("a<operator-> >::operator-><b>"), "a<…>::operator-><…>");
        assert_eq!(short("plain"), "plain");
    }

    #[test]
    fn a_long_name_is_cut_off() {
        // Each substitution doubles what comes before.
        let mut name = "_Z1fI1aE".to_owned();
        let doubled: String = (0..12).map(|_| "S_S_").collect();
        name.push_str(&doubled);
        assert!(demangled(name.as_bytes()).chars().count() <= LONGEST + 1);
        let long = demangled("x".repeat(5000).as_bytes());
        assert_eq!(long.chars().count(), LONGEST + 1);
        assert!(long.ends_with('…'));
    }

    proptest! {
        #[test]
        fn any_name_is_bounded(name in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mangled = [b"_Z", &*name].concat();
            for name in [&name, &mangled] {
                let text = demangled(name);
                prop_assert!(text.chars().count() <= LONGEST + 1);
                let _ = without_arguments(&text);
            }
        }
    }
}
