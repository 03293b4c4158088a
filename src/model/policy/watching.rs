//! Which pods of the cluster a node has to know for its policies, in the words in which an API server can be asked for them.
//!
//! Only policies that select a pod of this node ask for any. Must not know how pods are watched, nor what becomes of them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::policy::select::{Labels, Selector};
use crate::policy::{Namespaces, Peer, Policy, Ports, Rule, covers};

/// Most watches of pods at once. Where more would be needed, one of all pods takes their place.
///
/// Pods of ten namespaces with two policies each, as charts have them, need 22. A watch costs the agent a thread and a connection:
/// 22 of them take 4.4 MB with their pods, and one of all of 10,000 pods 15 MB. It also brings ten times the bytes, in its list
/// and with each pod that starts anywhere, as `make bench-watch` shows.
pub const WATCHES_MAX: usize = 32;

/// No more than so many watches take the place of one of all pods again, so that nothing moves to and fro at the limit.
pub const WATCHES_AGAIN: usize = WATCHES_MAX / 2;

/// Most namespaces of one selector that are watched one by one. Where there are more, the pods of all namespaces are.
pub const NAMESPACES_MAX: usize = 3;

/// Longest text of a selector that is asked for, in bytes; more does not pass through every proxy as part of a URL.
pub const TEXT_MAX: usize = 2048;

/// Pods that can be asked for in one watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selection {
    /// Their namespace; none for all.
    pub namespace: Option<Box<str>>,
    /// Their labels.
    pub pods: Selector,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace.as_deref().unwrap_or("*"), self.pods)
    }
}

impl Selection {
    /// All pods of the cluster.
    pub fn all() -> Selection {
        Selection::default()
    }

    /// Whether every pod of `other` is one of these, as far as the words show.
    pub fn covers(&self, other: &Selection) -> bool {
        (self.namespace.is_none() || self.namespace == other.namespace)
            && self.pods.requirements().iter().all(|asked| other.pods.requirements().contains(asked))
    }

    fn of(namespace: Option<&str>, pods: &Selector) -> Selection {
        let fits = |pods: &&Selector| alloc::format!("{pods}").len() <= TEXT_MAX;
        let pods = Some(pods).filter(fits).cloned().unwrap_or_default();
        Selection { namespace: namespace.map(Box::from), pods }
    }
}

/// The selections whose pods `policy` of the namespace `own` is about.
pub fn selections(own: &str, policy: &Policy, namespaces: &BTreeMap<String, Labels>) -> BTreeSet<Selection> {
    let mut found = BTreeSet::new();
    // Whoever has a port of that name is meant, wherever he is.
    let names_a_port = |rule: &Rule| rule.ports.iter().any(|port| matches!(port.ports, Ports::Named(_)));
    if policy.egress.iter().flatten().filter(|rule| rule.peers.is_empty()).any(names_a_port) {
        found.insert(Selection::all());
    }
    for peer in policy.ingress.iter().chain(&policy.egress).flatten().flat_map(|rule| &rule.peers) {
        let Peer::Pods { namespaces: which, pods } = peer else { continue };
        match which {
            Namespaces::Same => {
                found.insert(Selection::of(Some(own), pods));
            }
            Namespaces::Selected(selector) if selector.is_empty() => {
                found.insert(Selection::of(None, pods));
            }
            Namespaces::Selected(_) => {
                let meant = namespaces.iter().filter(|(name, labels)| covers(which, own, name, Some(labels)));
                let meant: Vec<&str> = meant.map(|(name, _)| name.as_str()).take(NAMESPACES_MAX + 1).collect();
                if meant.len() > NAMESPACES_MAX {
                    found.insert(Selection::of(None, pods));
                } else {
                    found.extend(meant.into_iter().map(|name| Selection::of(Some(name), pods)));
                }
            }
        }
    }
    found
}

