//! A buffer as the words that a filter looks at.

use crate::{format, history::Row, ledger::call::Site};

/// What a filter looks at. It is made for every row, so without the machinery of formatting where
/// there is much of it.
pub fn describe(row: &Row<'_>, is_new: bool, site: Option<&Site>, text: &mut String) {
    text.clear();
    push_bytes(row.size, text);
    text.push(' ');
    text.push_str(row.buffer_type.name());
    text.push_str(" 0x");
    push(row.address.0, 16, text);
    for chip in row.chips.iter().take(MOST_CHIPS) {
        text.push_str(" chip");
        push(u64::from(chip.0.unsigned_abs()), 10, text);
    }
    if let Some(tid) = row.tid {
        text.push(' ');
        push(tid.0.into(), 10, text);
    }
    if row.pre_attach {
        text.push_str(" before");
    }
    if is_new {
        text.push_str(" new");
    }
    if let Some(id) = row.unique_id {
        text.push_str(" id");
        push(id, 10, text);
    }
    if let Some(site) = site {
        text.push(' ');
        text.push_str(&site.name);
    }
}

/// Chips of a buffer that a filter looks at.
const MOST_CHIPS: usize = 64;

/// Appends a byte count as [`format::bytes`] writes it.
fn push_bytes(count: u64, text: &mut String) {
    let Some(unit @ 1..=3) = count.checked_ilog2().map(|log| log / 10) else {
        return text.push_str(&format::bytes(count));
    };
    // Below 1 TiB, ten times as much fits.
    let tenths = (count * 10) >> (10 * unit);
    push(tenths / 10, 10, text);
    if tenths < 10_000 {
        text.push('.');
        push(tenths % 10, 10, text);
    }
    text.push_str([" KiB", " MiB", " GiB"][unit as usize - 1]);
}

/// Appends a number; `base` is at most 16.
fn push(number: u64, base: u64, text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut rest = number;
    loop {
        first -= 1;
        digits[first] = DIGITS[usize::try_from(rest % base).unwrap_or(0)];
        rest /= base;
        if rest == 0 {
            break;
        }
    }
    text.extend(digits[first..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{push, push_bytes};
    use crate::format;

    proptest! {
        #[test]
        fn numbers_are_written_as_usual(number: u64) {
            let mut text = String::new();
            push(number, 10, &mut text);
            push(number, 16, &mut text);
            prop_assert_eq!(&text, &format!("{number}{number:x}"));
            for shift in 0..64 {
                text.clear();
                push_bytes(number >> shift, &mut text);
                prop_assert_eq!(&text, &format::bytes(number >> shift));
            }
        }
    }
}
