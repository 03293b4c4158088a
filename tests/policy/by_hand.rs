//! The suite itself is tried by rulesets that are written by hand: it agrees with a right one, and finds what is wrong with each of
//! several wrong ones. Nothing of flock's policies takes part.

use serde_json::json;

use super::compare::{Asked, assert_agreement, differences};
use super::cyclonus::Cyclonus;
use super::node::Neighbours;
use super::support::host::Host;

/// What the node's filter says of packets to the pod x/a, which only those of the namespace y may reach, at TCP port 80.
fn load(neighbours: &Neighbours<'_>, rules: &[&str]) {
    let link = neighbours.link("x", "a");
    let of = |family: usize| ["a", "b", "c"].map(|name| neighbours.ips("y", name)[family].to_string()).join(", ");
    let rules = rules.join("\n").replace("LINK", &link).replace("Y4", &of(0)).replace("Y6", &of(1));
    let text = format!(
        "table inet hand\ndelete table inet hand\ntable inet hand {{\nchain pods {{\ntype filter hook forward priority 0;\n{rules}\n}}\n}}\n"
    );
    neighbours.host.write("/run/hand.nft", &text);
    neighbours.host.run("nft -f /run/hand.nft");
}

#[test]
fn a_right_ruleset_is_agreed_with_and_each_wrong_one_is_found_out() {
    let host = Host::new();
    let _agent = host.agent().start();
    let mut neighbours = Neighbours::new(&host);
    neighbours.attach_nine();
    let mut cyclonus = Cyclonus::start();
    assert_agreement("without a policy", &mut neighbours, &mut cyclonus, Asked::All);

    let rule = json!({"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": 80}]});
    neighbours.cluster.add_policy("x", "web", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [rule]}));
    const ANSWERS: &str = "ct direction reply accept";
    const WEB4: &str = "oifname LINK ip saddr { Y4 } tcp dport 80 accept";
    const WEB6: &str = "oifname LINK ip6 saddr { Y6 } tcp dport 80 accept";
    const REST: &str = "oifname LINK drop";
    load(&neighbours, &[ANSWERS, WEB4, WEB6, REST]);
    assert_agreement("under the right rules", &mut neighbours, &mut cyclonus, Asked::All);

    for (wrong, rules, probe) in [
        ("one family is forgotten", vec![ANSWERS, WEB4, REST], "2001:db8"),
        ("a port too many", vec![ANSWERS, "oifname LINK ip saddr { Y4 } tcp dport 80-81 accept", WEB6, REST], "TCP/81"),
        (
            "a protocol too many",
            vec![ANSWERS, WEB4, WEB6, "oifname LINK ip saddr { Y4 } sctp dport 80 accept", REST],
            "SCTP/80",
        ),
        ("echoes pass", vec![ANSWERS, WEB4, WEB6, "meta l4proto icmp accept", REST], "ICMP/0"),
        ("somebody too many", vec![ANSWERS, WEB4, WEB6, "ip saddr 192.0.2.9 accept", REST], "stranger"),
        (
            "answers are lost",
            vec![WEB4, WEB6, "iifname LINK meta l4proto udp ct direction reply drop", REST],
            "Nothing",
        ),
        (
            "requests pass and answers do not",
            vec![WEB4, WEB6, "iifname LINK udp sport 80 drop", "oifname LINK udp dport 80 accept", REST],
            "Arrived",
        ),
        ("nothing is filtered", vec![], "packets Answered"),
    ] {
        load(&neighbours, &rules);
        let found = differences(&mut neighbours, &mut cyclonus, Asked::All);
        assert!(found.iter().any(|line| line.contains(probe)), "{wrong}: {found:?}");
        assert!(found.iter().all(|line| line.contains("x/a")), "{wrong}: {found:?}");
    }

    // A policy that no rule follows, and cyclonus with another opinion, are differences as well.
    load(&neighbours, &[ANSWERS, WEB4, WEB6, REST]);
    neighbours.cluster.policies.clear();
    let found = differences(&mut neighbours, &mut cyclonus, Asked::All);
    assert!(
        found.iter().all(|line| line.contains("documented allowed, cyclonus allowed, packets Nothing")),
        "{found:?}"
    );
    assert!(!found.is_empty());
}
