//! The one table of keys: what is pressed, what it does, what the help says about it, and in
//! which views the footer does.

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind,
};

use super::{Action, Tab};

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
    /// What the footer says, and in which views (none: in all), if it is one of the main keys.
    pub footer: Option<(&'static str, &'static [Tab])>,
}

/// Views whose rows can be put in order.
const SORTED: &[Tab] = &[
    Tab::Overview,
    Tab::Buffers,
    Tab::Circular,
    Tab::Histograms,
    Tab::Failures,
    Tab::Events,
    Tab::Health,
];

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
        footer: Some(("q quit", &[])),
    },
    Binding {
        triggers: &[Trigger::Ctrl('c')],
        shown: "Ctrl-C",
        action: Action::Interrupt,
        help: "interrupt the command of `run`; else quit",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Ctrl('z')],
        shown: "Ctrl-Z",
        action: Action::Suspend,
        help: "stop ttmem, until the shell's `fg`",
        footer: None,
    },
    Binding {
        triggers: &[key('?'), key('h'), Trigger::Key(KeyCode::F(1))],
        shown: "? h F1",
        action: Action::ToggleHelp,
        help: "show or hide this help",
        footer: Some(("? help", &[])),
    },
    Binding {
        triggers: &[key('i')],
        shown: "i",
        action: Action::ToggleNotes,
        help: "what is inexact, and why",
        footer: Some(("i notes", &[Tab::Overview, Tab::Health])),
    },
    Binding {
        triggers: &[key('1')],
        shown: "1",
        action: Action::Show(Tab::Overview),
        help: "each chip, each of its pools, how full",
        footer: None,
    },
    Binding {
        triggers: &[key('2')],
        shown: "2",
        action: Action::Show(Tab::Buffers),
        help: "the live buffers",
        footer: None,
    },
    Binding {
        triggers: &[key('3')],
        shown: "3",
        action: Action::Show(Tab::Map),
        help: "a bank, address by address",
        footer: None,
    },
    Binding {
        triggers: &[key('4')],
        shown: "4",
        action: Action::Show(Tab::Circular),
        help: "what programs keep in L1, and what room is left",
        footer: None,
    },
    Binding {
        triggers: &[key('5')],
        shown: "5",
        action: Action::Show(Tab::Timeline),
        help: "use over time; back in time",
        footer: None,
    },
    Binding {
        triggers: &[key('6')],
        shown: "6",
        action: Action::Show(Tab::Histograms),
        help: "sizes, lifetimes, threads",
        footer: None,
    },
    Binding {
        triggers: &[key('7')],
        shown: "7",
        action: Action::Show(Tab::Failures),
        help: "failed allocations, each with what was live",
        footer: None,
    },
    Binding {
        triggers: &[key('8')],
        shown: "8",
        action: Action::Show(Tab::Events),
        help: "what came and went last",
        footer: None,
    },
    Binding {
        triggers: &[key('9')],
        shown: "9",
        action: Action::Show(Tab::Health),
        help: "what ttmem can see, loses and costs",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Tab)],
        shown: "Tab",
        action: Action::NextTab,
        help: "the next view",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::BackTab)],
        shown: "Shift-Tab",
        action: Action::PreviousTab,
        help: "the view before",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Enter)],
        shown: "Enter",
        action: Action::Enter,
        help: "look into what the cursor is on",
        footer: Some(("Enter open", &[Tab::Buffers, Tab::Failures])),
    },
    Binding {
        triggers: &[key('w')],
        shown: "w",
        action: Action::CallStack,
        help: "who asked: the call stack (with --stacks)",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Esc)],
        shown: "Esc",
        action: Action::Close,
        help: "close; back to now, or to all rows",
        footer: None,
    },
    Binding {
        triggers: &[key('/')],
        shown: "/",
        action: Action::Filter,
        help: "filter rows: words, 'exact ^start end$ !not",
        footer: Some(("/ filter", &[])),
    },
    Binding {
        triggers: &[key('s')],
        shown: "s",
        action: Action::Sort,
        help: "order rows by the next column",
        footer: Some(("s sort", SORTED)),
    },
    Binding {
        triggers: &[key('S')],
        shown: "S",
        action: Action::Reverse,
        help: "turn the order round",
        footer: None,
    },
    Binding {
        triggers: &[key('b')],
        shown: "b",
        action: Action::Group,
        help: "add buffers up by size, type, thread, age, site",
        footer: Some(("b group", &[Tab::Buffers])),
    },
    Binding {
        triggers: &[key('v')],
        shown: "v",
        action: Action::Layout,
        help: "chips in full, or a line each",
        footer: Some(("v layout", &[Tab::Overview])),
    },
    Binding {
        triggers: &[key('c')],
        shown: "c",
        action: Action::Columns,
        help: "holes and trends of pools, or peaks and rates",
        footer: Some(("c columns", &[Tab::Overview])),
    },
    Binding {
        triggers: &[key('z')],
        shown: "z",
        action: Action::Freeze,
        help: "hold what is shown, or go on",
        footer: Some(("z freeze", &[])),
    },
    Binding {
        triggers: &[key('m')],
        shown: "m",
        action: Action::Mark,
        help: "mark this moment: growth since is shown",
        footer: Some(("m mark", &[Tab::Overview, Tab::Buffers, Tab::Timeline])),
    },
    Binding {
        triggers: &[key('M')],
        shown: "M",
        action: Action::Unmark,
        help: "forget the mark",
        footer: None,
    },
    Binding {
        triggers: &[key(']')],
        shown: "]",
        action: Action::NextPool,
        help: "the next pool",
        footer: Some(("[ ] pool", &[Tab::Map, Tab::Timeline, Tab::Histograms])),
    },
    Binding {
        triggers: &[key('[')],
        shown: "[",
        action: Action::PreviousPool,
        help: "the pool before",
        footer: None,
    },
    Binding {
        triggers: &[key('+'), key('=')],
        shown: "+ =",
        action: Action::ZoomIn,
        help: "timeline: a shorter time, around the cursor",
        footer: Some(("+- zoom", &[Tab::Timeline])),
    },
    Binding {
        triggers: &[key('-')],
        shown: "-",
        action: Action::ZoomOut,
        help: "timeline: a longer time",
        footer: None,
    },
    Binding {
        triggers: &[key('f')],
        shown: "f",
        action: Action::Fit,
        help: "would so many bytes fit into a bank?",
        footer: Some(("f fits?", &[Tab::Map])),
    },
    Binding {
        triggers: &[key('e')],
        shown: "e",
        action: Action::ExportJson,
        help: "write the view's rows to a file of JSON",
        footer: Some(("e export", &[])),
    },
    Binding {
        triggers: &[key('E')],
        shown: "E",
        action: Action::ExportCsv,
        help: "the same as comma-separated values",
        footer: None,
    },
    Binding {
        triggers: &[key('n')],
        shown: "n",
        action: Action::NextTarget,
        help: "the next process",
        footer: None,
    },
    Binding {
        triggers: &[key('N')],
        shown: "N",
        action: Action::PreviousTarget,
        help: "the process before",
        footer: None,
    },
    Binding {
        triggers: &[key('o')],
        shown: "o",
        action: Action::ToggleOutput,
        help: "show or hide the output of the command of `run`",
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
        triggers: &[key('t')],
        shown: "t",
        action: Action::NextTheme,
        help: "other colours: usual, colour-blind safe, none",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Up), key('k'), Trigger::Wheel(MouseEventKind::ScrollUp)],
        shown: "↑ k wheel",
        action: Action::Up,
        help: "up",
        footer: Some(("↑↓ scroll", &[Tab::Overview])),
    },
    Binding {
        triggers: &[
            Trigger::Key(KeyCode::Down),
            key('j'),
            Trigger::Wheel(MouseEventKind::ScrollDown),
        ],
        shown: "↓ j wheel",
        action: Action::Down,
        help: "down",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Left), key('H')],
        shown: "← H",
        action: Action::Left,
        help: "left, or back in time",
        footer: Some(("←→ move", &[Tab::Map, Tab::Timeline])),
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::Right), key('L')],
        shown: "→ L",
        action: Action::Right,
        help: "right, or forward in time",
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
        help: "to the first row",
        footer: None,
    },
    Binding {
        triggers: &[Trigger::Key(KeyCode::End), key('G')],
        shown: "End G",
        action: Action::Bottom,
        help: "to the last row",
        footer: None,
    },
];

