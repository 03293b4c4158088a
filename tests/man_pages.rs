//! The manual pages say what is so: each command, flag and example of the table, each field that NodeConfigs are read by, each annotation, each
//! variable, key and code of the plugin. Whether they can be read as manual pages, `make test-dist` tries on those of the package.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
#![allow(unreachable_pub)]

#[path = "../dist/man/agent.rs"]
mod agent;
#[path = "../dist/man/mdoc.rs"]
mod mdoc;
#[path = "../dist/man/nodeconfig.rs"]
mod nodeconfig;
#[path = "../dist/man/plugin.rs"]
mod plugin;

use std::collections::BTreeSet;

use cni::error::Code;
use flock::cli::help;
use flock::cli::pages::PAGES;
use model::annotations::{Defaults, PREFIX, intent};
use model::nodeconfig as config;

const DATE: &str = "February 29, 2024";

/// The page as somebody reads it, without its macros and escapes.
fn read(page: &str) -> String {
    let plain = ["\\&", "\\fB", "\\fP", "\""].iter().fold(page.to_owned(), |text, mark| text.replace(mark, ""));
    [("\\-", "-"), ("\\(aq", "'"), ("\\(dq", "\""), ("\\(ga", "`"), ("\\(ha", "^"), ("\\(ti", "~"), ("\\e", "\\")]
        .iter()
        .fold(plain, |text, (escape, letter)| text.replace(escape, letter))
}

/// The names of the page's lists that one macro marks.
fn items(page: &str, mark: &str) -> BTreeSet<String> {
    let items = page.lines().filter_map(|line| line.strip_prefix(&format!(".It {mark} ")));
    items
        .flat_map(|names| names.split(" , "))
        .map(|name| read(name.trim_start_matches(mark)).trim().to_owned())
        .collect()
}

#[test]
fn the_page_of_the_agent_has_every_command_flag_file_and_example() {
    assert_eq!([0, 1_709_251_199].map(mdoc::date), ["January 1, 1970", DATE]);
    let page = agent::page(DATE);
    let shown = read(&page);
    assert!(shown.starts_with(".Dd February 29, 2024\n.Dt FLOCK-AGENT 8\n"), "{shown}");
    for known in PAGES {
        let (_, part) = shown.split_once(&format!("\n.Ss {}\n", known.command())).expect(known.word);
        let part = part.split("\n.Ss ").next().expect("a part").split("\n.Sh ").next().expect("a part");
        for flag in known.program.flags() {
            let value = flag.value.as_ref().map(|value| format!(" Ar {}", value.name)).unwrap_or_default();
            let letter = flag.letter.map(|letter| format!("Fl {letter} , ")).unwrap_or_default();
            let name = flag.name.strip_prefix('-').expect("a dash");
            let (_, after) = part
                .split_once(&format!("\n.It {letter}Fl {name}{value}\n"))
                .unwrap_or_else(|| panic!("{} {name}", known.word));
            let said = after.split("\n.It").next().expect("a text").replace('\n', " ");
            let value = help::default(flag).unwrap_or_default();
            assert!(said.contains(&value), "{} {name}: {said}", known.word);
        }
        for operand in known.operands {
            assert!(part.contains(&format!("\n.It Ar {}\n", operand.name)), "{} {}", known.word, operand.name);
        }
        for (exit, what) in known.exits {
            let (_, after) = part.split_once(&format!("\n.It Ic {}\n", exit.code())).expect(what);
            let said = mdoc::sentence(&what.replace('`', ""));
            assert!(after.replace('\n', " ").starts_with(&said), "{}: {said}", known.word);
        }
        for (line, _) in known.examples {
            assert!(shown.contains(&format!("\n.It Ic {}\n", line.replace('"', ""))), "{line}");
        }
        for (path, _) in known.files {
            assert!(shown.contains(&format!("\n.It Pa {path}\n")), "{path}");
        }
    }
}

#[test]
fn the_page_of_the_node_config_has_the_fields_that_are_read_and_no_others() {
    let page = items(&nodeconfig::page(DATE), "Ic");
    // What the reader says of a field that does not exist: the object that it is in, and the fields that are there.
    let text = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: a}\nspec:\n  cidr4: 10.0.0.0/24\n  no: 1\n  \
                defaults: {no: 1}\n  policy: {no: 1}\n  masquerade: {no: 1}\n  \
                bgp: {no: 1, peers: [{no: 1, name: a, address: 192.0.2.1, asn: 1, bfd: {no: 1}}]}\n";
    let said = config::parse(text).expect_err("no such fields");
    let mut fields = BTreeSet::new();
    for problem in said.problems() {
        let parts = problem.text.split_once(".no is no field of a NodeConfig: the fields here are ");
        let Some((object, names)) = parts else { continue };
        let object = object.replace("[0]", "[]");
        fields.extend(names.replace(" and ", ", ").split(", ").map(|name| format!("{object}.{name}")));
    }
    assert!(fields.contains("spec.bgp.peers[].bfd.interval") && fields.len() > 30, "{said:?}");
    let shown: BTreeSet<String> = page.iter().filter(|name| name.starts_with("spec.")).cloned().collect();
    assert_eq!(fields, shown);

    // The example is one, and is what README has.
    let text = nodeconfig::page(DATE);
    let (_, example) = text.split_once(".Bd -literal -offset indent\n").expect("an example");
    config::parse(read(example.split(".Ed").next().expect("its end"))).expect("a NodeConfig");
}

#[test]
fn the_page_of_the_node_config_has_every_annotation() {
    let annotations = [(format!("{PREFIX}no"), String::new())].into_iter().collect();
    let defaults = Defaults { ipv6: true, ipv4: true, ip_algo: None };
    let (_, warnings) = intent(&annotations, &defaults).expect("a warning");
    let said = warnings.iter().map(ToString::to_string).collect::<String>();
    let (_, names) = said.split_once(&format!("the keys under {PREFIX} are ")).expect("the keys");
    let known: BTreeSet<String> =
        names.replace(" and ", ", ").split(", ").map(|name| format!("{PREFIX}{name}")).collect();
    let shown = items(&nodeconfig::page(DATE), "Ic").into_iter().filter(|name| name.starts_with(PREFIX)).collect();
    assert_eq!(known, shown);
}

#[test]
fn the_page_of_the_plugin_has_every_variable_key_and_code() {
    let page = plugin::page(DATE);
    let sources = [include_str!("../src/cni/env.rs"), include_str!("../src/cni/netconf.rs")]
        .map(|text| text.split("#[cfg(test)]").next().expect("the product"));
    let strings = |source: &'static str| {
        source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
    };
    let named: BTreeSet<String> =
        strings(sources[0]).filter(|word| word.starts_with("CNI_")).map(str::to_owned).collect();
    assert!(named.len() > 4, "{named:?}");
    assert_eq!(named, items(&page, "Ev"));

    let keys = items(&page, "Ic");
    let calls = ["text", "get"].map(|call| format!(".{call}(\""));
    let read: BTreeSet<&str> = calls
        .iter()
        .flat_map(|call| sources[1].split(call.as_str()).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(read.len() > 3, "{read:?}");
    for key in read {
        assert!(keys.contains(key), "{key}");
    }
    let codes: BTreeSet<u32> = keys.iter().filter_map(|key| key.parse().ok()).collect();
    let said: BTreeSet<u32> =
        Code::ALL.into_iter().filter(|code| plugin::meaning(*code).is_some()).map(Code::number).collect();
    assert!(codes.is_superset(&said) && said.len() == 10, "{codes:?}");
}
