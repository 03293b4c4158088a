//! The tables of docs/performance.md, from the figures of some runs: each target and each time with a column for each run.

use std::fs;

use serde_json::Value;

/// The Markdown for the runs that these files are of, in their order.
pub fn of(files: &[&str]) -> String {
    let read = |file: &&str| serde_json::from_str(&fs::read_to_string(file).expect("readable")).expect("JSON");
    let runs: Vec<Value> = files.iter().map(read).collect();
    let text = |run: &Value, key: &str| run[key].as_str().unwrap_or_default().to_owned();
    let mut page = String::new();
    for (number, run) in (1..).zip(&runs) {
        let machine = &run["machine"];
        let busy = |key: &str| machine[key].as_f64().map_or("?".to_owned(), |percent| format!("{percent:.0}"));
        page += &format!(
            "{number}. commit {}, {}, {} processors ({}), Linux {}; others used {} % of one processor as it began, {} % as it ended\n",
            text(run, "commit"),
            text(run, "date"),
            machine["processors"],
            text(machine, "processor"),
            text(machine, "kernel"),
            busy("others_percent_of_one_processor"),
            busy("others_percent_at_the_end"),
        );
    }
    let head = |first: &str| {
        let names = (1..=runs.len()).map(|number| format!(" run {number} |"));
        let rule = "---|".repeat(first.matches(" | ").count() + 1 + runs.len());
        format!("\n| {first} |{}\n|{rule}\n", names.collect::<String>())
    };
    page += &head("target | bound");
    for target in targets(&runs) {
        let of_run = |run: &Value| {
            run["targets"].as_array().and_then(|all| all.iter().find(|one| one["what"] == target.as_str())).cloned()
        };
        let found: Vec<Option<Value>> = runs.iter().map(of_run).collect();
        let one = found.iter().flatten().next().cloned().unwrap_or_default();
        let bound = ["at_most", "at_least"]
            .iter()
            .find_map(|side| Some(format!("{} {}", side.replace('_', " "), one[*side].as_f64()?)));
        let cells = found.iter().map(|target| cell(target.as_ref()));
        page += &format!("| {target} | {} |{}\n", bound.unwrap_or_default(), cells.collect::<String>());
    }
    page += &head("p50, microseconds: ADD, DEL");
    let rows = runs.first().and_then(|run| run["tables"]["calls"]["rows"].as_object()).cloned().unwrap_or_default();
    for name in rows.keys() {
        let cells = runs.iter().map(|run| {
            let time = |column: &str| run["tables"]["calls"]["rows"][name][column].as_f64().unwrap_or(f64::NAN);
            format!(" {:.0}, {:.0} |", time("ADD p50"), time("DEL p50"))
        });
        page += &format!("| {name} |{}\n", cells.collect::<String>());
    }
    page
}

/// Every target of any run, once.
fn targets(runs: &[Value]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for target in runs.iter().filter_map(|run| run["targets"].as_array()).flatten() {
        let what = target["what"].as_str().unwrap_or_default().to_owned();
        if !all.contains(&what) {
            all.push(what);
        }
    }
    all
}

/// What was measured, in bold letters where the target is missed.
fn cell(target: Option<&Value>) -> String {
    match target.map(|target| (target["measured"].as_f64(), target["met"].as_bool())) {
        Some((Some(measured), Some(true))) => format!(" {measured:.2} |"),
        Some((Some(measured), _)) => format!(" **{measured:.2}** |"),
        _ => " - |".to_owned(),
    }
}
