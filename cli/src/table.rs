//! Tables of text, aligned, with colours on a terminal.

use console::{Alignment, measure_text_width, pad_str, style};
use std::fmt;

/// Columns with headings, and rows, indented by two. The first column is flush left, the others flush right.
#[derive(Debug)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    pub fn new<S: fmt::Display>(headings: impl IntoIterator<Item = S>) -> Self {
        Self(vec![headings.into_iter().map(title).collect()])
    }

    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.0.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell: &String| measure_text_width(cell))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let side = match column {
                    0 => Alignment::Left,
                    _ => Alignment::Right,
                };
                line += "  ";
                line += &pad_str(cell, width, side, None);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A verdict: green or red on a terminal.
pub fn verdict(pass: bool) -> String {
    match pass {
        true => style("pass").green().to_string(),
        false => style("FAIL").red().bold().to_string(),
    }
}

/// A title: bold on a terminal.
pub fn title(text: impl fmt::Display) -> String {
    style(text).bold().to_string()
}

/// An error or a bound, short: `3.1e-7`.
pub fn scientific(value: f64) -> String {
    match value.is_finite() && value != 0.0 {
        true => format!("{value:.1e}"),
        false => value.to_string(),
    }
}

pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x0010_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

pub fn workgroups([x, y]: [u32; 2]) -> String {
    match y {
        1 => x.to_string(),
        _ => format!("{x} x {y}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["name", "ms"]);
        table.row(["a", "1.25"]);
        table.row(["longer", "10.5"]);
        let text = table.to_string();
        let text = console::strip_ansi_codes(&text);
        assert_eq!(text, "  name      ms\n  a       1.25\n  longer  10.5\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([size(12), size(1536)], ["12 B", "1.5 KiB"]);
        assert_eq!(size(3 << 19), "1.5 MiB");
    }
}
