//! What was found: tables for people, the same for programs, and of each target whether it is met.

use serde_json::{Map, Value, json};

/// Everything that a run has found.
#[derive(Default)]
pub struct Report {
    tables: Vec<Table>,
    targets: Vec<Target>,
    /// What was not measured, and why.
    left_out: Vec<String>,
}

/// Named rows of numbers.
pub struct Table {
    /// A word, for programs.
    pub key: &'static str,
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<(String, Vec<f64>)>,
    /// Digits behind the point.
    pub digits: usize,
}

impl Table {
    pub fn new(key: &'static str, title: impl Into<String>, columns: &[&str]) -> Table {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Table { key, title: title.into(), columns, rows: Vec::new(), digits: 0 }
    }

    pub fn row(&mut self, name: impl Into<String>, numbers: impl IntoIterator<Item = f64>) {
        self.rows.push((name.into(), numbers.into_iter().collect()));
    }

    /// A number by the names of its row and column.
    pub fn at(&self, row: &str, column: &str) -> Option<f64> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.iter().find(|(name, _)| name == row)?.1.get(at).copied()
    }

    fn print(&self) {
        let width = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default().max(24);
        println!("\n{}\n", self.title);
        let wide = |column: &String| column.len().max(8) + 2;
        let head: String = self.columns.iter().map(|column| format!("{column:>0$}", wide(column))).collect();
        println!("  {:width$}{head}", "");
        for (name, numbers) in &self.rows {
            let cell = |(number, column): (&f64, &String)| match number.is_finite() {
                true => format!("{number:>0$.1$}", wide(column), self.digits),
                false => format!("{:>1$}", "-", wide(column)),
            };
            println!("  {name:width$}{}", numbers.iter().zip(&self.columns).map(cell).collect::<String>());
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, numbers)| {
            let named = self.columns.iter().cloned().zip(numbers.iter().map(|number| json!(number)));
            (name.clone(), Value::Object(named.collect()))
        });
        json!({"title": self.title, "rows": rows.collect::<Map<_, _>>()})
    }
}

/// A promise, and what became of it in this run.
struct Target {
    what: String,
    measured: f64,
    limit: f64,
    at_most: bool,
}

impl Target {
    fn met(&self) -> bool {
        if self.at_most { self.measured <= self.limit } else { self.measured >= self.limit }
    }
}

impl Report {
    /// Prints a table and keeps it.
    pub fn table(&mut self, table: Table) {
        table.print();
        self.tables.push(table);
    }

    pub fn at_most(&mut self, what: impl Into<String>, limit: f64, measured: f64) {
        self.targets.push(Target { what: what.into(), measured, limit, at_most: true });
    }

    pub fn at_least(&mut self, what: impl Into<String>, limit: f64, measured: f64) {
        self.targets.push(Target { what: what.into(), measured, limit, at_most: false });
    }

    pub fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    /// A table that was kept.
    pub fn find(&self, key: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.key == key)
    }

    /// Prints what became of the targets, and what was left out.
    pub fn close(&self) {
        println!("\nTargets\n");
        for target in &self.targets {
            let Target { what, measured, limit, at_most } = target;
            let (word, bound) =
                (if target.met() { "met" } else { "missed" }, if *at_most { "at most" } else { "at least" });
            println!("  {word:<7} {what:<66} {:>8}  {bound} {}", short(*measured), short(*limit));
        }
        self.left_out.iter().for_each(|what| println!("\nNot measured: {what}"));
    }

    pub fn json(&self) -> Value {
        let targets = self.targets.iter().map(|target| {
            let bound = if target.at_most { "at_most" } else { "at_least" };
            json!({"what": target.what, "measured": target.measured, bound: target.limit, "met": target.met()})
        });
        let tables = self.tables.iter().map(|table| (table.key.to_owned(), table.json()));
        json!({
            "targets": targets.collect::<Vec<_>>(), "tables": tables.collect::<Map<_, _>>(), "not_measured": self.left_out,
        })
    }
}

/// Three digits that count.
fn short(number: f64) -> String {
    let digits = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_on_its_own_side_of_the_limit_only() {
        let mut report = Report::default();
        report.at_most("a", 1.2, 1.2);
        report.at_most("b", 1.2, 1.21);
        report.at_least("c", 0.85, 0.85);
        report.at_least("d", 0.85, 0.84);
        report.at_most("none was measured", 1.0, f64::NAN);
        let met: Vec<bool> = report.targets.iter().map(Target::met).collect();
        assert_eq!(met, [true, false, true, false, false]);
    }

    #[test]
    fn a_number_is_found_by_its_names() {
        let mut table = Table::new("k", "t", &["a", "b"]);
        table.row("x", [1.0, 2.0]);
        assert_eq!((table.at("x", "b"), table.at("x", "c"), table.at("y", "b")), (Some(2.0), None, None));
    }
}
