//! Colours and attributes by meaning.
//!
//! Nothing is said by colour alone: what is critical also carries a `!`, what is bad is bold.

use ratatui::style::{Color, Modifier, Style};

use crate::format::Level;

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    colored: bool,
}

impl Theme {
    /// With colours.
    pub const fn colored() -> Self {
        Self { colored: true }
    }

    /// Without colours, for terminals and people that want none.
    pub const fn plain() -> Self {
        Self { colored: false }
    }

    /// [`Self::plain`] if the environment variable `NO_COLOR` is set and not empty
    /// (<https://no-color.org>).
    pub fn from_env() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colored: !no_color }
    }

    const fn fg(self, color: Color) -> Style {
        if self.colored { Style::new().fg(color) } else { Style::new() }
    }

    /// Of a bar and its percentage.
    pub const fn level(self, level: Option<Level>) -> Style {
        match level {
            None => Style::new(),
            Some(Level::Low) => self.fg(Color::Green),
            Some(Level::Raised) => self.fg(Color::Yellow),
            Some(Level::High) => self.fg(Color::Indexed(208)),
            Some(Level::Critical) => self.fg(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// Good news.
    pub const fn good(self) -> Style {
        self.fg(Color::Green)
    }

    /// Worth a look.
    pub const fn warn(self) -> Style {
        self.fg(Color::Yellow)
    }

    /// Bad news.
    pub const fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Names and headings.
    pub const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What should not draw the eye.
    pub const fn dim(self) -> Style {
        self.fg(Color::DarkGray).add_modifier(if self.colored {
            Modifier::empty()
        } else {
            Modifier::DIM
        })
    }

    /// A state that must not be missed.
    pub const fn reversed(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED).add_modifier(Modifier::BOLD)
    }

    /// Keys to press.
    pub const fn key(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_has_no_colour_at_all() {
        let theme = Theme::plain();
        let levels = [None, Some(Level::Low), Some(Level::High), Some(Level::Critical)];
        let mut styles = levels.map(|level| theme.level(level)).to_vec();
        styles.extend([theme.good(), theme.warn(), theme.bad(), theme.strong(), theme.dim()]);
        styles.extend([theme.reversed(), theme.key()]);
        assert!(styles.iter().all(|style| style.fg.is_none() && style.bg.is_none()));
    }

    #[test]
    fn each_level_has_its_colour() {
        let levels = [Level::Low, Level::Raised, Level::High, Level::Critical];
        let colors = levels.map(|level| Theme::colored().level(Some(level)).fg.unwrap());
        assert_eq!(colors, [Color::Green, Color::Yellow, Color::Indexed(208), Color::Red]);
    }
}
