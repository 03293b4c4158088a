//! The help, from the tables: which programs there are, and all that there is to say about one, in lines that fit a terminal.
//!
//! Must not hold a word about any program itself.

use crate::cli::misuse::listed;
use crate::cli::pages::{EXITS, PAGES};
use crate::cli::table::{Default, Flag, Group, Kind, Operand, Program};

/// Longest line, in characters.
const WIDTH: usize = 80;

/// Where descriptions begin, in characters.
const COLUMN: usize = 24;

/// What `flock-agent --help` prints: every program with one line, in groups.
pub fn overview() -> String {
    let mut text = wrapped("flock-agent: flock, a routed pod network, on this node.", 0);
    text += "\nUsage: flock-agent COMMAND [flags]\n";
    for group in Group::ALL {
        text += &format!("\n{}:\n", group.title());
        for page in PAGES.iter().filter(|page| page.group == group) {
            text += &row(page.word, page.summary);
        }
    }
    text += &section(
        "Exit codes",
        &EXITS.iter().map(|(exit, what)| row(&exit.code().to_string(), what)).collect::<String>(),
    );
    text + "\nflock-agent help COMMAND says everything about one.\n"
}

/// What `--help` prints for a program, with its last line end.
pub fn text(program: Program) -> String {
    let Some(page) = program.page() else { return String::new() };
    let mut text = wrapped(&format!("{}: {}.", page.command(), page.summary), 0);
    if let Some(about) = page.about {
        text += &wrapped(about, 0);
    }
    text += &format!("\n{}", usage(program));
    for (title, rows) in [
        ("Examples", page.examples.iter().map(|(line, what)| block(line, what)).collect::<String>()),
        ("Files", page.files.iter().map(|(path, what)| block(path, what)).collect()),
        ("Exit codes", page.exits.iter().map(|(exit, what)| row(&exit.code().to_string(), what)).collect()),
    ] {
        text += &section(title, &rows);
    }
    text
}

/// What `-h` prints for a program: how it is called.
pub fn usage(program: Program) -> String {
    let Some(page) = program.page() else { return String::new() };
    let operands: String = page.operands.iter().map(|operand| row(operand.name, &explained(operand))).collect();
    let flags: String = program.flags().map(|flag| row(&typed(flag), &described(flag))).collect();
    format!("Usage: {}\n{}{}", page.usage(), section("Arguments", &operands), section("Flags", &flags))
}

fn section(title: &str, rows: &str) -> String {
    if rows.is_empty() { String::new() } else { format!("\n{title}:\n{rows}") }
}

/// A flag as it is typed: `--socket PATH`.
pub fn named(flag: &Flag) -> String {
    match &flag.value {
        Some(value) => format!("{} {}", flag.name, value.name),
        None => flag.name.into(),
    }
}

/// A flag with its one-letter form: `-h, --help`.
pub fn typed(flag: &Flag) -> String {
    match flag.letter {
        Some(letter) => format!("-{letter}, {}", named(flag)),
        None => named(flag),
    }
}

/// What a flag does, and what counts without it.
fn described(flag: &Flag) -> String {
    match default(flag) {
        Some(default) => format!("{} (default: {default})", meaning(flag)),
        None => meaning(flag),
    }
}

/// What a flag does, with the words that it takes if it takes only some.
pub fn meaning(flag: &Flag) -> String {
    flag.help.to_owned() + &flag.value.as_ref().map(|value| choices(value.kind)).unwrap_or_default()
}

/// What counts without a flag, if there is something to say about it.
pub fn default(flag: &Flag) -> Option<String> {
    match flag.value.as_ref()?.default {
        Default::Nothing => None,
        Default::Unset(what) | Default::Value(what) => Some(what.into()),
        Default::ValueIfThere(value) => Some(format!("{value}, if it is there")),
    }
}

/// What an operand is.
pub fn explained(operand: &Operand) -> String {
    operand.help.to_owned() + &choices(operand.kind)
}

/// The words that a value can be, if only some can.
fn choices(kind: Kind) -> String {
    match kind {
        Kind::OneOf(words) => format!(": {}", listed(words)),
        _ => String::new(),
    }
}

/// One line with a name and, in its column, what it is.
fn row(name: &str, what: &str) -> String {
    let name = format!("  {name}");
    let text = wrapped(what, COLUMN);
    if name.len() + 2 > COLUMN {
        format!("{name}\n{text}")
    } else {
        name.clone() + text.get(name.len()..).unwrap_or_default()
    }
}

/// A line that may be long, and below it what it is.
fn block(line: &str, what: &str) -> String {
    format!("  {line}\n{}", wrapped(what, 8))
}

/// Words in lines of at most [`WIDTH`] characters, each indented.
fn wrapped(words: &str, indent: usize) -> String {
    let (mut text, mut line) = (String::new(), String::new());
    for word in words.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            text += &format!("{:indent$}{line}\n", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    text + &format!("{:indent$}{line}\n", "")
}
