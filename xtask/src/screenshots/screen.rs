//! A screen as tmux writes it (`capture-pane -e`): characters, and how they look.
//!
//! Knows the sequences that say how text looks and leaves all others out; any bytes will do.

use vte::{Params, Parser, Perform};

/// A colour of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Of the palette of 256.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// How text looks.
#[expect(clippy::struct_excessive_bools, reason = "a terminal has these switches")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// `None`: the terminal's own.
    pub foreground: Option<Color>,
    /// `None`: the terminal's own.
    pub background: Option<Color>,
    /// Bold.
    pub bold: bool,
    /// Faint.
    pub dim: bool,
    /// Foreground and background change places.
    pub reversed: bool,
    /// Underlined.
    pub underlined: bool,
}

/// Characters of the same look that follow each other on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it begins.
    pub column: usize,
    /// What it says.
    pub text: String,
    /// How it looks.
    pub look: Look,
}

/// The lines of a screen.
pub fn lines(captured: &str) -> Vec<Vec<Run>> {
    let mut reader = Reader { lines: vec![Vec::new()], column: 0, look: Look::default() };
    Parser::new().advance(&mut reader, captured.as_bytes());
    if reader.lines.last().is_some_and(Vec::is_empty) {
        reader.lines.pop();
    }
    reader.lines
}

struct Reader {
    lines: Vec<Vec<Run>>,
    column: usize,
    look: Look,
}

impl Perform for Reader {
    fn print(&mut self, character: char) {
        let (column, look) = (self.column, self.look);
        self.column += 1;
        let Some(line) = self.lines.last_mut() else { return };
        match line.last_mut() {
            Some(run) if run.look == look => run.text.push(character),
            _ => line.push(Run { column, text: character.into(), look }),
        }
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\n' {
            self.lines.push(Vec::new());
            self.column = 0;
        }
    }

    fn csi_dispatch(&mut self, parameters: &Params, between: &[u8], _: bool, action: char) {
        if action != 'm' || !between.is_empty() {
            return;
        }
        let numbers: Vec<u16> = parameters.iter().flatten().copied().collect();
        self.look.change(&numbers);
    }
}

impl Look {
    fn change(&mut self, mut numbers: &[u16]) {
        while let Some((&number, rest)) = numbers.split_first() {
            numbers = rest;
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                4 => self.underlined = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                24 => self.underlined = false,
                27 => self.reversed = false,
                30..=37 => self.foreground = indexed(number - 30),
                90..=97 => self.foreground = indexed(number - 90 + 8),
                40..=47 => self.background = indexed(number - 40),
                100..=107 => self.background = indexed(number - 100 + 8),
                39 => self.foreground = None,
                49 => self.background = None,
                38 | 48 => {
                    let (color, rest) = extended(numbers);
                    numbers = rest;
                    let place =
                        if number == 38 { &mut self.foreground } else { &mut self.background };
                    *place = color.or(*place);
                }
                _ => {}
            }
        }
    }
}

fn indexed(number: u16) -> Option<Color> {
    u8::try_from(number).ok().map(Color::Indexed)
}

/// A colour that takes several numbers, and what follows it.
fn extended(numbers: &[u16]) -> (Option<Color>, &[u16]) {
    let byte = |number: u16| u8::try_from(number).ok();
    match numbers {
        [5, number, rest @ ..] => (indexed(*number), rest),
        [2, red, green, blue, rest @ ..] => {
            let rgb = || Some(Color::Rgb(byte(*red)?, byte(*green)?, byte(*blue)?));
            (rgb(), rest)
        }
        _ => (None, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(column: usize, text: &str, look: Look) -> Run {
        Run { column, text: text.to_owned(), look }
    }

    #[test]
    fn looks_end_where_they_end() {
        let found = lines("a\u{1b}[1;32mbc\u{1b}[0md\n\u{1b}[38;5;208mé\u{1b}[39m█\n");
        let green = Look { bold: true, foreground: Some(Color::Indexed(2)), ..Look::default() };
        let orange = Look { foreground: Some(Color::Indexed(208)), ..Look::default() };
        let plain = Look::default();
        let expected = [
            vec![run(0, "a", plain), run(1, "bc", green), run(3, "d", plain)],
            vec![run(0, "é", orange), run(1, "█", plain)],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn every_way_to_say_a_color() {
        let look = |text: &str| lines(&format!("\u{1b}[{text}mx"))[0][0].look;
        assert_eq!(look("97").foreground, Some(Color::Indexed(15)));
        assert_eq!(look("104").background, Some(Color::Indexed(12)));
        assert_eq!(look("48;2;1;2;3").background, Some(Color::Rgb(1, 2, 3)));
        assert_eq!(look("38:5:7").foreground, Some(Color::Indexed(7)));
        assert!(look("7;4;2").reversed && look("7;4;2").underlined && look("7;4;2").dim);
        assert_eq!(
            look("31;38;9"),
            Look { foreground: Some(Color::Indexed(1)), ..Look::default() }
        );
        assert_eq!(look("1;31;0"), Look::default());
    }

    #[test]
    fn any_bytes_will_do() {
        // A small generator will do: the parser is a library's, the numbers are what is ours.
        let mut state = 1_u32;
        for _ in 0..2000 {
            let mut text = String::from("\u{1b}[");
            for _ in 0..12 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                text.push(b"0123456789;:m\x1b[x\n?"[(state >> 24) as usize % 18] as char);
            }
            let _ = lines(&text);
        }
    }
}
