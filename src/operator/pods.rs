//! `flock-agent pods`: the pods with an interface of flock, from the record and from what the links show, agent or no agent.
//!
//! The record says who has what. The kernel tells which link is missing, and which one nobody has recorded. Must not change
//! anything, nor ask the agent.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::observe;
use crate::operator::Told;
use crate::operator::record::{Keeper, RecordError, Recorded};
use crate::operator::table::{self, Heads, Table, or_none};
use crate::process::exit::Exit;
use model::addr::{Attachment, LinkEnd};
use model::lease::{Lease, Phase, PodName};
use model::observed::{Observed, host_end_of};
use model::plan;

/// Deadline for the kernel's answer, 5 s.
const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Only pods of this namespace.
    pub namespace: Option<String>,
    /// How they are told.
    pub output: Output,
    /// Whether a table has heads.
    pub heads: Heads,
    /// Where the agent keeps its record.
    pub state_dir: PathBuf,
    /// The agent's socket, beside which delete notes lie.
    pub socket: PathBuf,
}

/// How pods are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A table.
    Table,
    /// A table with more columns.
    Wide,
    /// One object.
    Json,
    /// A word a line, which other verbs take.
    Name,
}

impl Output {
    /// The outputs by the words of the command line. The table has none.
    pub const NAMES: [&'static str; 3] = ["wide", "json", "name"];

    /// The output of this word.
    pub fn named(word: &str) -> Option<Output> {
        let known = [Output::Wide, Output::Json, Output::Name];
        Output::NAMES.iter().zip(known).find(|(name, _)| **name == word).map(|(_, output)| output)
    }
}

/// How it is with an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Committed,
    Pending,
    DeleteNoted,
    LinkMissing,
    NotRecorded,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            State::Committed => "committed",
            State::Pending => "pending",
            State::DeleteNoted => "delete noted",
            State::LinkMissing => "link missing",
            State::NotRecorded => "not recorded",
        }
    }
}

/// One attachment, as it is told.
#[derive(Debug)]
struct Row {
    attachment: Attachment,
    pod: Option<PodName>,
    addresses: Vec<IpAddr>,
    anycast: Vec<IpAddr>,
    link: String,
    mtu: u32,
    /// Of what is recorded: the CNI network's name and the path of the namespace.
    recorded: Option<(String, String)>,
    /// None where nobody knows.
    age_s: Option<u64>,
    state: State,
}

/// Tells the pods.
pub fn run(order: &Order) -> Told {
    match look(order) {
        Ok((recorded, links)) => told(order, &recorded, links.as_deref()),
        Err(error @ RecordError::Denied(_)) => Told::failed(Exit::Denied, error),
        Err(error @ RecordError::Disk(_)) => Told::failed(Exit::Failed, error),
    }
}

/// The record, and the links of the same moment; none where the kernel cannot be asked.
fn look(order: &Order) -> Result<(Recorded, Option<Vec<Observed>>), RecordError> {
    let read = || Recorded::read(&order.state_dir, &order.socket);
    let before = read()?;
    let links = observe::host_links(Instant::now() + KERNEL_LIMIT).ok();
    let mut recorded = read()?;
    // A pod that is deleted meanwhile has its link in the list, and no lease any more.
    let kept: HashSet<(&Attachment, u64)> =
        recorded.leases.iter().map(|lease| (&lease.attachment, lease.since)).collect();
    let gone = before.leases.iter().filter(|lease| !kept.contains(&(&lease.attachment, lease.since)));
    let gone: HashSet<&Attachment> = gone.map(|lease| &lease.attachment).collect();
    let links = links.map(|mut links| {
        links.retain(|link| marked(link).is_none_or(|attachment| !gone.contains(&attachment)));
        links
    });
    if links.is_none() {
        recorded
            .remarks
            .push("the kernel does not tell its links: no link is known to be missing or unrecorded".into());
    }
    Ok((recorded, links))
}

/// Whose link it is by the mark that flock gives it.
fn marked(link: &Observed) -> Option<Attachment> {
    let attachment = link.alias.as_deref().and_then(plan::attachment_of_alias)?;
    (link.mac == Some(attachment.mac(LinkEnd::Host))).then_some(attachment)
}

