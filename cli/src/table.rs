//! Tables of text, aligned, with colours on a terminal.

use console::{Style, measure_text_width, style};
use std::io::{self, Write};

/// Columns with headings, and rows. The first column is flush left, the others flush right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        let bold = Style::new().bold();
        let headings = headings.into_iter();
        Self {
            rows: vec![
                headings
                    .map(|text| bold.apply_to(text.into()).to_string())
                    .collect(),
            ],
        }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Writes it, indented by two.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| measure_text_width(cell))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - measure_text_width(cell));
                line.push(' ');
                if column == 0 {
                    line.push_str(cell);
                    line.push_str(&padding);
                } else {
                    line.push(' ');
                    line.push_str(&padding);
                    line.push_str(cell);
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A verdict: green or red on a terminal.
pub fn verdict(pass: bool) -> String {
    if pass {
        style("pass").green().to_string()
    } else {
        style("FAIL").red().bold().to_string()
    }
}

/// A title: bold on a terminal.
pub fn title(text: &str) -> String {
    style(text).bold().to_string()
}

/// An error or a bound, short: `3.1e-7`.
pub fn scientific(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.1e}")
    } else {
        format!("{value}")
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
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = console::strip_ansi_codes(std::str::from_utf8(&out).unwrap()).into_owned();
        assert_eq!(text, "  name      ms\n  a       1.25\n  longer  10.5\n");
    }
}
