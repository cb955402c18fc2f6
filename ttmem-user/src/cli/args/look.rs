//! How the live view looks.

use clap::{Args, ValueEnum};

use crate::tui::{Palette, Theme};

/// How the live view looks.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct LookArgs {
    /// Draw the live view with ASCII characters only.
    #[arg(long)]
    pub ascii: bool,
    /// Colours of the live view [default: usual; none if NO_COLOR is set].
    #[arg(long, value_enum, value_name = "THEME")]
    pub theme: Option<ThemeName>,
}

/// A choice of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ThemeName {
    /// Green, yellow, orange, red.
    Usual,
    /// Blues and oranges that do not need red and green told apart.
    Colorblind,
    /// No colours.
    None,
}

impl LookArgs {
    /// The theme that they mean.
    pub fn theme(self) -> Theme {
        let palette = self.theme.map(|name| match name {
            ThemeName::Usual => Palette::Usual,
            ThemeName::Colorblind => Palette::ColorBlind,
            ThemeName::None => Palette::Plain,
        });
        Theme::chosen(palette, self.ascii)
    }
}
