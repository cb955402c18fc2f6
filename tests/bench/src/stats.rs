//! Medians, quantiles and ratios of a few samples.
//!
//! Nothing is assumed of how samples are distributed: times on a shared machine have long tails,
//! so there are no means and no standard deviations here.

use serde::{Deserialize, Serialize};

/// What several rounds came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle sample.
    pub median: f64,
    /// A tenth of the samples is below.
    pub p10: f64,
    /// A tenth of the samples is above.
    pub p90: f64,
    /// The median of all rounds that could be made is above this, and below `high`: 95 % sure from
    /// six rounds on; with fewer it is the whole range, and less sure.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

impl Spread {
    /// Of the samples in any order; `None` without a sample, or with one that is no number.
    pub fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let outside = outside_the_interval(sorted.len());
        Some(Self {
            median: quantile(&sorted, 0.5),
            p10: quantile(&sorted, 0.1),
            p90: quantile(&sorted, 0.9),
            low: sorted[outside],
            high: sorted[sorted.len() - 1 - outside],
        })
    }

    /// Each number by another.
    #[must_use]
    pub fn map(self, by: impl Fn(f64) -> f64) -> Self {
        Self {
            median: by(self.median),
            p10: by(self.p10),
            p90: by(self.p90),
            low: by(self.low),
            high: by(self.high),
        }
    }
}

/// The value below which `part` of the sorted samples lie, between two samples by a straight line.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(clippy::cast_precision_loss, reason = "a count of rounds")]
    let place = part.clamp(0.0, 1.0) * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// How many samples at each end may be left out so that the rest still holds the true median with
/// 95 %: each sample is above it or below it by the toss of a coin.
fn outside_the_interval(samples: usize) -> usize {
    // Probability that at most `outside` of the samples are below the median.
    let mut term = 0.5_f64.powi(i32::try_from(samples).unwrap_or(i32::MAX));
    let (mut tail, mut outside) = (term, 0);
    loop {
        #[expect(clippy::cast_precision_loss, reason = "a count of rounds")]
        let factor = (samples - outside) as f64 / (outside + 1) as f64;
        term *= factor;
        tail += term;
        if tail > 0.025 || outside + 1 >= samples.div_ceil(2) {
            return outside;
        }
        outside += 1;
    }
}

/// Sample by sample of the same round, `samples` over `baseline`; rounds in which either is
/// missing, or the baseline is not above 0, are left out.
pub fn ratios(samples: &[f64], baseline: &[f64]) -> Vec<f64> {
    samples.iter().zip(baseline).filter(|(_, under)| **under > 0.0).map(|(a, b)| a / b).collect()
}

/// Sample by sample of the same round, `samples` less `baseline`.
pub fn differences(samples: &[f64], baseline: &[f64]) -> Vec<f64> {
    samples.iter().zip(baseline).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
#[path = "stats/tests.rs"]
mod tests;
