//! Tables as kubectl prints them: heads in capitals, three blanks between columns, `<none>` for nothing, ages like `3d4h`.
//!
//! Nothing is cut off: programs read tables as well. Must not know what the columns mean, nor print anything.

use model::excerpt::Excerpt;

/// What stands where there is nothing.
pub const NONE: &str = "<none>";

/// What stands for an age that nobody knows.
pub const UNKNOWN: &str = "<unknown>";

/// Longest text of a cell, in bytes.
const CELL_MAX: usize = 4096;

/// Blanks between two columns.
const GAP: &str = "   ";

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// Rows of cells below heads.
#[derive(Debug)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(heads: &[&str]) -> Table {
        Table { heads: heads.iter().map(|head| (*head).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row. What is missing of it, or empty, is [`NONE`]; foreign text is made fit to print.
    pub fn row<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells = cells.into_iter().map(|cell| match cell.as_ref() {
            "" => NONE.to_owned(),
            text => Excerpt::line(text, CELL_MAX).into(),
        });
        let mut cells: Vec<String> = cells.collect();
        cells.resize(self.heads.len(), NONE.to_owned());
        self.rows.push(cells);
    }

    /// The table as lines, with its heads or without.
    pub fn text(&self, heads: Heads) -> String {
        let mut lines: Vec<&[String]> = Vec::new();
        if heads == Heads::Shown {
            lines.push(&self.heads);
        }
        lines.extend(self.rows.iter().map(Vec::as_slice));
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| width(cell)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in lines {
            let mut blanks = 0;
            for (cell, widest) in line.iter().zip(&widths) {
                text.extend(std::iter::repeat_n(' ', blanks));
                text.push_str(cell);
                // Not written before the next cell: a line has no blanks at its end.
                blanks = widest - width(cell) + GAP.len();
            }
            text.push('\n');
        }
        text
    }
}

/// Whether a table has its line of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// It has.
    Shown,
    /// It has not: a program reads the rows.
    Hidden,
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// A text for a cell: [`NONE`] if there is none.
pub fn or_none(text: Option<impl ToString>) -> String {
    text.map_or_else(|| NONE.to_owned(), |text| text.to_string())
}

/// A time span in the two largest units that matter, as kubectl has it: the longer it is, the less of it is said.
pub fn age(seconds: u64) -> String {
    let two = |large: u64, l: char, small: u64, s: char| match seconds % large / small {
        0 => format!("{}{l}", seconds / large),
        rest => format!("{}{l}{rest}{s}", seconds / large),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(MINUTE, 'm', 1, 's'),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(HOUR, 'h', MINUTE, 'm'),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(DAY, 'd', HOUR, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(YEAR, 'y', DAY, 'd'),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_their_last_one() {
        let mut table = Table::new(&["NAMESPACE", "POD", "AGE"]);
        table.row(["mail", "smtp-0", "3h"]);
        table.row(["a-long-namespace", "", "2d"]);
        table.row(["é"]);
        let expected = "\
NAMESPACE          POD      AGE
mail               smtp-0   3h
a-long-namespace   <none>   2d
é                  <none>   <none>
";
        assert_eq!(table.text(Heads::Shown), expected);
        let rows: String = expected.lines().skip(1).map(|line| line.to_owned() + "\n").collect();
        assert_eq!(table.text(Heads::Hidden), rows);
        assert_eq!(Table::new(&["NAMESPACE", "AGE"]).text(Heads::Shown), "NAMESPACE   AGE\n");
        assert_eq!(Table::new(&["NAMESPACE", "AGE"]).text(Heads::Hidden), "");
    }

    #[test]
    fn no_cell_breaks_its_line() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x\ny\u{1b}[31m", "z"]);
        assert_eq!(table.text(Heads::Hidden), "x\\ny\\u{1b}[31m   z\n");
    }

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (12, "12s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (5 * HOUR + 7 * MINUTE, "5h7m"),
            (8 * HOUR - 1, "7h59m"),
            (8 * HOUR, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (3 * DAY + 4 * HOUR + 59 * MINUTE, "3d4h"),
            (8 * DAY, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (3 * YEAR + 5 * DAY, "3y5d"),
            (8 * YEAR + 300 * DAY, "8y"),
        ] {
            assert_eq!(age(seconds), text, "{seconds} s");
        }
        assert_eq!(age(u64::MAX), format!("{}y", u64::MAX / YEAR));
    }
}
