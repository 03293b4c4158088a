//! What shells need to know for completing a command line of `flock-agent`: a script for each, made from the tables.
//!
//! Offers what fits: commands, flags of the command, words where only some are right, files or directories where these are. The
//! parts that are the same whatever the tables hold stand beside this file. Must not know a command or a flag by its name.

use std::fmt::Write as _;

use crate::cli::pages::PAGES;
use crate::cli::table::{Flag, Group, Kind, Operand, Page, Times};

/// The script for this shell, if it is one that is known.
pub fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// What fits as a value.
enum Offer {
    /// Nothing that a shell could know.
    Nothing,
    Files,
    Directories,
    Words(&'static [&'static str]),
    Commands,
}

fn offer(kind: Kind) -> Offer {
    match kind {
        Kind::Text | Kind::Seconds(_) | Kind::Address => Offer::Nothing,
        Kind::File | Kind::AbsoluteFile | Kind::Socket => Offer::Files,
        Kind::Directory | Kind::AbsoluteDirectory => Offer::Directories,
        Kind::OneOf(words) => Offer::Words(words),
        Kind::Command => Offer::Commands,
    }
}

/// Each beginning of a command, and the words that can follow, each with what the command does.
fn beginnings() -> Vec<(String, Vec<(&'static str, &'static str)>)> {
    let mut found: Vec<(String, Vec<(&str, &str)>)> = Vec::new();
    for page in PAGES {
        let words: Vec<&str> = page.word.split(' ').collect();
        for (at, word) in words.iter().enumerate() {
            let typed = words.iter().take(at).copied().collect::<Vec<_>>().join(" ");
            match found.iter_mut().find(|(known, _)| *known == typed) {
                Some((_, next)) if next.iter().any(|(known, _)| known == word) => {}
                Some((_, next)) => next.push((word, page.summary)),
                None => found.push((typed, vec![(word, page.summary)])),
            }
        }
    }
    found
}

/// `--name`, and `-n` if it has a letter.
fn names(flag: &Flag) -> Vec<String> {
    let letter = flag.letter.map(|letter| format!("-{letter}"));
    [Some(flag.name.to_owned()), letter].into_iter().flatten().collect()
}

/// For bash and zsh, which take what stands between single quotes as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// One branch of a `case` of bash and zsh.
fn branch(pattern: &str, action: &str) -> String {
    format!("    {pattern}) {action} ;;\n")
}

/// A script with its parts in place.
fn filled(script: &str, parts: &[(&str, String)]) -> String {
    parts.iter().fold(script.into(), |script, (name, part)| script.replace(&format!("@{name}@\n"), part))
}

fn bash() -> String {
    let (mut words, mut commands, mut values, mut operands) = <(String, String, String, String)>::default();
    for (typed, next) in beginnings() {
        let next: Vec<&str> = next.into_iter().map(|(word, _)| word).collect();
        words += &branch(&quoted(&typed), &format!("echo {}", quoted(&next.join(" "))));
    }
    for page in PAGES {
        // The daemon has no word where nothing stands before a flag, and none at all where a flag comes first.
        let bare = if page.group == Group::Daemon { " | ' ' | -*" } else { "" };
        let flags: Vec<&str> = page.program.flags().map(|flag| flag.name).collect();
        let flags = flags.join(" ");
        commands += &branch(&format!("'{} '*{bare}", page.word), &format!("command='{}' flags='{flags}'", page.word));
        for (flag, value) in page.program.flags().filter_map(|flag| Some((flag, flag.value.as_ref()?))) {
            let named: Vec<String> = names(flag).iter().map(|name| format!("'{} {name}'", page.word)).collect();
            values += &branch(&named.join(" | "), &bash_offer(page, value.kind));
        }
        for operand in page.operands {
            operands += &branch(&quoted(page.word), &bash_offer(page, operand.kind));
        }
    }
    let parts = [("words", words), ("commands", commands), ("values", values), ("operands", operands)];
    filled(include_str!("bash.sh"), &parts)
}

fn bash_offer(page: &Page, kind: Kind) -> String {
    match offer(kind) {
        Offer::Nothing => "return".into(),
        Offer::Files => "compopt -o default; return".into(),
        Offer::Directories => "compopt -o dirnames; return".into(),
        Offer::Words(list) => format!("words='{}'", list.join(" ")),
        Offer::Commands => format!("typed=${{typed#'{}'}} words=$(_flock_agent_words \"${{typed# }}\")", page.word),
    }
}

