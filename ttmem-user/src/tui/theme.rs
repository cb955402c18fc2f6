//! Colours and attributes by meaning.
//!
//! Nothing is said by colour alone: what is critical also carries a `!`, what is bad is bold.

use ratatui::style::{Color, Modifier, Style};

use crate::format::Level;

/// Which colours there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Palette {
    /// Green, yellow, orange, red.
    #[default]
    Usual,
    /// Blues and oranges that people who do not tell red from green tell apart.
    ColorBlind,
    /// None at all.
    Plain,
}

impl Palette {
    /// Every palette, in the order in which a key goes through them.
    pub const ALL: [Self; 3] = [Self::Usual, Self::ColorBlind, Self::Plain];

    /// Colours of the levels, the least first.
    const fn levels(self) -> [Color; 4] {
        match self {
            Self::Usual => [Color::Green, Color::Yellow, Color::Indexed(208), Color::Red],
            // After Okabe and Ito: sky blue, blue, orange, vermilion, as near as 256 colours come.
            Self::ColorBlind => {
                [Color::Indexed(117), Color::Indexed(33), Color::Indexed(220), Color::Indexed(202)]
            }
            Self::Plain => [Color::Reset; 4],
        }
    }
}

/// How things look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Theme {
    palette: Palette,
    /// Whether all characters are ASCII.
    pub ascii: bool,
}

impl Theme {
    /// With these colours.
    pub const fn new(palette: Palette, ascii: bool) -> Self {
        Self { palette, ascii }
    }

    /// With colours.
    pub const fn colored() -> Self {
        Self::new(Palette::Usual, false)
    }

    /// Without colours, for terminals and people that want none.
    pub const fn plain() -> Self {
        Self::new(Palette::Plain, false)
    }

    /// With the colours that were asked for; if none were, [`Palette::Plain`] if the environment
    /// variable `NO_COLOR` is set and not empty (<https://no-color.org>).
    pub fn chosen(palette: Option<Palette>, ascii: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let usual = if no_color { Palette::Plain } else { Palette::Usual };
        Self::new(palette.unwrap_or(usual), ascii)
    }

    /// With the next palette.
    #[must_use]
    pub fn next(self) -> Self {
        let place = Palette::ALL.iter().position(|palette| *palette == self.palette).unwrap_or(0);
        Self { palette: Palette::ALL[(place + 1) % Palette::ALL.len()], ..self }
    }

    const fn is_colored(self) -> bool {
        !matches!(self.palette, Palette::Plain)
    }

    const fn fg(self, color: Color) -> Style {
        if self.is_colored() { Style::new().fg(color) } else { Style::new() }
    }

    /// Of a bar and its percentage.
    pub const fn level(self, level: Option<Level>) -> Style {
        let [low, raised, high, critical] = self.palette.levels();
        match level {
            None => Style::new(),
            Some(Level::Low) => self.fg(low),
            Some(Level::Raised) => self.fg(raised),
            Some(Level::High) => self.fg(high),
            Some(Level::Critical) => self.fg(critical).add_modifier(Modifier::BOLD),
        }
    }

    /// Good news.
    pub const fn good(self) -> Style {
        self.level(Some(Level::Low))
    }

    /// Worth a look.
    pub const fn warn(self) -> Style {
        let [_, raised, high, _] = self.palette.levels();
        // Blue is no warning.
        self.fg(if matches!(self.palette, Palette::ColorBlind) { high } else { raised })
    }

    /// Bad news.
    pub const fn bad(self) -> Style {
        self.level(Some(Level::Critical))
    }

    /// Names and headings.
    pub const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What should not draw the eye.
    pub const fn dim(self) -> Style {
        self.fg(Color::DarkGray).add_modifier(if self.is_colored() {
            Modifier::empty()
        } else {
            Modifier::DIM
        })
    }

    /// A state that must not be missed, and where the cursor is.
    pub const fn reversed(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED).add_modifier(Modifier::BOLD)
    }

    /// The row with the cursor.
    pub const fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Keys to press.
    pub const fn key(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [Level; 4] = [Level::Low, Level::Raised, Level::High, Level::Critical];

    #[test]
    fn plain_has_no_colour_at_all() {
        let theme = Theme::plain();
        let mut styles = LEVELS.map(|level| theme.level(Some(level))).to_vec();
        styles.extend([theme.good(), theme.warn(), theme.bad(), theme.strong(), theme.dim()]);
        styles.extend([theme.reversed(), theme.key(), theme.cursor()]);
        assert!(styles.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
    }

    #[test]
    fn each_level_has_its_colour() {
        let colors = LEVELS.map(|level| Theme::colored().level(Some(level)).fg.unwrap());
        assert_eq!(colors, [Color::Green, Color::Yellow, Color::Indexed(208), Color::Red]);
    }

    #[test]
    fn a_key_goes_through_all_palettes() {
        let start = Theme::colored();
        let mut theme = start;
        for _ in Palette::ALL {
            theme = theme.next();
        }
        assert_eq!(theme, start);
        assert_ne!(theme.next(), start);
    }

    /// A colour of the cube of 6 × 6 × 6, in linear light.
    fn linear(color: Color) -> [f64; 3] {
        let Color::Indexed(index) = color else { panic!("{color:?}") };
        let cube = index.checked_sub(16).unwrap();
        [cube / 36, cube / 6 % 6, cube % 6].map(|step| {
            let level = if step == 0 { 0.0 } else { f64::from(55 + 40 * step) / 255.0 };
            level.powf(2.2)
        })
    }

    /// As it is seen without one kind of cones (Viénot, Brettel, Mollon 1999; tritanopia after
    /// Machado 2009).
    fn seen([red, green, blue]: [f64; 3], kind: usize) -> [f64; 3] {
        let apply = |rows: [[f64; 3]; 3]| {
            rows.map(|[r, g, b]| (r * red + g * green + b * blue).clamp(0.0, 1.0))
        };
        match kind {
            0 => apply([[0.112, 0.888, 0.0], [0.112, 0.888, 0.0], [0.004, -0.004, 1.0]]),
            1 => apply([[0.293, 0.707, 0.0], [0.293, 0.707, 0.0], [-0.021, 0.021, 1.0]]),
            _ => apply([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
        }
    }

    #[test]
    fn without_any_kind_of_cones_neighbouring_levels_differ() {
        let colors = Palette::ColorBlind.levels();
        for kind in 0..3 {
            for (at, one) in colors.iter().enumerate() {
                for other in &colors[at + 1..] {
                    let (one, other) = (seen(linear(*one), kind), seen(linear(*other), kind));
                    let distance: f64 = one
                        .iter()
                        .zip(other)
                        .map(|(a, b)| (a.powf(1.0 / 2.2) - b.powf(1.0 / 2.2)).powi(2))
                        .sum::<f64>()
                        .sqrt();
                    assert!(distance > 0.25, "{kind}: {one:?} {other:?} {distance}");
                }
            }
        }
    }
}
