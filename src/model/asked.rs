//! The question of `flock-agent explain`: may these two talk, and what decides it?
//!
//! Reads the words of the question, finds who is meant in what is known, and puts the answer together: the check of sources, and
//! what `policy` says. The same for a running agent and for files. Must not ask the kernel anything: what can be counted or
//! compared there is named for whoever does.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::IfName;
use crate::excerpt::Excerpt;
use crate::guard::{self, FILTER};
use crate::policy::explain::{sides, what};
use crate::policy::spec::{is_namespace, is_subdomain};
use crate::policy::verdict::{Endpoint, Question, Side, Verdict, verdict};
use crate::policy::{Direction, PodKey, Subject, World, names};
use crate::protocol::{ICMP, ICMP6, SCTP, TCP, UDP};
use crate::ruleset::{Element, Ruleset};

/// Longest word of a question, in bytes: a namespace, a pod and an address fit.
pub const WORD_MAX: usize = 512;

/// Longest answer, in bytes. What is longer ends with a line that says so.
pub const TEXT_MAX: usize = 256 * 1024;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who begins the connection.
    pub from: Party,
    /// Who gets it.
    pub to: Party,
    /// `IPPROTO_*` and the port; `None`: a ping.
    pub port: Option<(u8, u16)>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// The node itself.
    Node,
    /// Whoever has this address.
    Address(IpAddr),
    /// A pod, by the first of its addresses of each family, or by this one.
    Pod(PodKey, Option<IpAddr>),
}

/// A question that cannot be answered as it stands: nothing is known of what it names, or a word of it is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswerable {
    /// `FROM`, `TO` or `PROTO/PORT`.
    field: &'static str,
    /// What was written, as much as is worth telling.
    value: String,
    /// What is wrong with it, and what to write instead.
    why: String,
}

impl fmt::Display for Unanswerable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unanswerable { field, value, why } = self;
        write!(f, "{field} {value}: {why}")
    }
}

impl core::error::Error for Unanswerable {}

fn unanswerable(field: &'static str, value: &str, why: impl Into<String>) -> Unanswerable {
    Unanswerable { field, value: Excerpt::of(value).to_string(), why: why.into() }
}

impl Asked {
    /// Reads the words of a question.
    ///
    /// # Errors
    /// One of them is none; which, and what it can be.
    pub fn read(from: &str, to: &str, port: Option<&str>) -> Result<Asked, Unanswerable> {
        Ok(Asked { from: party("FROM", from)?, to: party("TO", to)?, port: port.map_or(Ok(None), port_of)? })
    }
}