fn told(order: &Order, recorded: &Recorded, links: Option<&[Observed]>) -> Told {
    let mut rows = rows(recorded, links);
    if let Some(namespace) = &order.namespace {
        rows.retain(|row| row.pod.as_ref().is_some_and(|pod| pod.namespace == *namespace));
    }
    let mut asides = recorded.remarks.clone();
    if recorded.keeper == Keeper::Nobody {
        asides.insert(0, "flock-agent does not run: this is what it has recorded, and what links show".into());
    }
    if rows.is_empty() && order.output != Output::Json {
        asides.push(match &order.namespace {
            Some(namespace) => format!("no pod of namespace {namespace} has an interface of flock here"),
            None => "no pod has an interface of flock here".into(),
        });
    }
    let text = match order.output {
        Output::Json => json(&rows, recorded),
        Output::Name => names(&rows),
        // Heads over nothing would be no answer.
        Output::Table | Output::Wide if rows.is_empty() => String::new(),
        Output::Table => table(&rows, order.heads, false),
        Output::Wide => table(&rows, order.heads, true),
    };
    Told { exit: Exit::Done, text, asides }
}

/// All attachments in the order in which they are told: by namespace and pod, and those of nobody known at the end.
fn rows(recorded: &Recorded, links: Option<&[Observed]>) -> Vec<Row> {
    let links = links.map(Links::new);
    let mut rows: Vec<Row> = recorded.leases.iter().map(|lease| of_lease(lease, recorded, links.as_ref())).collect();
    let known: HashSet<&Attachment> = recorded.leases.iter().map(|lease| &lease.attachment).collect();
    let unrecorded = links.iter().flat_map(|links| &links.marked).filter(|(attachment, _)| !known.contains(attachment));
    rows.extend(unrecorded.map(|(attachment, link)| of_link(attachment.clone(), link, recorded)));
    rows.sort_by_cached_key(|row| {
        let pod = row.pod.as_ref().map(|pod| (pod.namespace.clone(), pod.name.clone()));
        (pod.is_none(), pod, row.attachment.ifname.to_string(), row.attachment.container_id.to_string())
    });
    rows
}

/// The links of the host, found by flock's mark.
struct Links<'a> {
    all: &'a [Observed],
    marked: HashMap<Attachment, &'a Observed>,
}

impl<'a> Links<'a> {
    fn new(all: &'a [Observed]) -> Links<'a> {
        let marked = all.iter().filter_map(|link| marked(link).map(|attachment| (attachment, link))).collect();
        Links { all, marked }
    }

    /// The host end of `lease`, whatever somebody has made of its mark.
    fn of(&self, lease: &Lease) -> Option<&'a Observed> {
        let marked = self.marked.get(&lease.attachment).copied();
        marked.or_else(|| host_end_of(lease, self.all))
    }
}

fn of_lease(lease: &Lease, recorded: &Recorded, links: Option<&Links<'_>>) -> Row {
    let link = links.and_then(|links| links.of(lease));
    let state = match lease.phase {
        _ if recorded.is_delete_noted(lease) => State::DeleteNoted,
        Phase::Pending => State::Pending,
        Phase::Committed if links.is_some() && link.is_none() => State::LinkMissing,
        Phase::Committed => State::Committed,
    };
    Row {
        attachment: lease.attachment.clone(),
        pod: lease.pod.clone(),
        addresses: lease.addresses().collect(),
        anycast: lease.anycast.clone(),
        link: link.map_or_else(|| lease.host_link.to_string(), |link| link.name.clone()),
        mtu: lease.mtu,
        recorded: Some((lease.network.clone(), lease.netns.clone())),
        // A lease that was read back from its link is dated before all others.
        age_s: (lease.since > 0).then(|| recorded.now.saturating_sub(lease.since) / 1000),
        state,
    }
}

fn of_link(attachment: Attachment, link: &Observed, recorded: &Recorded) -> Row {
    let noted = recorded.notes.iter().any(|note| note.attachment == attachment);
    Row {
        addresses: link.routed().collect(),
        anycast: link.shared.clone(),
        attachment,
        pod: None,
        link: link.name.clone(),
        mtu: link.mtu,
        recorded: None,
        age_s: None,
        state: if noted { State::DeleteNoted } else { State::NotRecorded },
    }
}

