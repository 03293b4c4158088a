//! Which pods of the cluster a node has to know for its policies, in the words in which an API server can be asked for them.
//!
//! Only policies that select a pod of this node ask for any. Must not know how pods are watched, nor what becomes of them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::policy::select::{Labels, Operator, Requirement, Selector};
use crate::policy::{Namespaces, Peer, Policy, Ports, Rule, covers, spec};

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

/// Most watches beside one that may all show the same pods. Whoever writes policies chooses the selectors, and a pod that 32
/// watches show is in memory, and comes over the wire, as many times.
pub const ALIKE_MAX: usize = 3;

/// No more than so many, beside one, take the place of one of all pods there again.
pub const ALIKE_AGAIN: usize = 1;

/// Most selections that are compared with each other. Where there are more, the pods of all namespaces are watched.
pub const COMPARED_MAX: usize = 8 * WATCHES_MAX;

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

    /// Whether a pod may be one of both, as far as the words show.
    pub fn meets(&self, other: &Selection) -> bool {
        let same_space = self.namespace.is_none() || other.namespace.is_none() || self.namespace == other.namespace;
        let requirements = || self.pods.requirements().iter();
        same_space && !requirements().any(|one| other.pods.requirements().iter().any(|other| are_apart(one, other)))
    }

    /// What to ask for to see all pods that `pods` selects; none if no pod can be one. Of a label that no pod can have, the server
    /// does not take a question. What only says of pods what they are not selects nearly all of them, and many such say the same.
    fn of(namespace: Option<&str>, pods: &Selector) -> Option<Selection> {
        let mut asked = Vec::new();
        for requirement in pods.requirements() {
            match sayable(requirement) {
                Some(Sayable::Nobody) => return None,
                Some(Sayable::As(requirement)) => asked.push(requirement),
                None => {}
            }
        }
        let names_some = asked.iter().any(|one| matches!(one.operator, Operator::In(_) | Operator::Exists));
        let pods: Selector = asked.into_iter().filter(|_| names_some).collect();
        let fits = |pods: &Selector| alloc::format!("{pods}").len() <= TEXT_MAX;
        Some(Selection { namespace: namespace.map(Box::from), pods: Some(pods).filter(fits).unwrap_or_default() })
    }
}

/// Whether no labels are as both ask.
fn are_apart(one: &Requirement, other: &Requirement) -> bool {
    let values = |requirement: &Requirement| match &requirement.operator {
        Operator::In(values) => values.clone(),
        _ => Box::default(),
    };
    let (mine, theirs) = (values(one), values(other));
    one.key == other.key && !mine.is_empty() && !theirs.is_empty() && !mine.iter().any(|value| theirs.contains(value))
}

/// What can be asked of a server in the place of a requirement.
enum Sayable {
    /// No pod is so.
    Nobody,
    /// This, which says the same.
    As(Requirement),
}

/// None: every pod is so.
fn sayable(Requirement { key, operator }: &Requirement) -> Option<Sayable> {
    let possible = |values: &[Box<str>]| -> Box<[Box<str>]> {
        let key_fits = spec::is_label_key(key);
        values.iter().filter(|value| key_fits && spec::is_label_value(value)).cloned().collect()
    };
    let say = |operator| Some(Sayable::As(Requirement { key: key.clone(), operator }));
    match operator {
        Operator::In(values) => match possible(values) {
            values if values.is_empty() => Some(Sayable::Nobody),
            values => say(Operator::In(values)),
        },
        Operator::NotIn(values) => match possible(values) {
            values if values.is_empty() => None,
            values => say(Operator::NotIn(values)),
        },
        Operator::Exists if !spec::is_label_key(key) => Some(Sayable::Nobody),
        Operator::DoesNotExist if !spec::is_label_key(key) => None,
        operator => say(operator.clone()),
    }
}