/// The action that an event of the terminal asks for. `typing`: characters are being typed, and
/// keys of one character do not do what they usually do.
pub fn action(event: &Event, typing: bool) -> Option<Action> {
    if let Event::Mouse(mouse) = event
        && mouse.kind == MouseEventKind::Down(MouseButton::Left)
    {
        return Some(Action::Click(mouse.column, mouse.row));
    }
    let trigger = trigger(event)?;
    match trigger {
        Trigger::Key(KeyCode::Char(character)) if typing => return Some(Action::Type(character)),
        Trigger::Key(KeyCode::Backspace) if typing => return Some(Action::Erase),
        _ => {}
    }
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
        assert!(seen.contains(&Action::Show(Tab::Health)) && seen.len() == BINDINGS.len());
    }

    #[test]
    fn events_become_actions() {
        let press = |code, modifiers| action(&Event::Key(KeyEvent::new(code, modifiers)), false);
        let none = KeyModifiers::NONE;
        assert_eq!(press(KeyCode::Char('q'), none), Some(Action::Quit));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Interrupt));
        assert_eq!(press(KeyCode::Char('x'), none), None);
        assert_eq!(press(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(press(KeyCode::Char('?'), KeyModifiers::SHIFT), Some(Action::ToggleHelp));
        assert_eq!(press(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Bottom));
        let mouse = |kind| {
            action(&Event::Mouse(MouseEvent { kind, column: 3, row: 4, modifiers: none }), false)
        };
        assert_eq!(mouse(MouseEventKind::ScrollDown), Some(Action::Down));
        assert_eq!(mouse(MouseEventKind::Moved), None);
        assert_eq!(mouse(MouseEventKind::Down(MouseButton::Left)), Some(Action::Click(3, 4)));
        assert_eq!(press(KeyCode::Char('4'), none), Some(Action::Show(Tab::Circular)));
        let mut release = KeyEvent::new(KeyCode::Char('q'), none);
        release.kind = KeyEventKind::Release;
        assert_eq!(action(&Event::Key(release), false), None);
        assert_eq!(action(&Event::FocusGained, false), None);
    }

    #[test]
    fn what_is_typed_is_no_command() {
        let press = |code| action(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)), true);
        assert_eq!(press(KeyCode::Char('q')), Some(Action::Type('q')));
        assert_eq!(press(KeyCode::Backspace), Some(Action::Erase));
        assert_eq!(press(KeyCode::Esc), Some(Action::Close));
        assert_eq!(press(KeyCode::Enter), Some(Action::Enter));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(&Event::Key(interrupt), true), Some(Action::Interrupt));
    }
}
