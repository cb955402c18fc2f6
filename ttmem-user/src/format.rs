//! Numbers as people read them: byte counts, percentages, rates, ages.
//!
//! Invariant: everything is rounded down, so that nothing looks fuller than it is, and 100 % is
//! shown only for what is full. Unknown is [`UNKNOWN`], never 0.

use crate::{
    event::BufferType,
    ledger::{
        call::Call,
        snapshot::{CircularSnapshot, Failure, Headroom, PoolSnapshot, TargetState},
    },
};

/// Stands for a number that is not known.
pub const UNKNOWN: &str = "–";

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A byte count in binary units, rounded down, at most 9 characters: `512 B`, `1.5 GiB`,
/// `1023 KiB` (no decimal from 1000 on).
pub fn bytes(count: u64) -> String {
    let unit = (count | 1).ilog2() / 10;
    let tenths = (u128::from(count) * 10) >> (10 * unit);
    let name = UNITS[unit as usize];
    if unit == 0 || tenths >= 10_000 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// [`bytes`], or [`UNKNOWN`].
pub fn bytes_or_unknown(count: Option<u64>) -> String {
    count.map_or_else(|| UNKNOWN.to_owned(), bytes)
}

/// The highest use of a pool; if it may have been higher, `≥` and what is certain, as in `≥1.5GiB`.
pub fn peak(pool: &PoolSnapshot) -> String {
    let at_least = pool.peak_at_least_bytes.filter(|bytes| *bytes > 0);
    match (pool.peak_used_bytes, at_least) {
        (Some(peak), _) => bytes(peak),
        // As wide as without the sign.
        (None, Some(certain)) => format!("≥{}", bytes(certain).replace(' ', "")),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// The bytes that a text with a binary unit, if with any, says: `4096`, `64K`, `1MiB`, `2g`.
pub fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &*text[digits.len()..].to_ascii_lowercase() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("the units are K, M, G, KiB, MiB, GiB"),
    };
    match digits.parse::<u64>() {
        Ok(number @ 1..) => number.checked_mul(1 << shift).ok_or("less than 16 EiB is possible"),
        _ => Err("a whole number of at least 1 is needed"),
    }
}

/// A change of a byte count with its sign: `+1.5 GiB`, `-512 B`, `0 B`; towards 0 when rounded.
pub fn growth(change: i64) -> String {
    let sign = match change {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", bytes(change.unsigned_abs()))
}

/// A span of time given in nanoseconds, also a very short one: `800ns`, `1.5us`, `12ms`, `3.2s`.
pub fn duration(nanoseconds: u64) -> String {
    let (unit, name) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds}ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => return age(nanoseconds),
    };
    let tenths = nanoseconds / (unit / 10);
    if tenths < 100 {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    } else {
        format!("{}{name}", tenths / 10)
    }
}

/// `part` of `whole` in percent, rounded down to a tenth; `None` if there is no whole.
///
/// At most 6 characters: what is beyond 999.9 % is `>999%`.
pub fn percent(part: u64, whole: u64) -> Option<String> {
    let tenths = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    Some(match tenths {
        0 if part > 0 => "<0.1%".to_owned(),
        10_000.. => ">999%".to_owned(),
        _ => format!("{}.{}%", tenths / 10, tenths % 10),
    })
}

/// So many of what is counted: "1 buffer", "2 buffers".
pub fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A count in at most 6 characters: digits up to 999999, then `1.0M`, `12.3G`, rounded down.
pub fn count(count: u64) -> String {
    let (divisor, suffix) = match count {
        0..1_000_000 => return count.to_string(),
        1_000_000..1_000_000_000 => (100_000, "M"),
        1_000_000_000..1_000_000_000_000 => (100_000_000, "G"),
        _ => (100_000_000_000, "T"),
    };
    let tenths = count / divisor;
    if tenths < 10_000 {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    } else {
        format!(">999{suffix}")
    }
}

/// A rate per second in at most 6 characters: `0`, `0.3`, `1234`, `12.5k`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r < 0.05 => "0".to_owned(),
        r if r < 9.95 => format!("{r:.1}"),
        r if r < 9_999.5 => format!("{r:.0}"),
        r if r < 999_950.0 => format!("{:.1}k", r / 1e3),
        r if r < 999_950_000.0 => format!("{:.1}M", r / 1e6),
        _ => ">999M".to_owned(),
    }
}

