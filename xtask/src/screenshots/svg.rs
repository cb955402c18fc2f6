//! A screen as a picture: SVG, small and the same on every machine.
//!
//! Bars are drawn and not written, so that they have no gaps whatever the font is; all other text is
//! stretched to the columns it has.

use std::fmt::Write as _;

use super::screen::{Color, Look, Run};

/// Of a character, in units of the picture.
const WIDTH: usize = 8;
const HEIGHT: usize = 17;
/// Where the letters stand, from the line's top.
const BASELINE: usize = 13;
/// Around the screen.
const MARGIN: usize = 10;

const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d7dae0";
/// The sixteen colours that a terminal chooses by itself.
const PALETTE: [&str; 16] = [
    "#3b4048", "#e06c75", "#7fbf6a", "#e0b455", "#61a5e8", "#c678dd", "#4fb8c4", "#c8ccd4",
    "#737a87", "#ff7b86", "#98d982", "#f5cf74", "#7fbcff", "#dd93f2", "#6fd6e2", "#ffffff",
];

/// Draws a screen of so many columns.
pub fn draw(title: &str, columns: usize, lines: &[Vec<Run>]) -> String {
    let (width, height) = (columns * WIDTH + 2 * MARGIN, lines.len() * HEIGHT + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" \
         font-size=\"13\" xml:space=\"preserve\">\n<title>{}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n",
        escaped(title)
    );
    for (line, runs) in lines.iter().enumerate() {
        for run in runs {
            draw_run(&mut svg, run, MARGIN + line * HEIGHT);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_run(svg: &mut String, run: &Run, top: usize) {
    let (mut foreground, mut background) =
        (run.look.foreground.map_or(FOREGROUND.to_owned(), css), run.look.background.map(css));
    if run.look.reversed {
        let behind = background.replace(foreground);
        foreground = behind.unwrap_or_else(|| BACKGROUND.to_owned());
    }
    let left = |at: usize| MARGIN + (run.column + at) * WIDTH;
    let length = run.text.chars().count();
    if let Some(background) = background {
        rectangle(svg, [left(0), top, length * WIDTH, HEIGHT].map(number), &background, "");
    }
    let opacity = if run.look.dim { " opacity=\"0.6\"" } else { "" };
    // Words and bars, each by itself; blanks need nothing.
    let characters: Vec<char> = run.text.chars().collect();
    let mut at = 0;
    while at < length {
        let kind = Kind::of(characters[at]);
        let same = characters[at..].iter().take_while(|&&other| Kind::of(other) == kind).count();
        match kind {
            Kind::Blank => {}
            Kind::Block([from, above, wide, high]) => {
                let [width, height] = [WIDTH, HEIGHT].map(number);
                let step = if wide < 1.0 { 1 } else { same };
                let place = [
                    number(left(at)) + from * width,
                    number(top) + above * height,
                    wide * width * number(step),
                    high * height,
                ];
                rectangle(svg, place, &foreground, opacity);
                at += step;
                continue;
            }
            Kind::Shade(eighths) => {
                let opacity = format!(" opacity=\"{}\"", f64::from(eighths) / 8.0);
                let place = [left(at), top, same * WIDTH, HEIGHT].map(number);
                rectangle(svg, place, &foreground, &opacity);
            }
            Kind::Text => {
                let text: String = characters[at..at + same].iter().collect();
                write_text(
                    svg,
                    &text,
                    (left(at), top + BASELINE),
                    same,
                    &foreground,
                    run.look,
                    opacity,
                );
            }
        }
        at += same;
    }
}

fn write_text(
    svg: &mut String,
    text: &str,
    (left, bottom): (usize, usize),
    length: usize,
    color: &str,
    look: Look,
    opacity: &str,
) {
    let weight = if look.bold { " font-weight=\"bold\"" } else { "" };
    let line = if look.underlined { " text-decoration=\"underline\"" } else { "" };
    let width = length * WIDTH;
    let text = escaped(text);
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{bottom}\" textLength=\"{width}\" fill=\"{color}\"{weight}{line}{opacity}>{text}</text>"
    );
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn rectangle(svg: &mut String, [left, top, width, height]: [f64; 4], color: &str, opacity: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"{color}\"{opacity}/>"
    );
}

/// How a character is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Blank,
    Text,
    /// A part of its cell: left, top, width, height, in parts of the cell.
    Block([f64; 4]),
    /// All of its cell, faint: in eighths.
    Shade(u8),
}

impl Kind {
    fn of(character: char) -> Self {
        let code = u32::from(character);
        match character {
            ' ' => Self::Blank,
            '█' => Self::Block([0.0, 0.0, 1.0, 1.0]),
            // One eighth less with each.
            '\u{2589}'..='\u{258f}' => Self::Block([0.0, 0.0, f64::from(0x2590 - code) / 8.0, 1.0]),
            // One eighth more with each.
            '\u{2581}'..='\u{2587}' => {
                let high = f64::from(code - 0x2580) / 8.0;
                Self::Block([0.0, 1.0 - high, 1.0, high])
            }
            '░' => Self::Shade(2),
            '▒' => Self::Shade(4),
            '▓' => Self::Shade(6),
            '▀' => Self::Block([0.0, 0.0, 1.0, 0.5]),
            '▐' => Self::Block([0.5, 0.0, 0.5, 1.0]),
            _ => Self::Text,
        }
    }
}

fn css(color: Color) -> String {
    match color {
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
        Color::Indexed(number @ 0..16) => PALETTE[number as usize].to_owned(),
        Color::Indexed(number @ 16..232) => {
            let part = |divisor: u8| match (number - 16) / divisor % 6 {
                0 => 0,
                step => 55 + 40 * step,
            };
            css(Color::Rgb(part(36), part(6), part(1)))
        }
        Color::Indexed(number) => {
            let gray = 8 + 10 * (number - 232);
            css(Color::Rgb(gray, gray, gray))
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{super::screen::lines, *};

    #[test]
    fn words_are_written_and_bars_are_drawn() {
        let svg = draw("a < b", 20, &lines("\u{1b}[32m██▌\u{1b}[0m a&b\n"));
        let drawn: Vec<&str> = svg.lines().skip(1).collect();
        let expected = [
            "<title>a &lt; b</title>",
            "<rect width=\"180\" height=\"37\" rx=\"6\" fill=\"#16181d\"/>",
            "<rect x=\"10\" y=\"10\" width=\"16\" height=\"17\" fill=\"#7fbf6a\"/>",
            "<rect x=\"26\" y=\"10\" width=\"4\" height=\"17\" fill=\"#7fbf6a\"/>",
            "<text x=\"42\" y=\"23\" textLength=\"24\" fill=\"#d7dae0\">a&amp;b</text>",
            "</svg>",
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn reversed_is_the_other_way_round() {
        let svg = draw("", 4, &lines("\u{1b}[7mx\n"));
        assert!(svg.contains("height=\"17\" fill=\"#d7dae0\""), "{svg}");
        assert!(svg.contains("fill=\"#16181d\">x<"), "{svg}");
    }

    #[test]
    fn colors_of_the_cube_and_the_grays() {
        let colors = [16, 208, 231, 232, 255].map(|number| css(Color::Indexed(number)));
        assert_eq!(colors, ["#000000", "#ff8700", "#ffffff", "#080808", "#eeeeee"]);
    }
}
