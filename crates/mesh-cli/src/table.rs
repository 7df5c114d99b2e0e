//! Tables on a terminal: columns as wide as their widest cell.

use crate::style::{Style, Tone};
use std::fmt::Write as _;

/// What is between two columns.
const GAP: usize = 3;

/// A table. An empty cell is printed as `-`, so that columns can be counted by scripts.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A piece of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

// === impl Table ===

impl Table {
    /// A table with these headings and no rows.
    pub(crate) fn with_header(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each heading.
    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = row.into_iter().collect();
        row.resize_with(self.header.len(), || Cell::from(""));
        self.rows.push(row);
    }

    /// As text, a line for each row.
    pub(crate) fn render(&self, style: Style) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|text| text.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let mut out = String::new();
        let header = self.header.iter().map(|text| Cell::from(*text));
        line(&mut out, header, &widths, |cell| style.bold(&cell.text));
        for row in &self.rows {
            line(&mut out, row.iter().cloned(), &widths, |cell| {
                style.tone(cell.tone, &cell.text)
            });
        }
        out
    }
}

fn line(
    out: &mut String,
    cells: impl Iterator<Item = Cell>,
    widths: &[usize],
    decorate: impl Fn(&Cell) -> String,
) {
    let last = widths.len().saturating_sub(1);
    for (index, (cell, width)) in cells.zip(widths).enumerate() {
        out.push_str(&decorate(&cell));
        if index < last {
            let rest = width.saturating_sub(cell.width()) + GAP;
            // Writing to a String cannot fail.
            let _ = write!(out, "{:rest$}", "");
        }
    }
    out.push('\n');
}

// === impl Cell ===

impl Cell {
    /// A cell in this tone.
    pub(crate) fn toned(text: &str, tone: Tone) -> Self {
        Self {
            tone,
            ..Self::from(text)
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        let text = match text {
            "" => "-".to_owned(),
            text => printable(text),
        };
        Self {
            text,
            tone: Tone::Plain,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// Text from elsewhere, without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_can_be_seen() {
        let mut table = Table::with_header(&["NAME", "PORT", "TYPE"]);
        table.push(["reviews".into(), "80".into(), "EDS".into()]);
        table.push(["é".into(), "".into()]);
        assert_eq!(
            table.render(Style::plain()),
            "NAME      PORT   TYPE\n\
             reviews   80     EDS\n\
             é         -      -\n"
        );
    }

    #[test]
    fn colour_does_not_move_columns() {
        let mut table = Table::with_header(&["A", "B"]);
        table.push([Cell::toned("bad", Tone::Bad), "x".into()]);
        let text = table.render(Style::coloured());
        let plain = text
            .replace("\x1b[31m", "")
            .replace("\x1b[1m", "")
            .replace("\x1b[0m", "");
        assert_ne!(text, plain);
        assert_eq!(plain, "A     B\nbad   x\n");
    }

    #[test]
    fn what_a_peer_names_cannot_steer_the_terminal() {
        let mut table = Table::with_header(&["A"]);
        table.push(["a\x1b[2J\nb".into()]);
        assert_eq!(table.render(Style::plain()), "A\na\\u{1b}[2J\\nb\n");
    }
}
