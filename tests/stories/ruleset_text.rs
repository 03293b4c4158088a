//! Rulesets as text, judged by `nft`: it takes the text, and prints the same again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use flock::kernel::netns::Netns;
use flock::kernel::nftables::socket::Nftables;
use model::ruleset::diff::diff;
use model::ruleset::text::Text;
use model::ruleset::{Field, Op, Ruleset, Statement, Value};

use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::waiting::PATIENCE;

#[path = "../../src/model/ruleset/examples.rs"]
#[allow(dead_code, reason = "the model's own tests use the rest")]
mod examples;

/// The text of all tables.
fn text(ruleset: &Ruleset) -> String {
    ruleset.iter().map(|(key, table)| Text(*key, table).to_string()).collect()
}

/// What a listing says, whatever its order: for each set, map and chain its lines, rules in order and all else sorted.
fn parts(listing: &str) -> BTreeMap<String, Vec<String>> {
    let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut table, mut part) = (String::new(), String::new());
    let mut in_elements = false;
    for line in listing.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_suffix(" {").filter(|name| name.starts_with("table ")) {
            table = name.to_owned();
            part = name.to_owned();
            parts.insert(part.clone(), Vec::new());
        } else if let Some(name) = line.strip_suffix(" {") {
            part = format!("{table} {name}");
            parts.insert(part.clone(), Vec::new());
        } else if line != "}" {
            let lines = parts.get_mut(&part).expect("a part");
            in_elements |= line.starts_with("elements = {");
            if in_elements {
                let elements = line.trim_start_matches("elements = {").trim_end_matches('}');
                lines.extend(elements.split(',').map(|element| element.trim().to_owned()).filter(|e| !e.is_empty()));
                in_elements = !line.ends_with('}');
            } else {
                lines.push(line.to_owned());
            }
        }
    }
    for lines in parts.iter_mut().filter(|(name, _)| !name.contains(" chain ")).map(|(_, lines)| lines) {
        lines.sort();
    }
    parts
}

/// Has `nft` carry out this text, in place of everything that is there.
#[track_caller]
fn load(host: &Host, text: &str) {
    let mut nft = host.command("nft");
    let mut child =
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nft (nftables) starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(format!("flush ruleset\n{text}").as_bytes()).expect("read");
    drop(input);
    let output = child.wait_with_output().expect("waited for");
    assert!(output.status.success(), "{}\nin\n{text}", String::from_utf8_lossy(&output.stderr));
}

/// Has the host's kernel go from one ruleset to another, as the agent has it.
#[track_caller]
pub(crate) fn carry_out(host: &Host, shown: &Ruleset, wanted: &Ruleset) {
    let open = || Nftables::open().expect("a socket");
    let mut nft = Netns::open(&host.netns()).expect("a namespace").run(open).expect("entered");
    nft.apply(&diff(wanted, shown), Instant::now() + PATIENCE).expect("taken");
}

/// The same for `nft`, which reads a port of a connection only where the rule has named a protocol, although the kernel does not
/// care.
fn readable(mut ruleset: Ruleset) -> Ruleset {
    let asks = |statement: &Statement| matches!(statement, Statement::In(fields, ..) if fields.contains(&Field::ConnectionPort));
    let rules = ruleset.values_mut().flat_map(|table| table.chains.values_mut()).flat_map(|chain| &mut chain.rules);
    for rule in rules.filter(|rule| rule.iter().any(asks)) {
        rule.insert(0, Statement::Is(Field::Protocol, Op::Eq, Value::Byte(6)));
    }
    ruleset
}

#[test]
fn nft_takes_the_text_of_any_ruleset_and_prints_the_same_again() {
    let host = Host::with(&[]);
    let mut rules = 0;
    for seed in 0..100 {
        let ours = text(&readable(examples::ruleset(seed)));
        load(&host, &ours);
        let listed = host.run("nft -s list ruleset");
        assert_eq!(parts(&listed), parts(&ours), "seed {seed}: nft prints\n{listed}\nand we\n{ours}");
        rules += parts(&ours)
            .iter()
            .filter(|(name, _)| name.contains(" chain "))
            .map(|(_, lines)| lines.len())
            .sum::<usize>();
    }
    assert!(rules > 1000, "the examples have only {rules} rules");
}

#[test]
fn the_kernel_takes_the_way_from_any_ruleset_to_any_other_and_nft_prints_what_was_wanted() {
    let host = Host::with(&[]);
    let open = || Nftables::open().expect("a socket");
    let mut nft = Netns::open(&host.netns()).expect("a namespace").run(open).expect("entered");
    let mut shown = Ruleset::new();
    for seed in 0..150 {
        let wanted = examples::ruleset(seed);
        let changes = diff(&wanted, &shown);
        if let Err(error) = nft.apply(&changes, Instant::now() + PATIENCE) {
            panic!("seed {seed}: {error}\nfrom {shown:#?}\nby {changes:#?}");
        }
        let listed = host.run("nft -s list ruleset");
        assert_eq!(parts(&listed), parts(&text(&wanted)), "seed {seed}: nft prints\n{listed}");
        shown = wanted;
    }
}