impl Row {
    fn first(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().find(|ip| ip.is_ipv6() == v6).copied()
    }

    /// What the pod has beside one address of each family.
    fn further(&self) -> Vec<IpAddr> {
        let first = [self.first(true), self.first(false)];
        self.addresses.iter().filter(|ip| !first.contains(&Some(**ip))).copied().collect()
    }
}

fn table(rows: &[Row], heads: Heads, wide: bool) -> String {
    let mut columns = vec!["NAMESPACE", "POD", "IF", "IPV6", "IPV4", "LINK", "AGE", "STATE"];
    if wide {
        columns.extend(["FURTHER", "ANYCAST", "MTU", "NETWORK", "CONTAINER"]);
    }
    let mut table = Table::new(&columns);
    let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    for row in rows {
        let (namespace, name) = row.pod.as_ref().map(|pod| (&pod.namespace, &pod.name)).unzip();
        let age = row.age_s.map_or_else(|| table::UNKNOWN.to_owned(), table::age);
        let mut cells = vec![
            or_none(namespace),
            or_none(name),
            row.attachment.ifname.to_string(),
            or_none(row.first(true)),
            or_none(row.first(false)),
            row.link.clone(),
            age,
            row.state.text().to_owned(),
        ];
        if wide {
            cells.extend([
                list(&row.further()),
                list(&row.anycast),
                row.mtu.to_string(),
                or_none(row.recorded.as_ref().map(|(network, _)| network)),
                row.attachment.container_id.to_string(),
            ]);
        }
        table.row(cells);
    }
    table.text(heads)
}

/// Each pod once; a container where no pod is known.
fn names(rows: &[Row]) -> String {
    let name = |row: &Row| match &row.pod {
        Some(pod) => pod.to_string(),
        None => row.attachment.container_id.to_string(),
    };
    let mut names: Vec<String> = rows.iter().map(name).collect();
    names.dedup();
    names.into_iter().map(|name| name + "\n").collect()
}