fn party(field: &'static str, word: &str) -> Result<Party, Unanswerable> {
    let wrong = || {
        let rule = "must be NAMESPACE/POD, NAMESPACE/POD@ADDRESS, an IP address or the word node";
        unanswerable(field, word, rule)
    };
    if word.len() > WORD_MAX {
        return Err(wrong());
    }
    if word == "node" {
        return Ok(Party::Node);
    }
    if let Some((namespace, rest)) = word.split_once('/') {
        let (name, at) = match rest.split_once('@') {
            Some((name, at)) => (name, Some(at.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        // A namespace has no dot in its name, so that a prefix of addresses is none.
        if !is_namespace(namespace) || !is_subdomain(name) {
            return Err(wrong());
        }
        let key = PodKey { namespace: namespace.into(), name: name.into() };
        return Ok(Party::Pod(key, at.map(plain)));
    }
    word.parse().map(|address| Party::Address(plain(address))).map_err(|_| wrong())
}

/// An IPv4 address that is written as one of IPv6 is one of IPv4.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn port_of(word: &str) -> Result<Option<(u8, u16)>, Unanswerable> {
    let wrong = || {
        let rule = "must be TCP/PORT, UDP/PORT or SCTP/PORT with a PORT of 1 to 65535, or ICMP";
        unanswerable("PROTO/PORT", word, rule)
    };
    if word.eq_ignore_ascii_case("icmp") {
        return Ok(None);
    }
    let (name, port) = word.split_once('/').ok_or_else(wrong)?;
    let protocols = [("tcp", TCP), ("udp", UDP), ("sctp", SCTP)];
    let known = protocols.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    let port = port.parse().ok().filter(|port| *port != 0 && port_is_plain(word));
    known.zip(port).map(|((_, protocol), port)| Some((*protocol, port))).ok_or_else(wrong)
}

/// Numbers are read with a sign as well.
fn port_is_plain(word: &str) -> bool {
    !word.contains('+')
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The cluster.
    pub world: &'a World,
    /// The links of this node.
    pub subjects: &'a [Subject],
    /// What checks the sources of these links, see [`guard::sets_of`].
    pub sources: &'a Ruleset,
    /// The addresses of the node itself.
    pub node: &'a BTreeSet<IpAddr>,
    /// Where this is known from: said where somebody is not known.
    pub known_by: &'a str,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether packets pass, in each family that both have.
    pub passes: bool,
    /// Why, in lines.
    pub text: String,
    /// What the kernel counts about it.
    pub counters: Vec<Counter>,
}

/// Something that the kernel counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Where.
    pub place: Counted,
    /// Whose packets, in words.
    pub whose: String,
    /// They would be dropped, and pass.
    pub audit: bool,
}

/// Where the kernel counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// The last rule of this chain of the table `inet flock` counts what it drops.
    Chain(String),
    /// The element of this link in the set `links` counts packets with a foreign source, in both tables.
    Link(IfName),
}

/// One of the two, by one address.
#[derive(Debug, Clone)]
struct End {
    /// Who it is, in words.
    name: String,
    address: IpAddr,
    link: Option<IfName>,
    is_node: bool,
}

impl End {
    fn words(&self) -> String {
        let End { name, address, link, .. } = self;
        let link = link.as_ref().map(|link| format!(", link {link}")).unwrap_or_default();
        match address.is_unspecified() {
            true => name.clone(),
            false => format!("{name} ({address}{link})"),
        }
    }
}

/// The answer to a question.
///
/// # Errors
/// Nobody knows one of the two, or several may be meant.
pub fn answer(asked: &Asked, facts: &Facts<'_>) -> Result<Answer, Unanswerable> {
    let from = ends("FROM", &asked.from, facts)?;
    let to = ends("TO", &asked.to, facts)?;
    let mut answer = Answer { passes: true, text: String::new(), counters: Vec::new() };
    let mut judged = false;
    for from in &from {
        for to in to.iter().filter(|to| to.address.is_ipv4() == from.address.is_ipv4()) {
            if judged {
                answer.line("");
            }
            judged = true;
            let passes = answer.judge(asked, from, to, facts);
            answer.passes &= passes;
        }
    }
    if !judged {
        answer.passes = false;
        let all = |ends: &[End]| ends.iter().map(|end| end.address.to_string()).collect::<Vec<_>>().join(", ");
        let name = |ends: &[End]| ends.first().map(|end| end.name.clone()).unwrap_or_default();
        answer.line(&format!("nothing passes from {} to {}", name(&from), name(&to)));
        answer.line(&format!("they have no family in common: {} and {}", all(&from), all(&to)));
    }
    answer.cut();
    Ok(answer)
}

/// Who is meant, by one address of each family.
fn ends(field: &'static str, party: &Party, facts: &Facts<'_>) -> Result<Vec<End>, Unanswerable> {
    match party {
        Party::Node => Ok(ends_of_node(facts)),
        Party::Address(address) => end_of_address(field, *address, facts).map(|end| Vec::from([end])),
        Party::Pod(key, None) => ends_of_pod(field, key, facts),
        Party::Pod(key, Some(address)) => {
            let ends = all_of_pod(field, key, facts)?;
            let known = ends.iter().find(|end| end.address == *address).cloned();
            // A pod can write what it likes into its packets, which is for the check of sources to see.
            let first = ends.first().filter(|end| field == "FROM" && end.link.is_some());
            let claimed = || first.map(|first| End { address: *address, ..first.clone() });
            let has = || ends.iter().map(|end| end.address.to_string()).collect::<Vec<_>>().join(", ");
            let none = || unanswerable(field, &format!("{key}@{address}"), format!("the pod has {}", has()));
            known.or_else(claimed).map(|end| Vec::from([end])).ok_or_else(none)
        }
    }
}

