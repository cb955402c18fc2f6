//! What is being typed.

use super::Action;

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To filter the rows.
    Filter,
    /// To be told whether it fits.
    Fit,
}

/// Characters that are kept at most.
const MAX: usize = 200;

/// A line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What for.
    pub purpose: Purpose,
    /// What is there so far.
    pub text: String,
}

impl Prompt {
    /// Takes in a request; `false`: it is none that types.
    pub fn update(&mut self, action: Action) -> bool {
        match action {
            Action::Type(character) if self.text.chars().count() < MAX => self.text.push(character),
            Action::Type(_) => {}
            Action::Erase => _ = self.text.pop(),
            _ => return false,
        }
        true
    }

    /// What ends it.
    pub const fn keys(&self) -> &'static str {
        match self.purpose {
            Purpose::Filter => "  Enter keeps, Esc drops",
            Purpose::Fit => "  Enter asks, Esc drops",
        }
    }

    /// What stands before what is typed.
    pub const fn label(&self) -> &'static str {
        match self.purpose {
            Purpose::Filter => " filter: ",
            Purpose::Fit => " bytes of each bank, or TOTAL/PAGE: ",
        }
    }
}
