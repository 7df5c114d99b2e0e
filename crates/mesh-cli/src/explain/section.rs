//! Paragraphs with a label at the left and aligned columns beside it.

use crate::style::{Style, Tone};
use crate::table::printable;
use std::fmt::Write as _;

/// How wide labels are.
const LABEL: usize = 15;

/// Columns get no wider than this for the sake of others; longer cells push theirs aside.
const WIDEST: usize = 60;

/// What is between two columns.
const GAP: usize = 2;

/// A labelled paragraph.
#[derive(Debug)]
pub(super) struct Section {
    label: &'static str,
    rows: Vec<Row>,
}

/// A line of it.
#[derive(Debug)]
struct Row {
    cells: Vec<String>,
    tone: Tone,
}

// === impl Section ===

impl Section {
    pub(super) fn new(label: &'static str) -> Self {
        Self {
            label,
            rows: Vec::new(),
        }
    }

    /// Adds a line.
    pub(super) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>, tone: Tone) {
        self.rows.push(Row {
            cells: cells
                .into_iter()
                .map(|cell| printable(cell.as_ref()))
                .collect(),
            tone,
        });
    }

    /// Adds a line without columns.
    pub(super) fn line(&mut self, text: &str) {
        self.row([text], Tone::Plain);
    }

    /// As text; nothing where there is no line.
    pub(super) fn render(&self, out: &mut String, style: Style) {
        let widths = self.widths();
        for (at, row) in self.rows.iter().enumerate() {
            let label = if at == 0 { self.label } else { "" };
            let rest = LABEL.saturating_sub(label.chars().count()).max(1);
            let mut text = String::new();
            let last = row.cells.len().saturating_sub(1);
            for (index, cell) in row.cells.iter().enumerate() {
                let width = widths.get(index).copied().unwrap_or(0);
                // A column that is empty in all lines is none.
                if width == 0 && last > 0 {
                    continue;
                }
                text.push_str(cell);
                if index < last {
                    let rest = width.saturating_sub(cell.chars().count()) + GAP;
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{:rest$}", "");
                }
            }
            let text = style.tone(row.tone, text.trim_end());
            let label = if label.is_empty() {
                String::new()
            } else {
                style.bold(label)
            };
            let _ = writeln!(out, "{label}{:rest$}{text}", "");
        }
    }

    /// The widths of the columns of rows with more than one cell.
    fn widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for row in self.rows.iter().filter(|row| row.cells.len() > 1) {
            widths.resize(widths.len().max(row.cells.len()), 0);
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = cell.chars().count().min(WIDEST).max(*width);
            }
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_beside_the_label_and_control_characters_are_shown() {
        let mut section = Section::new("routes");
        section.row(["->", "a", "", "x"], Tone::Good);
        section.row(["", "bcd", "", "\x1b[2J"], Tone::Plain);
        section.line("one line, as long as it likes");
        let mut out = String::new();
        section.render(&mut out, Style::plain());
        assert_eq!(
            out,
            "routes         ->  a    x\n\
             \x20                  bcd  \\u{1b}[2J\n\
             \x20              one line, as long as it likes\n"
        );
        let mut out = String::new();
        section.render(&mut out, Style::coloured());
        assert!(out.contains("\x1b[32m->  a    x\x1b[0m"), "{out:?}");
    }
}