/// The selections whose pods `policy` of the namespace `own` is about; all pods if there would be more than [`COMPARED_MAX`].
pub fn selections(own: &str, policy: &Policy, namespaces: &BTreeMap<String, Labels>) -> BTreeSet<Selection> {
    let mut found = BTreeSet::new();
    // Whoever has a port of that name is meant, wherever he is.
    let names_a_port = |rule: &Rule| rule.ports.iter().any(|port| matches!(port.ports, Ports::Named(_)));
    if policy.egress.iter().flatten().filter(|rule| rule.peers.is_empty()).any(names_a_port) {
        found.insert(Selection::all());
    }
    for peer in policy.ingress.iter().chain(&policy.egress).flatten().flat_map(|rule| &rule.peers) {
        if found.len() > COMPARED_MAX {
            return BTreeSet::from([Selection::all()]);
        }
        let Peer::Pods { namespaces: which, pods } = peer else { continue };
        match which {
            Namespaces::Same => {
                found.extend(Selection::of(Some(own), pods));
            }
            Namespaces::Selected(selector) if selector.is_empty() => {
                found.extend(Selection::of(None, pods));
            }
            Namespaces::Selected(_) => {
                let meant = namespaces.iter().filter(|(name, labels)| covers(which, own, name, Some(labels)));
                let meant: Vec<&str> = meant.map(|(name, _)| name.as_str()).take(NAMESPACES_MAX + 1).collect();
                if meant.len() > NAMESPACES_MAX {
                    found.extend(Selection::of(None, pods));
                } else {
                    found.extend(meant.into_iter().filter_map(|name| Selection::of(Some(name), pods)));
                }
            }
        }
    }
    found
}

/// Those that no other one covers.
fn widest(selections: BTreeSet<Selection>) -> BTreeSet<Selection> {
    let is_covered = |one: &Selection| selections.iter().any(|other| other != one && other.covers(one));
    selections.iter().filter(|selection| !is_covered(selection)).cloned().collect()
}