fn json(rows: &[Row], recorded: &Recorded) -> String {
    let pod = |row: &Row| {
        json!({
            "namespace": row.pod.as_ref().map(|pod| &pod.namespace),
            "pod": row.pod.as_ref().map(|pod| &pod.name),
            "uid": row.pod.as_ref().and_then(|pod| pod.uid.as_ref()),
            "containerId": row.attachment.container_id.as_str(),
            "interface": row.attachment.ifname.as_str(),
            "ipv6": row.first(true),
            "ipv4": row.first(false),
            "further": row.further(),
            "anycast": row.anycast,
            "link": row.link,
            "mtu": row.mtu,
            "network": row.recorded.as_ref().map(|(network, _)| network),
            "netns": row.recorded.as_ref().map(|(_, netns)| netns),
            "ageSeconds": row.age_s,
            "state": row.state.text(),
        })
    };
    let agent = match recorded.keeper {
        Keeper::Agent(_) => json!("running"),
        Keeper::Nobody => json!("down"),
        Keeper::Unknown => Value::Null,
    };
    let all = json!({
        "agent": agent,
        "pods": rows.iter().map(pod).collect::<Vec<_>>(),
        "remarks": recorded.remarks,
    });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::golden;
    use crate::record::examples::{lease, link_of};
    use crate::record::notes::Note;

    const NOW: u64 = 10_000_000_000;

    fn pod(namespace: &str, name: &str) -> Option<PodName> {
        Some(PodName { namespace: namespace.into(), name: name.into(), uid: None })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn ago(seconds: u64) -> u64 {
        NOW - seconds * 1000
    }

    fn order(output: Output) -> Order {
        Order { namespace: None, output, heads: Heads::Shown, state_dir: "/s".into(), socket: "/r/flock.sock".into() }
    }

    /// One of everything that can happen to an attachment.
    fn scene() -> (Recorded, Vec<Observed>) {
        let v4 = |last| Some([10, 25, 214, last].into());
        let v6 = |text: &str| Some(text.parse().expect("an address"));
        let mail = Lease {
            pod: pod("mail", "smtp-0"),
            ipv6: v6("2001:db8:1:f001:6c3f:4812:11d9:3b4"),
            ipv4: v4(130),
            extra: vec![ip("203.0.113.7"), ip("2001:db8:f::7")],
            anycast: vec![ip("203.0.113.53")],
            since: ago(3 * 3600),
            ..lease("b1/eth0")
        };
        let web = Lease {
            pod: pod("shop", "web-1"),
            ipv6: v6("2001:db8:1:f001:a5e4:1b67:4276:d395"),
            ipv4: None,
            since: ago(12),
            ..lease("c2/eth0")
        };
        let second = Lease { pod: web.pod.clone(), ipv6: None, ipv4: v4(131), since: ago(11), ..lease("c2/net1") };
        let noted = Lease { ipv6: None, ipv4: v4(140), since: ago(2 * 86_400), ..lease("d3/eth0") };
        let being_made = Lease {
            pod: pod("shop", "new"),
            phase: Phase::Pending,
            ipv6: None,
            ipv4: v4(141),
            since: ago(0),
            ..lease("e4/eth0")
        };
        let cut = Lease { pod: pod("shop", "cut"), ipv6: None, ipv4: v4(142), since: 0, ..lease("f5/eth0") };
        let lost = Lease { ipv6: None, ipv4: v4(143), ..lease("a6/eth0") };
        let links = [&mail, &web, &second, &noted, &lost].map(link_of).into();
        let notes = vec![Note { attachment: noted.attachment.clone(), at: ago(60) }];
        let recorded = Recorded {
            leases: vec![web, mail, second, noted, being_made, cut],
            notes,
            keeper: Keeper::Agent(77),
            now: NOW,
            ..Recorded::default()
        };
        (recorded, links)
    }

    #[test]
    fn each_output_is_as_promised() {
        let (recorded, links) = scene();
        for (file, output) in [
            ("pods", Output::Table),
            ("pods-wide", Output::Wide),
            ("pods-name", Output::Name),
            ("pods.json", Output::Json),
        ] {
            let told = told(&order(output), &recorded, Some(&links));
            assert_eq!((told.exit, told.asides), (Exit::Done, vec![]));
            golden::compare(file, &told.text);
        }
        let rows = told(&Order { heads: Heads::Hidden, ..order(Output::Table) }, &recorded, Some(&links)).text;
        let whole = told(&order(Output::Table), &recorded, Some(&links)).text;
        // Cells stay in their columns as far as the heads do not need the room.
        let cells = |text: &str| -> Vec<Vec<String>> {
            text.lines()
                .map(|line| line.split("   ").map(|cell| cell.trim().to_owned()).filter(|c| !c.is_empty()).collect())
                .collect()
        };
        assert_eq!(cells(&rows), cells(&whole)[1..]);
    }

    #[test]
    fn a_namespace_without_pods_and_a_node_without_any_are_said() {
        let (recorded, links) = scene();
        let of = |namespace: &str| {
            told(&Order { namespace: Some(namespace.into()), ..order(Output::Name) }, &recorded, Some(&links))
        };
        assert_eq!(of("shop").text, "shop/cut\nshop/new\nshop/web-1\n");
        let none = of("sho");
        assert_eq!((none.exit, none.text.as_str()), (Exit::Done, ""));
        assert_eq!(none.asides, ["no pod of namespace sho has an interface of flock here"]);
        let empty = told(&order(Output::Table), &Recorded::default(), Some(&[]));
        assert_eq!(empty.text, "");
        assert!(empty.asides[0].starts_with("flock-agent does not run"), "{empty:?}");
        assert_eq!(empty.asides[1], "no pod has an interface of flock here");
    }

    #[test]
    fn without_the_kernel_s_word_no_link_counts_as_missing() {
        let (recorded, links) = scene();
        let all = rows(&recorded, None);
        assert!(all.iter().all(|row| !matches!(row.state, State::LinkMissing | State::NotRecorded)));
        assert_eq!(all.len(), recorded.leases.len());
        // A link of somebody else who uses our words is no link of ours.
        let forged = Observed { mac: None, ..links[4].clone() };
        assert_eq!(rows(&recorded, Some(&[forged])).len(), recorded.leases.len());
    }
}
