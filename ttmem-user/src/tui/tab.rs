//! The views, and the bar that names them.

use ratatui::layout::Rect;

/// A view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tab {
    /// Each chip, each of its pools, how full.
    #[default]
    Overview,
    /// The live set.
    Buffers,
    /// A bank, address by address.
    Map,
    /// What programs keep in L1.
    Circular,
    /// Use over time.
    Timeline,
    /// Sizes, lifetimes, threads.
    Histograms,
    /// Failed allocations.
    Failures,
    /// What came and went last.
    Events,
    /// How far ttmem itself can be believed, and what it costs.
    Health,
}

impl Tab {
    /// Every view, in the order of their keys.
    pub const ALL: [Self; 9] = [
        Self::Overview,
        Self::Buffers,
        Self::Map,
        Self::Circular,
        Self::Timeline,
        Self::Histograms,
        Self::Failures,
        Self::Events,
        Self::Health,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Buffers => "Buffers",
            Self::Map => "Map",
            Self::Circular => "CB/L1",
            Self::Timeline => "Timeline",
            Self::Histograms => "Histograms",
            Self::Failures => "Failures",
            Self::Events => "Events",
            Self::Health => "Health",
        }
    }

    /// Its name where there is little room.
    const fn short(self) -> &'static str {
        match self {
            Self::Overview => "Over",
            Self::Buffers => "Buf",
            Self::Map => "Map",
            Self::Circular => "L1",
            Self::Timeline => "Time",
            Self::Histograms => "Hist",
            Self::Failures => "Fail",
            Self::Events => "Event",
            Self::Health => "Health",
        }
    }

    /// The view `steps` further on; after the last comes the first.
    #[must_use]
    pub fn after(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }

    /// The labels of all views, as they fit into `width` columns.
    pub fn labels(self, width: u16) -> [String; 9] {
        let full = Self::ALL.map(|tab| format!(" {} {} ", tab as usize + 1, tab.name()));
        let short = Self::ALL.map(|tab| format!(" {} {} ", tab as usize + 1, tab.short()));
        let tight = Self::ALL.map(|tab| {
            if tab == self {
                format!("{} {} ", tab as usize + 1, tab.short())
            } else {
                format!("{} ", tab as usize + 1)
            }
        });
        let fits = |labels: &[String; 9]| {
            labels.iter().map(String::len).sum::<usize>() <= usize::from(width)
        };
        if fits(&full) {
            full
        } else if fits(&short) {
            short
        } else {
            tight
        }
    }

    /// The view whose label is at `column` of a bar in `area`.
    pub fn at(self, area: Rect, column: u16) -> Option<Self> {
        let mut left = usize::from(column.checked_sub(area.x)?);
        for (tab, label) in Self::ALL.into_iter().zip(self.labels(area.width)) {
            left = match left.checked_sub(label.len()) {
                Some(rest) => rest,
                None => return Some(tab),
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_and_are_where_they_are_clicked() {
        for width in 0..200 {
            for tab in Tab::ALL {
                let labels = tab.labels(width);
                let total: usize = labels.iter().map(String::len).sum();
                assert!(width < 40 || total <= usize::from(width), "{width} {labels:?}");
                let area = Rect { x: 0, y: 2, width, height: 1 };
                let mut column = 0;
                for (other, label) in Tab::ALL.into_iter().zip(&labels) {
                    assert_eq!(tab.at(area, column), Some(other));
                    column += u16::try_from(label.len()).unwrap();
                }
                assert_eq!(tab.at(area, column), None);
            }
        }
    }

    #[test]
    fn after_the_last_comes_the_first() {
        assert_eq!(Tab::Health.after(1), Tab::Overview);
        assert_eq!(Tab::Overview.after(8), Tab::Health);
    }
}
