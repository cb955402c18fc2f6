//! How much of everything is measured: enough, or as little as shows that it works.

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// `--quick`: figures are only indications then.
    pub quick: bool,
    /// Rounds of short samples.
    pub rounds: usize,
    /// Rounds of samples that take a tenth of a second and more.
    pub long_rounds: usize,
    /// Divides what is done for one sample.
    pub fraction: u64,
    /// For how long the use of a processor is looked at, in seconds.
    pub watch_seconds: u64,
}

impl Plan {
    /// The sizes.
    pub fn new(quick: bool) -> Self {
        if quick {
            Self { quick, rounds: 3, long_rounds: 1, fraction: 10, watch_seconds: 1 }
        } else {
            Self { quick, rounds: 15, long_rounds: 9, fraction: 1, watch_seconds: 5 }
        }
    }

    /// That many, or fewer in a quick run.
    pub fn some(&self, many: u64) -> u64 {
        (many / self.fraction).max(1)
    }
}
