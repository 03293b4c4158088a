//! Writes the manual pages and the completions into a directory, as `man/manN` and `completions`: `cargo run --example pages -- DIRECTORY`.
//! The date of the pages is SOURCE_DATE_EPOCH.
//!
//! An example and not a command of the agent: only who makes packages needs it. Holds no word about flock itself; the files beside it
//! take theirs from the tables, the schema and README, and only what stands nowhere else is written there.
#![allow(clippy::print_stderr, unreachable_pub)]

mod agent;
mod mdoc;
mod nodeconfig;
mod plugin;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use flock::cli::completion;

fn main() -> ExitCode {
    let directory = std::env::args_os().nth(1);
    let time = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let (Some(directory), Some(time)) = (directory, time) else {
        eprintln!("pages: SOURCE_DATE_EPOCH=SECONDS pages DIRECTORY");
        return ExitCode::from(2);
    };
    let date = mdoc::date(time);
    let script = |shell: &str| completion::script(shell).unwrap_or_default();
    for (below, name, text) in [
        ("man/man8", "flock-agent.8", agent::page(&date)),
        ("man/man8", "flock-cni.8", plugin::page(&date)),
        ("man/man5", "flock-nodeconfig.5", nodeconfig::page(&date)),
        ("completions", "flock-agent.bash", script("bash")),
        ("completions", "_flock-agent", script("zsh")),
        ("completions", "flock-agent.fish", script("fish")),
    ] {
        let below = Path::new(&directory).join(below);
        let file = below.join(name);
        if let Err(error) = fs::create_dir_all(&below).and_then(|()| fs::write(&file, text)) {
            eprintln!("pages: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