/// A span of time given in nanoseconds: `0.3s`, `12s`, `3m05s`, `2h14m`, `3d04h`.
pub fn age(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    match seconds {
        0..10 => format!("{seconds}.{}s", nanoseconds / 100_000_000 % 10),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// `text` on one line: control characters, which could steer a terminal, become spaces.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below 60 %.
    Low,
    /// Below 85 %.
    Raised,
    /// Below 95 %.
    High,
    /// 95 % and more.
    Critical,
}

impl Level {
    /// The level of `part` in `whole`; `None` if there is no whole.
    pub fn of(part: u64, whole: u64) -> Option<Self> {
        let scaled = u128::from(part) * 100;
        let at_least = |percent: u128| scaled >= u128::from(whole) * percent;
        (whole > 0).then(|| match () {
            () if at_least(95) => Self::Critical,
            () if at_least(85) => Self::High,
            () if at_least(60) => Self::Raised,
            () => Self::Low,
        })
    }

    /// The level of a pool; `None` if its use or its capacity is unknown or the latter is 0.
    pub fn of_pool(pool: &PoolSnapshot) -> Option<Self> {
        Self::of(pool.used_bytes?, pool.capacity_bytes?)
    }
}

/// Utilisation of a pool in percent, [`UNKNOWN`] if it cannot be told.
pub fn pool_percent(pool: &PoolSnapshot) -> String {
    let known = pool.used_bytes.zip(pool.capacity_bytes);
    known.and_then(|(used, whole)| percent(used, whole)).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// What the fullest core's circular buffers take of it in percent, [`UNKNOWN`] if it cannot be
/// told.
pub fn circular_percent(circular: &CircularSnapshot) -> String {
    let known = circular.core_bytes.zip(circular.core_capacity_bytes);
    known.and_then(|(used, whole)| percent(used, whole)).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The room between circular buffers and tensors, with its sign; `None` if it is not known.
pub fn headroom(headroom: &Headroom) -> Option<String> {
    let amount = headroom.bytes?;
    let sign = if amount < 0 { "-" } else { "" };
    Some(format!("{sign}{}", bytes(amount.unsigned_abs())))
}

/// Whether a pool gets a row: not if it has no memory and was never used.
pub fn has_row(pool: &PoolSnapshot) -> bool {
    let no_memory = match pool.capacity_bytes {
        Some(capacity) => capacity == 0,
        None => pool.buffer_type == BufferType::SystemMemory,
    };
    !no_memory
        || pool.buffers + pool.allocations + pool.pre_attach_frees > 0
        || pool.peak_used_bytes.max(pool.peak_at_least_bytes) > Some(0)
}

/// What is said in place of pools when there are none.
pub const fn no_device(state: TargetState) -> &'static str {
    match state {
        TargetState::Running => {
            "waiting for the first device: nothing has been opened since the attach"
        }
        TargetState::Exited | TargetState::Replaced => "no device was seen",
    }
}

/// A failed allocation in one line.
pub fn failure(failure: &Failure) -> String {
    let unknown = || UNKNOWN.to_owned();
    let chips = failure.chips.as_ref().map_or_else(unknown, |chips| {
        chips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    });
    let milliseconds = failure.time_ns / 1_000_000;
    let site = failure.call.as_ref().and_then(Call::site);
    format!(
        "no room for {} of {}{} ({} of each of {} banks; {} free, largest block {}), chips {chips}, \
         thread {}, at {}.{:03} s",
        bytes_or_unknown(failure.size),
        failure.buffer_type.map_or(UNKNOWN, BufferType::name),
        site.map(|site| format!(", for {site}")).unwrap_or_default(),
        bytes_or_unknown(failure.bank_bytes),
        failure.banks.map_or_else(unknown, |banks| banks.to_string()),
        bytes_or_unknown(failure.bank_free_bytes),
        bytes_or_unknown(failure.bank_largest_free_bytes),
        failure.tid,
        milliseconds / 1000,
        milliseconds % 1000,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_rounded_down() {
        let shown = [0, 1023, 1024, 1535, 1536, (1 << 20) - 1, 12 << 30, (12 << 30) - 1, u64::MAX];
        let expected = [
            "0 B", "1023 B", "1.0 KiB", "1.4 KiB", "1.5 KiB", "1023 KiB", "12.0 GiB", "11.9 GiB",
            "15.9 EiB",
        ];
        assert_eq!(shown.map(bytes), expected);
    }

    #[test]
    fn percent_is_never_rounded_up() {
        assert_eq!(percent(0, 10).as_deref(), Some("0.0%"));
        assert_eq!(percent(1, 1 << 40).as_deref(), Some("<0.1%"));
        assert_eq!(percent((12 << 30) - 1, 12 << 30).as_deref(), Some("99.9%"));
        assert_eq!(percent(7, 7).as_deref(), Some("100.0%"));
        assert_eq!(percent(11, 10).as_deref(), Some("110.0%"));
        assert_eq!(percent(u64::MAX, 1).as_deref(), Some(">999%"));
        assert_eq!(percent(5, 0), None);
    }

    #[test]
    fn counts_rates_and_ages_are_short() {
        assert_eq!(count(999_999), "999999");
        assert_eq!(count(1_999_999), "1.9M");
        assert_eq!(count(u64::MAX), ">999T");
        let rates = [0.0, 0.04, 0.3, 9.96, 1234.4, 12_500.0, 3.2e6, 1e12];
        let expected = ["0", "0", "0.3", "10", "1234", "12.5k", "3.2M", ">999M"];
        assert_eq!(rates.map(rate), expected);
        let second = 1_000_000_000;
        let ages = [350_000_000, 12 * second, 185 * second, 8_040 * second, 273_600 * second];
        assert_eq!(ages.map(age), ["0.3s", "12s", "3m05s", "2h14m", "3d04h"]);
    }

    #[test]
    fn changes_have_signs_and_short_times_their_unit() {
        assert_eq!([0, 1536, -512].map(growth), ["0 B", "+1.5 KiB", "-512 B"]);
        assert_eq!(growth(i64::MIN), "-8.0 EiB");
        let times = [999, 1_500, 12_345_678, 999_999_999, 3_200_000_000].map(duration);
        assert_eq!(times, ["999ns", "1.5us", "12ms", "999ms", "3.2s"]);
    }

    #[test]
    fn levels_begin_at_their_bounds() {
        let levels = [0, 599, 600, 849, 850, 949, 950, 2000].map(|part| Level::of(part, 1000));
        let expected = [
            Level::Low,
            Level::Low,
            Level::Raised,
            Level::Raised,
            Level::High,
            Level::High,
            Level::Critical,
            Level::Critical,
        ];
        assert_eq!(levels, expected.map(Some));
        assert_eq!(Level::of(1, 0), None);
    }

    #[test]
    fn escape_sequences_do_not_pass() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\u{9b}"), "a [2Jb c ");
    }

    proptest! {
        #[test]
        fn bytes_parse_back_within_the_last_digit(n: u64) {
            let text = bytes(n);
            prop_assert!(text.len() <= 9, "{text}");
            let (number, unit) = text.split_once(' ').unwrap();
            let scale = 1_u128 << (10 * UNITS.iter().position(|u| *u == unit).unwrap());
            let (tenths, digit) = match number.split_once('.') {
                Some((whole, tenth)) => {
                    (whole.parse::<u128>().unwrap() * 10 + tenth.parse::<u128>().unwrap(), 1)
                }
                None => (number.parse::<u128>().unwrap() * 10, 10),
            };
            let exact = u128::from(n) * 10;
            prop_assert!(tenths * scale <= exact, "{text} is more than {n}");
            prop_assert!(exact < (tenths + digit) * scale, "{text} is less than {n}");
        }

        #[test]
        fn what_is_not_full_never_shows_100(whole in 1..u64::MAX, missing in 1_u64..) {
            let part = whole.saturating_sub(missing);
            let text = percent(part, whole).unwrap();
            let number: f64 = text.trim_start_matches('<').trim_end_matches('%').parse().unwrap();
            prop_assert!((0.0..100.0).contains(&number), "{text}");
        }

        #[test]
        fn everything_fits_its_column(n: u64, whole in 1_u64.., r in 0.0..1e12_f64) {
            prop_assert!(count(n).len() <= 6);
            prop_assert!(percent(n, whole).unwrap().len() <= 6);
            prop_assert!(rate(r).len() <= 6);
            prop_assert!(!count(n).starts_with('-') && !rate(r).starts_with('-'));
        }
    }
}
