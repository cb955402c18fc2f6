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
        // Cyan is too near to the blues of the levels.
        let plain = matches!(self.palette, Palette::ColorBlind);
        let style = if plain { Style::new() } else { self.fg(Color::Cyan) };
        style.add_modifier(Modifier::BOLD)
    }
}

#[cfg(test)]
mod tests;
