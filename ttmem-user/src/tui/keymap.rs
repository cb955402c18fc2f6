//! The one table of keys: what is pressed, what it does, what the help says about it.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseEventKind};

use super::Action;

/// Something the user does with keyboard or mouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// A key without Ctrl or Alt; Shift is part of the character.
    Key(KeyCode),
    /// A character with Ctrl.
    Ctrl(char),
    /// The wheel of the mouse.
    Wheel(MouseEventKind),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// What triggers it.
    pub triggers: &'static [Trigger],
    /// How the help writes the triggers.
    pub shown: &'static str,
    /// What it does.
    pub action: Action,
    /// What the help says.
    pub help: &'static str,
    /// What the footer says, if it is one of the main keys.
    pub footer: Option<&'static str>,
}

const fn key(character: char) -> Trigger {
    Trigger::Key(KeyCode::Char(character))
}

/// Every binding, in the order of the help.
pub const BINDINGS: &[Binding] = &[
    Binding {
        triggers: &[key('q')],
        shown: "q",
        action: Action::Quit,
        help: "quit; the target runs on",
        footer: Some("q quit"),
    },
    Binding {
        triggers: &[Trigger::Ctrl('c')],
        shown: "Ctrl-C",
        action: Action::Interrupt,
        help: "interrupt the command of `run`; else quit",
        footer: None,
    },
    Binding {
        triggers: &[key('?'), key('h'), Trigger::Key(KeyCode::F(1))],
        shown: "? h F1",
        action: Action::ToggleHelp,
        help: "show or hide this help",
        footer: Some("? help"),
    },
    Binding {
        triggers: &[key('i')],
        shown: "i",
        action: Action::ToggleNotes,
        help: "what is inexact, and why",
        footer: Some("i notes"),
    },
    Binding {
        triggers: &[key('o')],
        shown: "o",
        action: Action::ToggleOutput,
        help: "show or hide the output of the command of `run`",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Tab)],
        shown: "Tab",
        action: Action::NextTarget,
        help: "the next process",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::BackTab)],
        shown: "Shift-Tab",
        action: Action::PreviousTarget,
        help: "the process before",
        footer: None,
    },
    Binding {
        triggers: &[key('r')],
        shown: "r",
        action: Action::Resync,
        help: "read the live buffers again, and compare",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Esc)],
        shown: "Esc",
        action: Action::Close,
        help: "back to the overview",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Up), key('k'), Trigger::Wheel(MouseEventKind::ScrollUp)],
        shown: "↑ k wheel",
        action: Action::Up,
        help: "scroll up",
        footer: Some("↑↓ scroll"),
    },
    Binding {
        triggers: &[
            Trigger::Key(KeyCode::Down),
            key('j'),
            Trigger::Wheel(MouseEventKind::ScrollDown),
        ],
        shown: "↓ j wheel",
        action: Action::Down,
        help: "scroll down",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::PageUp)],
        shown: "PgUp",
        action: Action::PageUp,
        help: "one screen up",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::PageDown), key(' ')],
        shown: "PgDn Space",
        action: Action::PageDown,
        help: "one screen down",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Home), key('g')],
        shown: "Home g",
        action: Action::Top,
        help: "to the first chip",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::End), key('G')],
        shown: "End G",
        action: Action::Bottom,
        help: "to the last chip",
        footer: None,
    },
];

/// The action that an event of the terminal asks for.
pub fn action(event: &Event) -> Option<Action> {
    let trigger = trigger(event)?;
    BINDINGS.iter().find(|binding| binding.triggers.contains(&trigger)).map(|b| b.action)
}

fn trigger(event: &Event) -> Option<Trigger> {
    match event {
        Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => None,
        Event::Key(key) if key.modifiers.contains(KeyModifiers::CONTROL) => match key.code {
            KeyCode::Char(character) => Some(Trigger::Ctrl(character.to_ascii_lowercase())),
            _ => None,
        },
        Event::Key(key) if key.modifiers.contains(KeyModifiers::ALT) => None,
        Event::Key(key) => Some(Trigger::Key(key.code)),
        Event::Mouse(mouse) => Some(Trigger::Wheel(mouse.kind)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crossterm::event::MouseEvent;

    use super::*;

    #[test]
    fn nothing_is_bound_twice() {
        let mut seen = HashSet::new();
        for trigger in BINDINGS.iter().flat_map(|binding| binding.triggers) {
            assert!(seen.insert(*trigger), "{trigger:?} is bound twice");
        }
    }

    #[test]
    fn each_action_has_one_line_of_help() {
        let mut seen = HashSet::new();
        for binding in BINDINGS {
            assert!(seen.insert(binding.action), "{:?} has two lines", binding.action);
            assert!(!binding.help.is_empty() && !binding.shown.is_empty());
            assert!(!binding.triggers.is_empty());
        }
        assert_eq!(seen.len(), Action::Bottom as usize + 1);
    }

    #[test]
    fn events_become_actions() {
        let press = |code, modifiers| action(&Event::Key(KeyEvent::new(code, modifiers)));
        let none = KeyModifiers::NONE;
        assert_eq!(press(KeyCode::Char('q'), none), Some(Action::Quit));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Interrupt));
        assert_eq!(press(KeyCode::Char('c'), none), None);
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(press(KeyCode::Char('?'), KeyModifiers::SHIFT), Some(Action::ToggleHelp));
        assert_eq!(press(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Bottom));
        let mouse =
            |kind| action(&Event::Mouse(MouseEvent { kind, column: 3, row: 4, modifiers: none }));
        assert_eq!(mouse(MouseEventKind::ScrollDown), Some(Action::Down));
        assert_eq!(mouse(MouseEventKind::Moved), None);
        let mut release = KeyEvent::new(KeyCode::Char('q'), none);
        release.kind = KeyEventKind::Release;
        assert_eq!(action(&Event::Key(release)), None);
        assert_eq!(action(&Event::FocusGained), None);
    }
}