fn zsh() -> String {
    let (mut words, mut commands, mut arguments) = <(String, String, String)>::default();
    for (typed, next) in beginnings() {
        let next: Vec<String> = next.iter().map(|(word, what)| quoted(&format!("{word}:{what}"))).collect();
        words += &branch(&quoted(&typed), &format!("found=({})", next.join(" ")));
    }
    for page in PAGES {
        commands += &branch(&format!("'{} '*", page.word), &format!("command='{}'", page.word));
        let specs = page.program.flags().flat_map(zsh_flag).chain(page.operands.iter().map(zsh_operand));
        let specs: String = specs.map(|spec| format!("\n            {}", quoted(&spec))).collect();
        arguments += &branch(&quoted(page.word), &format!("arguments=({specs}\n        )"));
    }
    let daemon = PAGES.iter().find(|page| page.group == Group::Daemon).map_or("", |page| page.word);
    let parts = [("words", words), ("commands", commands), ("daemon", format!("{daemon}\n")), ("arguments", arguments)];
    filled(include_str!("zsh.sh"), &parts)
}

/// What `_arguments` is told of a flag, and of its letter.
fn zsh_flag(flag: &Flag) -> Vec<String> {
    let names = names(flag);
    // What is typed already is not offered again.
    let others: Vec<&str> = names.iter().map(String::as_str).chain(flag.excludes.iter().copied()).collect();
    let others = others.join(" ");
    let help = flag.help.replace('\\', r"\\").replace('[', r"\[").replace(']', r"\]");
    let spec = |name: &String| match &flag.value {
        None => format!("({others}){name}[{help}]"),
        Some(value) => {
            let sign = if name.starts_with("--") { '=' } else { '+' };
            format!("({others}){name}{sign}[{help}]:{}:{}", value.name, zsh_offer(value.kind))
        }
    };
    names.iter().map(spec).collect()
}

fn zsh_operand(operand: &Operand) -> String {
    let times = match operand.times {
        Times::Once => ":",
        Times::AtMostOnce => "::",
        Times::AtLeastOnce | Times::Any => "*:",
    };
    format!("{times}{}:{}", operand.name, zsh_offer(operand.kind))
}

fn zsh_offer(kind: Kind) -> String {
    match offer(kind) {
        // An empty list, beside which flags are still offered; a message in its place would keep them away.
        Offer::Nothing => "()".into(),
        Offer::Files => "_files".into(),
        Offer::Directories => "_files -/".into(),
        Offer::Words(list) => format!("({})", list.join(" ")),
        Offer::Commands => r#"{_flock-agent-words "${(j: :)words[2,CURRENT-1]}"}"#.into(),
    }
}

fn fish() -> String {
    let mut lines = String::new();
    let mut line = |when: &str, what: &str, help: &str| {
        let help = help.replace('\\', r"\\").replace('\'', r"\'");
        writeln!(lines, "complete -c flock-agent -n '__flock_agent_{when}' {what} -d '{help}'").ok();
    };
    for (typed, next) in beginnings() {
        for (word, what) in next {
            line(format!("typed {typed}").trim_end(), &format!("-a {word}"), what);
        }
    }
    for page in PAGES {
        let bare = if page.group == Group::Daemon { "; or __flock_agent_flags" } else { "" };
        for flag in page.program.flags() {
            let letter = flag.letter.map(|letter| format!("-s {letter} ")).unwrap_or_default();
            let value = flag.value.as_ref().map(|value| fish_offer(value.kind)).unwrap_or_default();
            let what = format!("{letter}-l {}{value}", flag.name.trim_start_matches('-'));
            line(&format!("is {}{bare}", page.word), &what, flag.help);
        }
        for operand in page.operands {
            match offer(operand.kind) {
                Offer::Nothing => {}
                Offer::Files => line(&format!("is {}", page.word), "-F", operand.help),
                Offer::Directories => line(&format!("is {}", page.word), fish_offer(operand.kind).trim(), operand.help),
                Offer::Words(list) => {
                    line(&format!("is {}", page.word), &format!("-a '{}'", list.join(" ")), operand.help);
                }
                Offer::Commands => {
                    for (typed, next) in beginnings() {
                        for (word, what) in next {
                            let when = format!("typed {} {typed}", page.word);
                            line(when.trim_end(), &format!("-a {word}"), what);
                        }
                    }
                }
            }
        }
    }
    filled(include_str!("fish.fish"), &[("lines", lines)])
}

fn fish_offer(kind: Kind) -> String {
    match offer(kind) {
        Offer::Nothing | Offer::Commands => " -x".into(),
        Offer::Files => " -r -F".into(),
        Offer::Directories => " -x -a '(__fish_complete_directories)'".into(),
        Offer::Words(list) => format!(" -x -a '{}'", list.join(" ")),
    }
}