fn ends_of_node(facts: &Facts<'_>) -> Vec<End> {
    let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let own = families.map(|none| facts.node.iter().copied().find(|ip| ip.is_ipv4() == none.is_ipv4()).unwrap_or(none));
    own.map(|address| End { name: "the node".into(), address, link: None, is_node: true }).into()
}

fn end_of_address(field: &'static str, address: IpAddr, facts: &Facts<'_>) -> Result<End, Unanswerable> {
    if facts.node.contains(&address) {
        return Ok(End { name: "the node".into(), address, link: None, is_node: true });
    }
    let mut here = facts.subjects.iter().filter(|subject| subject.addresses.contains(&address));
    if let Some(subject) = here.next() {
        // Nothing says that two containers which are no pod's are one.
        let other = here.find(|other| other.pod.is_none() || other.pod != subject.pod);
        return match (other, &subject.pod) {
            (None, pod) => {
                let name = pod.as_ref().map_or("a container".into(), ToString::to_string);
                Ok(End { name, address, link: Some(subject.link.clone()), is_node: false })
            }
            (Some(_), pod) => {
                let pod = pod.as_ref().map_or("NAMESPACE/POD".into(), ToString::to_string);
                let why = format!("several pods have this address: name the one that is meant, as {pod}@{address}");
                Err(unanswerable(field, &address.to_string(), why))
            }
        };
    }
    let mut there = facts.world.pods.iter().filter(|(_, pod)| pod.addresses.contains(&address)).map(|(key, _)| key);
    let name = match (there.next(), there.next()) {
        (None, _) => "somebody who is no known pod".into(),
        (Some(key), None) => key.to_string(),
        (Some(key), Some(_)) => format!("{key} and others"),
    };
    Ok(End { name, address, link: None, is_node: false })
}

/// By the first address of each family.
fn ends_of_pod(field: &'static str, key: &PodKey, facts: &Facts<'_>) -> Result<Vec<End>, Unanswerable> {
    let all = all_of_pod(field, key, facts)?;
    let first = |v4: bool| all.iter().find(|end| end.address.is_ipv4() == v4).cloned();
    Ok([first(true), first(false)].into_iter().flatten().collect())
}

/// By each of its addresses, of which there is one at least.
fn all_of_pod(field: &'static str, key: &PodKey, facts: &Facts<'_>) -> Result<Vec<End>, Unanswerable> {
    let end = |address: IpAddr, link: Option<IfName>| End { name: key.to_string(), address, link, is_node: false };
    let here = facts.subjects.iter().filter(|subject| subject.pod.as_ref() == Some(key));
    let mut ends: Vec<End> = here
        .flat_map(|subject| subject.addresses.iter().map(|address| end(*address, Some(subject.link.clone()))))
        .collect();
    if ends.is_empty() {
        let there = facts.world.pods.get(key);
        ends.extend(there.into_iter().flat_map(|pod| &pod.addresses).map(|address| end(*address, None)));
        if ends.is_empty() {
            let why = match there {
                Some(_) => "the pod has no address",
                None => "no such pod is known",
            };
            let why =
                format!("{why} {}: ask with its address; a pod of the host's network is the node", facts.known_by);
            return Err(unanswerable(field, &key.to_string(), why));
        }
    }
    Ok(ends)
}

