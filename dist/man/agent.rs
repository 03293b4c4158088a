//! flock-agent(8), from the table by which the program reads its command line. Must not know a command or a flag by its name.

use flock::cli::help;
use flock::cli::pages::{EXITS, PAGES};
use flock::cli::table::{self, Flag, Group};
use flock::process::exit::Exit;

use crate::mdoc::{Page, argument, path, sentence, typed, variable};

/// The page.
pub fn page(date: &str) -> String {
    let mut page = Page::new("flock-agent", 8, date, "a routed pod network for this node");
    page.section("SYNOPSIS");
    for known in PAGES {
        page.line(".Nm flock-agent");
        for word in known.usage().split(' ').skip(1) {
            let plain = word.trim_matches(['[', ']']);
            let plain = plain.trim_end_matches("...");
            let kind = if known.word.split(' ').any(|part| part == plain) { "Cm" } else { "Ar" };
            let more = if word.contains("...") { " Ns ..." } else { "" };
            let option = if word.starts_with('[') { "Op " } else { "" };
            page.line(&format!(".{option}{kind} {}{more}", argument(plain)));
        }
    }
    page.section("DESCRIPTION");
    page.prose(
        "The daemon of flock, a network for pods on hosts of one's own, and everything that an operator runs beside it. Without a command, \
         the daemon runs. Flags are written `--flag VALUE` or `--flag=VALUE`, in any place behind the command; none may be shortened \
         or given twice. `--` ends them.",
    );
    for group in Group::ALL {
        page.section(&group.title().to_uppercase());
        for known in PAGES.iter().filter(|known| known.group == group) {
            command(&mut page, known);
        }
    }
    page.section("FILES");
    page.list(files().into_iter().map(|(name, what)| (path(name), what)));
    page.section("EXIT STATUS");
    page.list(EXITS.iter().map(exit));
    page.section("EXAMPLES");
    let examples = PAGES.iter().flat_map(|known| known.examples);
    page.list(examples.map(|(line, what)| (typed(line), sentence(what))));
    page.see_also(&[("flock-nodeconfig", 5), ("flock-cni", 8)]);
    page.text()
}

fn command(page: &mut Page, known: &table::Page) {
    page.subsection(&known.command());
    page.prose(&sentence(known.summary));
    if let Some(about) = known.about {
        page.prose(about);
    }
    let operands = known.operands.iter().map(|operand| (variable(operand.name), sentence(&help::explained(operand))));
    page.list(operands.chain(known.program.flags().map(|flag| (called(flag), described(flag)))));
    page.paragraph("It ends with:");
    page.list(known.exits.iter().map(exit));
}

fn exit((exit, what): &(Exit, &'static str)) -> (String, String) {
    (typed(&exit.code().to_string()), sentence(what))
}

/// `-o`, `--output FORMAT`
fn called(flag: &Flag) -> String {
    let letter = flag.letter.map(|letter| format!("Fl {letter} , ")).unwrap_or_default();
    let value = flag.value.as_ref().map(|value| format!(" Ar {}", argument(value.name))).unwrap_or_default();
    // The macro brings the first dash.
    format!("{letter}Fl {}{value}", flag.name.trim_start_matches('-').replace('-', "\\-").replacen("", "\\-", 1))
}

fn described(flag: &Flag) -> String {
    let mut text = sentence(&help::meaning(flag));
    if let Some(default) = help::default(flag) {
        // Values are typed, and words are read.
        let value = flag.value.as_ref().and_then(|value| value.default.value());
        let default = value.map_or(default.clone(), |value| default.replace(value, &format!("`{value}`")));
        text += &format!(" Default: {default}.");
    }
    for excluded in flag.excludes {
        text += &format!(" Excludes `{excluded}`.");
    }
    text
}

/// Every file of every command once, with what it is, or what it is to each command where that differs.
fn files() -> Vec<(&'static str, String)> {
    let mut found: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    for (known, (name, what)) in PAGES.iter().flat_map(|known| known.files.iter().map(move |file| (known, file))) {
        let at = found.iter().position(|(named, _)| named == name).unwrap_or(found.len());
        if at == found.len() {
            found.push((name, Vec::new()));
        }
        let Some((_, told)) = found.get_mut(at) else { continue };
        match told.iter_mut().find(|(known, _)| known == what) {
            Some((_, commands)) => *commands += &format!(", {}", known.word),
            None => told.push((what, known.word.into())),
        }
    }
    let words = |told: Vec<(&str, String)>| match told.as_slice() {
        [(what, _)] => sentence(what),
        several => several.iter().map(|(what, commands)| format!("{commands}: {what}.")).collect::<Vec<_>>().join(" "),
    };
    found.into_iter().map(|(name, told)| (name, words(told))).collect()
}
