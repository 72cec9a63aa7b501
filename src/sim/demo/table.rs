//! Plain aligned text: names to the left, figures to the right.

use std::fmt;

/// A table of text. The first column is aligned left, the others right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no rows.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row below the others.
    pub fn push<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// How wide each column is, in characters.
    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        (0..columns).map(width).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match column {
                    0 => line.extend([cell, padding.as_str()]),
                    _ => line.extend([GAP, &padding, cell]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Between two columns.
const GAP: &str = "   ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_left_and_figures_right() {
        let mut table = Table::new(["", "straight", "vaxel"]);
        table.push(["offered".to_owned(), "7000".to_owned(), "7000".to_owned()]);
        table.push(["größte Zahl".to_owned(), "1".to_owned(), "1234567".to_owned()]);
        assert_eq!(
            table.to_string(),
            "              straight     vaxel\n\
             offered           7000      7000\n\
             größte Zahl          1   1234567\n"
        );
    }

    #[test]
    fn a_short_row_is_no_trouble() {
        let mut table = Table::new(["a", "b"]);
        table.push(["only".to_owned()]);
        assert_eq!(table.to_string(), "a      b\nonly\n");
    }
}
