//! Tables that people read, as Markdown that is aligned in a terminal too.

use ttmem_bench::Line;
use ttmem_bench::stats::Spread;

/// A table of these rows.
pub fn of(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
    let mut all = vec![head];
    all.extend(rows);
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).max(3)).collect();
    let mut out = String::new();
    for (index, row) in all.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let padding = " ".repeat(width - cell.chars().count());
            out.extend(["| ", cell, &padding, " "]);
        }
        out += "|\n";
        if index == 0 {
            for width in &widths {
                out.extend(["|", &"-".repeat(width + 2)]);
            }
            out += "|\n";
        }
    }
    out
}

/// The cells of a result.
pub fn cells(line: &Line) -> Vec<String> {
    let mut cells = vec![line.name.clone(), number(line.spread.median), range(&line.spread)];
    cells.push(line.unit.clone());
    match &line.against {
        Some(against) => cells.extend([
            number(against.ratio.median),
            range(&against.ratio),
            against.control.map_or_else(String::new, |control| range(&control)),
        ]),
        None => cells.extend([String::new(), String::new(), String::new()]),
    }
    cells.push(line.note.clone().unwrap_or_default());
    cells
}

fn range(spread: &Spread) -> String {
    format!("{}–{}", number(spread.p10), number(spread.p90))
}

/// Three digits that count, and no more.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let plain = format!("{value:.digits$}");
    if digits > 0 {
        return plain;
    }
    let (sign, figures) = plain.strip_prefix('-').map_or(("", plain.as_str()), |rest| ("-", rest));
    let mut grouped = String::new();
    for (index, figure) in figures.chars().enumerate() {
        if index > 0 && (figures.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(figure);
    }
    format!("{sign}{grouped}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.274, 1.999, 14.55, 575.4, 1_234_567.0, -12_345.0].map(number);
        assert_eq!(shown, ["0.27", "2.00", "14.6", "575", "1,234,567", "-12,345"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "µ".to_owned()]];
        assert_eq!(
            of(&["head", ""], rows.into_iter()),
            "\
| head |     |\n|------|-----|\n| a    | µ   |\n"
        );
    }
}