/// The watches to have, so that each of `needed` is covered, where `current` are those that there are. One that is still needed
/// stays.
pub fn watches(needed: impl IntoIterator<Item = Selection>, current: &BTreeSet<Selection>) -> BTreeSet<Selection> {
    let needed: BTreeSet<Selection> = needed.into_iter().collect();
    let widest = |selection: &Selection| !needed.iter().any(|other| other != selection && other.covers(selection));
    let wanted: BTreeSet<Selection> = needed.iter().filter(|selection| widest(selection)).cloned().collect();
    let most = if current.contains(&Selection::all()) { WATCHES_AGAIN } else { WATCHES_MAX };
    if wanted.len() > most { BTreeSet::from([Selection::all()]) } else { wanted }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::policy::Port;
    use crate::policy::select::{Operator, Requirement};

    fn selector(pairs: &[(&str, &str)]) -> Selector {
        pairs.iter().map(|(key, value)| Requirement::equals(*key, *value)).collect()
    }

    fn selection(namespace: &str, pairs: &[(&str, &str)]) -> Selection {
        Selection { namespace: (namespace != "*").then(|| namespace.into()), pods: selector(pairs) }
    }

    fn pods(namespaces: Namespaces, pairs: &[(&str, &str)]) -> Peer {
        Peer::Pods { namespaces, pods: selector(pairs) }
    }

    fn of(pairs: &[(&str, &str)]) -> Namespaces {
        Namespaces::Selected(selector(pairs))
    }

    fn names(found: &BTreeSet<Selection>) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    /// The selections of a policy of the namespace `web` with these peers in either direction.
    fn asked(ingress: Vec<Peer>, egress: Vec<Peer>) -> Vec<String> {
        let mut namespaces: BTreeMap<String, Labels> = BTreeMap::new();
        for (name, team) in
            [("web", "a"), ("data", "b"), ("dns", "c"), ("n1", "x"), ("n2", "x"), ("n3", "x"), ("n4", "x")]
        {
            namespaces.insert(name.into(), Labels::from([("team", team)]));
        }
        let rule = |peers| Some(std::vec![Rule { peers, ports: Vec::new() }]);
        let policy = Policy { subjects: Selector::default(), ingress: rule(ingress), egress: rule(egress) };
        names(&selections("web", &policy, &namespaces))
    }

    #[test]
    fn a_policy_asks_for_the_pods_that_it_names_and_for_no_others() {
        let block = Peer::Block { cidr: "10.0.0.0/8".parse().expect("a prefix"), except: Vec::new() };
        let none: [&str; 0] = [];
        assert_eq!(asked(std::vec![block], std::vec![]), none);
        assert_eq!(asked(std::vec![pods(Namespaces::Same, &[])], std::vec![]), ["web/"]);
        let dns = pods(of(&[("team", "c")]), &[("app", "dns")]);
        let same = pods(Namespaces::Same, &[("app", "db")]);
        assert_eq!(asked(std::vec![same], std::vec![dns]), ["dns/app=dns", "web/app=db"]);
        assert_eq!(asked(std::vec![pods(of(&[]), &[("app", "scraper")])], std::vec![]), ["*/app=scraper"]);
        assert_eq!(asked(std::vec![pods(of(&[]), &[])], std::vec![]), ["*/"]);
        assert_eq!(
            asked(std::vec![pods(of(&[("team", "nobody")]), &[])], std::vec![]),
            none,
            "until there is such a namespace"
        );
    }

    #[test]
    fn a_named_port_of_everybody_asks_for_all_pods_where_connections_go_out() {
        let rule = |name: &str| Rule {
            peers: Vec::new(),
            ports: std::vec![Port { protocol: crate::protocol::TCP, ports: Ports::Named(name.into()) }],
        };
        let policy = |ingress, egress| Policy { subjects: Selector::default(), ingress, egress };
        let asked = |policy: &Policy| names(&selections("web", policy, &BTreeMap::new()));
        assert_eq!(asked(&policy(None, Some(std::vec![Rule::default(), rule("http")]))), ["*/"]);
        let here: [&str; 0] = [];
        assert_eq!(asked(&policy(Some(std::vec![rule("http")]), Some(std::vec![Rule::default()]))), here);
    }

    #[test]
    fn many_namespaces_of_one_selector_are_asked_for_at_once() {
        let few: Selector = [Requirement {
            key: "team".into(),
            operator: Operator::In(Box::new(["a".into(), "b".into(), "c".into()])),
        }]
        .into_iter()
        .collect();
        let peer = Peer::Pods { namespaces: Namespaces::Selected(few), pods: Selector::default() };
        assert_eq!(asked(std::vec![peer], std::vec![]), ["data/", "dns/", "web/"]);
        assert_eq!(asked(std::vec![pods(of(&[("team", "x")]), &[("app", "a")])], std::vec![]), ["*/app=a"]);
    }

    #[test]
    fn a_selector_too_long_for_a_url_asks_for_more_pods_instead() {
        let values: Box<[Box<str>]> = (0..200).map(|n| alloc::format!("value-number-{n}").into()).collect();
        let long: Selector = [Requirement { key: "app".into(), operator: Operator::In(values) }].into_iter().collect();
        let peer = Peer::Pods { namespaces: Namespaces::Same, pods: long };
        assert_eq!(asked(std::vec![peer], std::vec![]), ["web/"]);
    }

    fn watched(needed: &[Selection], current: &[Selection]) -> Vec<String> {
        names(&watches(needed.to_vec(), &current.iter().cloned().collect()))
    }

    #[test]
    fn what_another_watch_shows_needs_none_of_its_own() {
        let needed = [
            selection("web", &[("app", "a"), ("tier", "front")]),
            selection("web", &[("app", "a")]),
            selection("web", &[("app", "b")]),
            selection("data", &[("app", "a")]),
            selection("data", &[("app", "a")]),
        ];
        assert_eq!(watched(&needed, &[]), ["data/app=a", "web/app=a", "web/app=b"]);
        let wider = [needed.as_slice(), &[selection("*", &[("app", "a")])]].concat();
        assert_eq!(watched(&wider, &[]), ["*/app=a", "web/app=b"]);
        let all = [needed.as_slice(), &[Selection::all()]].concat();
        assert_eq!(watched(&all, &[]), ["*/"]);
        assert_eq!(watched(&[], &[Selection::all()]), Vec::<String>::new(), "nothing is needed, nothing is watched");
    }

    #[test]
    fn many_watches_become_one_of_everything_and_come_back_only_when_they_are_few() {
        let many: Vec<Selection> = (0..33).map(|n| selection(&alloc::format!("n{n:02}"), &[])).collect();
        assert_eq!(watched(&many[..32], &[]).len(), 32);
        assert_eq!(watched(&many, &many[..32]), ["*/"]);
        let all = [Selection::all()];
        assert_eq!(watched(&many[..32], &all), ["*/"], "one more, one less: nothing moves");
        assert_eq!(watched(&many[..17], &all), ["*/"]);
        assert_eq!(watched(&many[..16], &all).len(), 16);
    }

    #[test]
    fn whatever_is_needed_is_covered_and_a_watch_that_is_needed_stays() {
        let pairs: [&[(&str, &str)]; 4] = [&[], &[("a", "1")], &[("b", "2")], &[("a", "1"), ("b", "2")]];
        let universe: Vec<Selection> = ["*", "n1", "n2", "n3"]
            .iter()
            .flat_map(|namespace| pairs.map(|pairs| selection(namespace, pairs)))
            .collect();
        for chosen in 0..1_u32 << universe.len() {
            // A sixteenth of all sets, spread evenly.
            if chosen % 16 != chosen / 4096 % 16 {
                continue;
            }
            let needed: Vec<Selection> =
                universe.iter().enumerate().filter(|(n, _)| chosen >> n & 1 == 1).map(|(_, s)| s.clone()).collect();
            let first = watches(needed.clone(), &BTreeSet::new());
            assert!(
                needed.iter().all(|needed| first.iter().any(|watch| watch.covers(needed))),
                "{needed:?}: {first:?}"
            );
            assert!(first.len() <= WATCHES_MAX);
            assert_eq!(watches(needed.clone(), &first), first, "the same need, the same watches");
        }
    }
}
