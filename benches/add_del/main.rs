//! How long ADD and DEL take: flock beside what the kernel and an empty program cost, beside other plugins, and beside an earlier commit
//! of itself. Run by `make bench` and `make bench-compare`.
//!
//! Everything that is compared is measured in one run, call by call in turn, on hosts of its own; absolute numbers mean little on another
//! machine, or in another hour. Nothing is asserted but that each call succeeds and that the floors make what flock makes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs
)]

mod bursts;
mod call;
mod calls;
mod chart;
mod compare;
mod contestant;
mod figures;
mod flock;
mod floor;
mod host;
mod machine;
mod page;
mod peers;
mod report;
mod sections;
mod slow_disk;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::machine::Machine;
use crate::report::Report;
use crate::sections::Scene;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["page", files @ ..] = &words[..] {
        return print!("{}", page::of(files));
    }
    let machine = Machine::look();
    host::prepare();
    println!("{}", machine.line());
    match words[..] {
        ["compare", output, floor, earlier, earlier_name, present, present_name] => {
            let builds = (Path::new(earlier), Path::new(present));
            let found = compare::run(Path::new(floor), builds, (earlier_name, present_name));
            write(output, &machine, found);
        }
        ["bench", output, floor, binaries, newest, debian, disk, ref only @ ..] => {
            let mut scene = Scene {
                binaries: binaries.into(),
                floor: floor.into(),
                newest: newest.into(),
                debian: debian.into(),
                disk: disk.into(),
                report: Report::default(),
            };
            let wanted = |name: &str| only.is_empty() || only.contains(&name);
            if let Some(unknown) = only.iter().find(|name| sections::ALL.iter().all(|(known, _)| known != *name)) {
                panic!("there is no part {unknown}: {}", sections::ALL.map(|(name, _)| name).join(" "));
            }
            sections::ALL.iter().filter(|(name, _)| wanted(name)).for_each(|(_, part)| part(&mut scene));
            scene.report.close();
            if let Some(calls) = scene.report.find("calls") {
                let (svg, foot) =
                    (Path::new(output).with_extension("svg"), format!("{}, {}", said("COMMIT"), machine.short()));
                fs::write(&svg, chart::draw(calls, &foot)).expect("writable");
                println!("\nchart: {}", svg.display());
            }
            write(output, &machine, scene.report.json());
        }
        _ => panic!("see the Makefile: bench and bench-compare"),
    }
}

/// Everything that was found, and on what, for programs.
fn write(output: &str, machine: &Machine, mut found: Value) {
    found["machine"] = machine.json();
    found["commit"] = said("COMMIT").into();
    found["date"] = said("DATE").into();
    let text = serde_json::to_string_pretty(&found).expect("JSON");
    fs::write(output, text + "\n").expect("writable");
    println!("\nall figures: {output}");
}

/// What `run` says about this run.
fn said(what: &str) -> String {
    std::env::var(format!("FLOCK_BENCH_{what}")).unwrap_or_default()
}