/// The watches to have, so that each of `needed` is covered, where `current` are those that there are. One that is still needed
/// stays.
pub fn watches(needed: impl IntoIterator<Item = Selection>, current: &BTreeSet<Selection>) -> BTreeSet<Selection> {
    let needed: BTreeSet<Selection> = needed.into_iter().collect();
    let all_of = |namespace: &Option<Box<str>>| Selection { namespace: namespace.clone(), pods: Selector::default() };
    let is_all = |one: &Selection| one.pods.is_empty();
    let has_all_of = |one: &Selection| needed.contains(&Selection::all()) || needed.contains(&all_of(&one.namespace));
    let compared: BTreeSet<Selection> = needed.iter().filter(|one| is_all(one) || !has_all_of(one)).cloned().collect();
    if compared.len() > COMPARED_MAX {
        return BTreeSet::from([Selection::all()]);
    }
    let mut wanted = widest(compared);
    // Those of one namespace, or of all, that may show the same pods become one of all its pods.
    let crowded = |wanted: &BTreeSet<Selection>| {
        let alike = |one: &Selection, other: &Selection| one.namespace == other.namespace && one.meets(other);
        let room = |one: &Selection| if current.contains(&all_of(&one.namespace)) { ALIKE_AGAIN } else { ALIKE_MAX };
        let crowd = |one: &&Selection| wanted.iter().filter(|other| alike(one, other)).count() > room(one) + 1;
        wanted.iter().find(crowd).map(|one| one.namespace.clone())
    };
    while let Some(namespace) = crowded(&wanted) {
        wanted.insert(all_of(&namespace));
        wanted = widest(wanted);
    }
    let most = if current.contains(&Selection::all()) { WATCHES_AGAIN } else { WATCHES_MAX };
    if wanted.len() > most { BTreeSet::from([Selection::all()]) } else { wanted }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::policy::Port;

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

    fn requirement(key: &str, operator: fn(Box<[Box<str>]>) -> Operator, values: &[&str]) -> Requirement {
        Requirement { key: key.into(), operator: operator(values.iter().map(|value| Box::from(*value)).collect()) }
    }

    #[test]
    fn what_no_label_can_be_is_not_asked_for_and_selects_nobody_or_everybody() {
        let long = "a".repeat(64);
        let ask = |requirements: &[Requirement]| {
            let pods = requirements.iter().cloned().collect();
            asked(std::vec![Peer::Pods { namespaces: Namespaces::Same, pods }], std::vec![])
        };
        let web = || Requirement::equals("app", "web");
        let nobody: [&str; 0] = [];
        for value in ["my app", &long, "-a", "a.", "ä", "a,b", "a)"] {
            assert_eq!(ask(&[Requirement::equals("tier", value), web()]), nobody, "{value}");
            assert_eq!(ask(&[requirement("tier", Operator::In, &["x", value])]), ["web/tier=x"], "{value}");
            assert_eq!(ask(&[requirement("tier", Operator::NotIn, &[value]), web()]), ["web/app=web"], "{value}");
            assert_eq!(
                ask(&[requirement("tier", Operator::NotIn, &["x", value]), web()]),
                ["web/app=web,tier!=x"],
                "{value}"
            );
        }
        assert_eq!(ask(&[Requirement::equals("tier", "")]), ["web/tier="], "a label without a value is one");
        for key in ["", "a b", "A.b/c", "a/b/c", "/a", &long] {
            let none = |operator| Requirement { key: key.into(), operator };
            assert_eq!(ask(&[none(Operator::Exists), web()]), nobody, "{key}");
            assert_eq!(ask(&[none(Operator::DoesNotExist), web()]), ["web/app=web"], "{key}");
            assert_eq!(ask(&[requirement(key, Operator::In, &["a"])]), nobody, "{key}");
            assert_eq!(ask(&[requirement(key, Operator::NotIn, &["a"]), web()]), ["web/app=web"], "{key}");
        }
    }

    #[test]
    fn what_selects_nearly_all_pods_is_asked_for_as_all_of_them() {
        let everywhere = |n: usize, operator: fn(Box<[Box<str>]>) -> Operator| Peer::Pods {
            namespaces: of(&[]),
            pods: [requirement("app", operator, &["web", &alloc::format!("none-{n}")])].into_iter().collect(),
        };
        let many = |operator| (0..32).map(|n| everywhere(n, operator)).collect::<Vec<_>>();
        assert_eq!(asked(many(Operator::NotIn), std::vec![]), ["*/"]);
        let without = |key: &str| Requirement { key: key.into(), operator: Operator::DoesNotExist };
        let peer = |namespaces, of: Vec<Requirement>| Peer::Pods { namespaces, pods: of.into_iter().collect() };
        let unlabelled = std::vec![without("a"), without("b")];
        assert_eq!(asked(std::vec![peer(of(&[("team", "x")]), unlabelled.clone())], std::vec![]), ["*/"]);
        assert_eq!(asked(std::vec![], std::vec![peer(Namespaces::Same, unlabelled)]), ["web/"]);
        let some = std::vec![without("a"), Requirement::equals("app", "web")];
        assert_eq!(asked(std::vec![peer(of(&[]), some)], std::vec![]), ["*/!a,app=web"]);
    }

    #[test]
    fn no_pod_is_shown_by_many_watches_of_one_namespace_or_of_all() {
        for space in ["*", "web"] {
            // Each may be the pods of `web`, or of any other that has the key.
            let namespace = (space != "*").then(|| Box::from(space));
            let by_value = |n: usize| Selection {
                namespace: namespace.clone(),
                pods: [requirement("app", Operator::In, &["web", &alloc::format!("none-{n}")])].into_iter().collect(),
            };
            let by_key = |n: usize| Selection {
                namespace: namespace.clone(),
                pods: [Requirement { key: alloc::format!("k{n}").into(), operator: Operator::Exists }]
                    .into_iter()
                    .collect(),
            };
            let whole = [alloc::format!("{space}/")];
            for many in [(0..5).map(by_value).collect::<Vec<_>>(), (0..5).map(by_key).collect()] {
                assert_eq!(watched(&many[..4], &[]).len(), 4);
                assert_eq!(watched(&many, &many[..4]), whole);
                let all = Selection { namespace: namespace.clone(), pods: Selector::default() };
                assert_eq!(watched(&many[..3], core::slice::from_ref(&all)), whole, "nothing moves at the limit");
                assert_eq!(watched(&many[..2], &[all]).len(), 2);
            }
        }
        // No pod is one of two of these, so many of them cost no more than one of all.
        let names: Vec<Selection> = (0..30).map(|n| selection("*", &[("app", &alloc::format!("a{n}"))])).collect();
        assert_eq!(watched(&names, &[]).len(), 30);
        let spaces: Vec<Selection> = (0..30).map(|n| selection(&alloc::format!("n{n}"), &[("a", "b")])).collect();
        assert_eq!(watched(&spaces, &[]).len(), 30);
    }

    #[test]
    fn selections_without_end_become_one_of_everything_before_they_are_compared() {
        let thousands: Vec<Selection> =
            (0..16_384).map(|n| selection("web", &[("a", &alloc::format!("{n}"))])).collect();
        assert_eq!(watched(&thousands, &[]), ["*/"]);
        let with_all = [thousands.as_slice(), &[selection("web", &[]), selection("data", &[("a", "b")])]].concat();
        assert_eq!(watched(&with_all, &[]), ["data/a=b", "web/"]);
        let peers: Vec<String> = (0..16_384).map(|n| alloc::format!("{n}")).collect();
        let peers = peers.iter().map(|value| pods(Namespaces::Same, &[("a", value)])).collect();
        assert_eq!(asked(std::vec![], peers), ["*/"]);
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