impl Answer {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Of one family. Whether it passes.
    fn judge(&mut self, asked: &Asked, from: &End, to: &End, facts: &Facts<'_>) -> bool {
        let ping = if from.address.is_ipv4() { ICMP } else { ICMP6 };
        let (protocol, port) = asked.port.unwrap_or((ping, 0));
        let mut why = String::new();
        let passes =
            self.is_own_source(from, facts, &mut why) && self.is_allowed((protocol, port), from, to, facts, &mut why);
        let name = if asked.port.is_none() { "a ping".into() } else { what(protocol, port) };
        let verdict = if passes { "passes" } else { "is dropped" };
        self.line(&format!("{name} from {} to {} {verdict}", from.words(), to.words()));
        self.text.push_str(&why);
        passes
    }

    /// Whether who begins may send with this address.
    fn is_own_source(&mut self, from: &End, facts: &Facts<'_>, why: &mut String) -> bool {
        let Some(link) = &from.link else { return true };
        let checked = facts.sources.get(&FILTER).and_then(|table| table.sets.get(guard::LINKS));
        if !checked.is_some_and(|set| set.elements.contains(&Element::Link(link.clone()))) {
            why.push_str("source: not checked for this link\n");
            return true;
        }
        self.count(Counted::Link(link.clone()), format!("sources that are not of {}", from.name), false);
        let own: Vec<IpAddr> = guard::sources(facts.sources, link).collect();
        if own.contains(&from.address) {
            return true;
        }
        let own: Vec<String> = own.iter().map(ToString::to_string).collect();
        let (name, address) = (&from.name, from.address);
        why.push_str(&format!("source: {name} may not send as {address}, only as {}\n", own.join(", ")));
        let set = if address.is_ipv4() { guard::SOURCES4 } else { guard::SOURCES6 };
        why.push_str(&format!("  kernel: chain {}, {link} . {address} is not in set {set}\n", guard::SOURCE));
        false
    }

    /// Whether policies allow it.
    fn is_allowed(&mut self, port: (u8, u16), from: &End, to: &End, facts: &Facts<'_>, why: &mut String) -> bool {
        // The node decides for its own pods alone. One of another node is behind no link here.
        let is_here = |end: &End| end.is_node || end.link.is_some();
        if (from.is_node && is_here(to)) || (to.is_node && is_here(from)) {
            let said = match from.is_node {
                true => "policies: the node itself reaches its pods, whatever they say",
                false => {
                    "policies: they mean nothing for what is sent to the pod's own node; a Service or a host port there leads \
                          on to a pod, of which this has to be asked"
                }
            };
            why.push_str(said);
            why.push('\n');
            return true;
        }
        let endpoint = |end: &End| Endpoint { address: end.address, link: end.link.clone() };
        let question = Question { from: endpoint(from), to: endpoint(to), protocol: port.0, port: port.1 };
        let verdict = verdict(facts.world, facts.subjects, &question);
        why.push_str(&sides(&question, &verdict));
        if let Verdict::Judged { egress, ingress } = &verdict {
            if [egress, ingress].iter().all(|side| **side == Side::Elsewhere) {
                why.push_str("ask on the nodes of the two, if they are pods: this one has no part in it\n");
            }
            self.count_drops(egress, from, Direction::Egress);
            self.count_drops(ingress, to, Direction::Ingress);
        }
        verdict.passes()
    }

    fn count_drops(&mut self, side: &Side, end: &End, direction: Direction) {
        let Some(link) = &end.link else { return };
        let whose = format!("{direction} of {}", end.name);
        match side {
            Side::Isolated { audit, .. } => self.count(Counted::Chain(names::link(link, direction)), whose, *audit),
            Side::Quarantined(_) => {
                self.count(Counted::Chain(names::QUARANTINE.into()), "all links in quarantine".into(), false);
            }
            Side::Elsewhere | Side::Exempt | Side::Free(_) => {}
        }
    }

    fn count(&mut self, place: Counted, whose: String, audit: bool) {
        if !self.counters.iter().any(|known| known.place == place) {
            self.counters.push(Counter { place, whose, audit });
        }
    }

    fn cut(&mut self) {
        if self.text.len() > TEXT_MAX {
            let end =
                self.text.as_bytes().iter().take(TEXT_MAX).rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.text.truncate(end);
            self.line("and more, which is left out");
        }
    }
}

#[cfg(test)]
mod tests;
