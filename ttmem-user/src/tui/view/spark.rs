//! A trend in a few characters.

const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `width` of `values`, each as high as it is between the least and the most of them.
pub fn line(values: &[u64], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let (least, most) =
        (shown.iter().copied().min().unwrap_or(0), shown.iter().copied().max().unwrap_or(0));
    let step = |value: u64| {
        let scaled = u128::from(value - least) * 7;
        let step = scaled.checked_div(u128::from(most - least)).unwrap_or(0);
        STEPS[usize::try_from(step).unwrap_or(7).min(7)]
    };
    let trend: String = shown.iter().map(|value| step(*value)).collect();
    format!("{trend:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_low_and_the_most_is_high() {
        assert_eq!(line(&[], 3), "   ");
        assert_eq!(line(&[5, 5], 4), "  ▁▁");
        assert_eq!(line(&[9, 0, u64::MAX, u64::MAX / 2], 3), "▁█▄");
    }
}
