//! The chart of the README: how long a caller waits for ADD and for DEL, of flock, of its floors and of other plugins, as SVG. Its colours
//! suit a light page and a dark one.

use std::fmt::Write as _;

use crate::report::Table;

const WIDTH: f64 = 760.0;
/// Where bars begin, and what the longest one has.
const LEFT: f64 = 200.0;
const LONGEST: f64 = WIDTH - LEFT - 80.0;
const BAR: f64 = 13.0;
const ROW: f64 = 42.0;
const TOP: f64 = 62.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}.title{font-size:15px;font-weight:600}\
    .add{fill:#0969da}.del{fill:#bc4c00}.floor .add{fill:#8c959f}.floor .del{fill:#8c959f;opacity:.7}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.add{fill:#4493f8}.del{fill:#f0883e}}";

/// A row of the chart: its name, and both times in microseconds.
struct Row {
    name: String,
    is_floor: bool,
    add: f64,
    del: f64,
}

/// The chart of the table of calls; `foot` says where and when.
pub fn draw(calls: &Table, foot: &str) -> String {
    let at = |name: &str, column| calls.at(name, column).unwrap_or(f64::NAN);
    let floor = |column| at("floor: program", column) + at("floor: kernel", column);
    let sum =
        Row { name: "an empty program + kernel".into(), is_floor: true, add: floor("ADD p50"), del: floor("DEL p50") };
    let others = calls.rows.iter().map(|(name, _)| name).filter(|name| !name.starts_with("floor"));
    let own =
        |name: &String| Row { name: name.clone(), is_floor: false, add: at(name, "ADD p50"), del: at(name, "DEL p50") };
    let rows: Vec<Row> = std::iter::once(sum).chain(others.map(own)).collect();
    let most = rows.iter().flat_map(|row| [row.add, row.del]).fold(0.0, f64::max);

    let height = TOP + ROW * rows.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>How long a caller waits for ADD and DEL</title>\n<style>{STYLE}</style>\n\
         <text x=\"0\" y=\"18\" class=\"title\">How long a caller waits for a pod's link, and for its end</text>\n\
         <rect class=\"add\" x=\"0\" y=\"31\" width=\"11\" height=\"11\"/><text x=\"17\" y=\"41\">ADD</text>\n\
         <rect class=\"del\" x=\"60\" y=\"31\" width=\"11\" height=\"11\"/><text x=\"77\" y=\"41\">DEL</text>\n\
         <text class=\"small\" x=\"120\" y=\"41\">median, in milliseconds; the grey floor is what nothing can be faster than</text>\n"
    );
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        let class = if row.is_floor { " class=\"floor\"" } else { "" };
        writeln!(svg, "<g{class}><text x=\"0\" y=\"{:.1}\">{}</text>", top + BAR + 5.0, escaped(&row.name))
            .expect("text");
        for (class, at, time) in [("add", top, row.add), ("del", top + BAR + 2.0, row.del)] {
            let width = (time / most * LONGEST).max(1.0);
            writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{at:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>"
            )
            .expect("text");
            writeln!(
                svg,
                "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{:.1}</text>",
                LEFT + width + 6.0,
                at + BAR - 2.5,
                time / 1e3
            )
            .expect("text");
        }
        svg.push_str("</g>\n");
    }
    writeln!(svg, "<text class=\"small\" x=\"0\" y=\"{:.1}\">{}</text>\n</svg>", height - 8.0, escaped(foot))
        .expect("text");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_longest_time_and_floors_are_one_row() {
        let mut calls = Table::new("calls", "", &["ADD p50", "DEL p50"]);
        calls.row("floor: program", [500.0, 500.0]);
        calls.row("floor: kernel", [500.0, 250.0]);
        calls.row("flock", [2000.0, 1000.0]);
        calls.row("a<b", [10_000.0, 20_000.0]);
        let svg = draw(&calls, "here");
        assert_eq!(svg.matches("<g").count(), 3);
        for part in [
            format!("width=\"{LONGEST:.1}\""),
            "width=\"24.0\"".into(),
            "a&lt;b".into(),
            ">20.0<".into(),
            ">1.0<".into(),
        ] {
            assert!(svg.contains(&part), "{part}: {svg}");
        }
        assert!(!svg.contains("NaN"));
    }
}
