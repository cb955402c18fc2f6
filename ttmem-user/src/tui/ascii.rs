//! For terminals and logs that know ASCII alone: every other character of a frame is replaced.
//!
//! It is done on the finished frame, so that no view can forget it.

use ratatui::buffer::Buffer;

/// Replaces every character of `frame` that is not ASCII.
pub fn replace(frame: &mut Buffer) {
    for cell in &mut frame.content {
        if !cell.symbol().is_ascii() {
            let plain = cell.symbol().chars().next().map_or(' ', plain);
            cell.set_char(plain);
        }
    }
}

const fn plain(character: char) -> char {
    match character {
        '·' | '░' | '▂' => '.',
        '▁' => '_',
        '▃' | '▒' => ':',
        '▄' | '–' | '─' | '━' | '−' => '-',
        '▅' | '▏' | '▎' => '=',
        '▆' | '▍' | '▌' | '┌' | '┐' | '└' | '┘' | '┼' | '├' | '┤' => '+',
        '▇' | '▋' | '▊' | '▉' | '×' | '●' => '*',
        '█' | '▓' => '#',
        '│' | '┃' => '|',
        '↑' | '▲' | '⚑' => '^',
        '↓' | '▼' => 'v',
        '←' | '◀' => '<',
        '→' | '▶' | '≥' => '>',
        '…' => '~',
        _ => '?',
    }
}
