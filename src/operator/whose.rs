//! `flock-agent explain ADDRESS|POD|LINK|CONTAINER`: whose it is, or why it is nobody's.
//!
//! The record, the kernel and, where it answers, the agent are asked, in this order of trust: what pods have stands in the record,
//! and what other nodes have only the agent knows. What cannot be known is said. Must not change anything, nor decide which
//! address a pod gets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv6Net};

use crate::agent::fault::{Fault, Step};
use crate::agent::node::survey;
use crate::kernel::netlink::conn::Conn;
use crate::operator::Told;
use crate::operator::ask::{self, Unanswered};
use crate::operator::check::scene::{Scene, SceneError, is_denied};
use crate::operator::record::{Keeper, Recorded};
use crate::operator::table::{UNKNOWN, age};
use crate::process::exit::Exit;
use crate::record::format::Freed;
use crate::rpc::message::{Query, QueryOp, Whose};
use crate::rpc::report::WhoseReport;
use crate::rpc::{QUERY_LIMIT, QUERY_PATIENCE};
use model::addr::{GATEWAY4, GATEWAY6};
use model::embed::{self, Identity, N_VALUES};
use model::excerpt::Excerpt;
use model::hostfacts::Holder;
use model::ipam;
use model::lease::{Lease, Phase, PodName};
use model::observed::{Observed, host_end_of};
use model::plan;
use model::routes::{ANNOUNCED, MAIN, Way};

/// Deadline for all looks at the kernel, 10 s.
const KERNEL_LIMIT: Duration = Duration::from_secs(10);

/// Width of what stands before each line, in columns.
const KEY: usize = 12;

/// Fewest letters of a container's id that stand for it.
const SHORT_ID_MIN: usize = 4;

/// Longest word that is looked for, in bytes: longer than a namespace and a pod together.
const WORD_MAX: usize = 512;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The word of the operator.
    pub what: String,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Where it keeps its record.
    pub state_dir: PathBuf,
}

/// What the word can mean.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Address(IpAddr),
    Pod(PodName),
    /// A link, or a container.
    Name(String),
}

/// A key and what there is to say.
type Line = (&'static str, String);

/// What the agent has said, or why it has said nothing.
type Word = Result<WhoseReport, Unanswered>;

/// Tells whose it is.
pub fn run(order: &Order) -> Told {
    let Some(what) = What::read(&order.what) else {
        let what = Excerpt::of(&order.what);
        return Told::failed(
            Exit::Misused,
            format!(
                "{what}: must be an IP address, NAMESPACE/POD, a link or the id of a container; between two, TO is missing"
            ),
        );
    };
    let address = if let What::Address(ip) = &what { Some(*ip) } else { None };
    let word = ask(order, address, None);
    if let Err(why) = &word
        && why.exit() == Exit::Denied
    {
        return Told::failed(Exit::Denied, why);
    }
    let ranges: Vec<IpNet> = word.iter().flat_map(|word| &word.ranges).filter_map(|range| range.parse().ok()).collect();
    let scene = match Scene::look(&order.state_dir, &order.socket, &ranges, Instant::now() + KERNEL_LIMIT) {
        Ok(scene) => scene,
        Err(error) => return unseen(error),
    };
    let text = match &what {
        What::Address(ip) => {
            let identity = |pod: &PodName| identity(order, &word, pod);
            let seen = Seen { scene: &scene, word: &word, identity: &identity };
            Some(block(&ip.to_string(), seen.address(*ip, of_host(*ip))))
        }
        What::Pod(pod) => {
            let leases = of_pod(&scene.recorded, pod);
            told(order, &scene, &word, leases)
        }
        What::Name(name) => {
            let leases = of_name(&scene, name);
            told(order, &scene, &word, leases).or_else(|| stranger(&scene, name))
        }
    };
    let mut asides = scene.recorded.remarks.clone();
    if let Err(why) = &word {
        let lacking = "what only the agent knows is missing here, as what other nodes have";
        asides.push(match scene.recorded.keeper {
            Keeper::Nobody => format!("flock-agent does not run: {lacking}"),
            Keeper::Agent(_) | Keeper::Unknown => format!("{lacking}: {why}"),
        });
    }
    match text {
        Some(text) => Told { exit: Exit::Done, text, asides },
        None => {
            asides.insert(0, format!("{}: {}", Excerpt::of(&order.what), what.unknown()));
            Told { exit: Exit::Failed, text: String::new(), asides }
        }
    }
}

fn unseen(error: SceneError) -> Told {
    let exit = if is_denied(&error) { Exit::Denied } else { Exit::Failed };
    match error {
        SceneError::Record(why) => Told::failed(exit, why),
        SceneError::Kernel(cause) => Told::failed(exit, Fault { step: Step::Compare, cause }),
    }
}

fn ask(order: &Order, address: Option<IpAddr>, pod: Option<(String, String)>) -> Word {
    let query = Query::Whose(Whose { op: QueryOp::Whose, address, pod });
    ask::ask(&order.socket, &query, QUERY_PATIENCE, QUERY_LIMIT)
}

/// What of the host, or of a network of its own, has the address.
fn of_host(ip: IpAddr) -> Option<Holder> {
    let survey = survey::take(&[ip.into()], GATEWAY4, None, Instant::now() + KERNEL_LIMIT).ok()?;
    survey.facts.taken.get(&ip).copied()
}

/// What stands for a pod in an address, as far as anybody tells.
fn identity(order: &Order, word: &Word, pod: &PodName) -> Identity {
    let known = match word {
        // Only Kubernetes tells more than the record.
        Ok(WhoseReport { others_heard: Some(_), .. }) => {
            ask(order, None, Some((pod.namespace.clone(), pod.name.clone()))).unwrap_or_default()
        }
        _ => WhoseReport::default(),
    };
    Identity { namespace: Some(pod.namespace.clone()), app: known.app, image: known.image }
}

impl What {
    fn read(word: &str) -> Option<What> {
        if word.len() > WORD_MAX {
            return None;
        }
        if let Some(ip) = address(word) {
            return Some(What::Address(ip));
        }
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        match word.split_once('/') {
            Some((namespace, name)) => (is_word(namespace) && is_word(name))
                .then(|| What::Pod(PodName { namespace: namespace.into(), name: name.into(), uid: None })),
            None => is_word(word).then(|| What::Name(word.into())),
        }
    }

    /// Why nothing is told of it.
    fn unknown(&self) -> &'static str {
        match self {
            What::Address(_) => "nothing is known of this address",
            What::Pod(_) => {
                "no pod of this name has an interface of flock here: flock-agent pods lists those that have"
            }
            What::Name(_) => "no link and no container here has this name: flock-agent pods -o wide lists both",
        }
    }
}

/// The address that is meant, as it stands in outputs of others: with its prefix length, its link, or a port.
fn address(word: &str) -> Option<IpAddr> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    if let Some((ip, port)) = word.strip_prefix('[').and_then(|word| word.split_once(']')) {
        let port = port.strip_prefix(':');
        return read(ip).filter(|ip| ip.is_ipv6() && (port.is_none_or(is_number)));
    }
    let plain = || read(word);
    let with_length = || word.split_once('/').filter(|(_, length)| is_number(length)).and_then(|(ip, _)| read(ip));
    let with_link = || word.split_once('%').filter(|(_, link)| !link.is_empty()).and_then(|(ip, _)| read(ip));
    let with_port = || {
        let (ip, port) = word.split_once(':')?;
        read(ip).filter(|_| is_number(port))
    };
    plain().or_else(with_length).or_else(with_link).or_else(with_port)
}

fn of_pod<'a>(recorded: &'a Recorded, pod: &PodName) -> Vec<&'a Lease> {
    let is_it = |lease: &&Lease| {
        lease.pod.as_ref().is_some_and(|own| (&own.namespace, &own.name) == (&pod.namespace, &pod.name))
    };
    recorded.leases.iter().filter(is_it).collect()
}

/// The leases of a link, or else of a container by its whole id, or else by the beginning of one.
fn of_name<'a>(scene: &'a Scene, name: &str) -> Vec<&'a Lease> {
    let by = |is_it: &dyn Fn(&Lease) -> bool| -> Vec<&Lease> {
        scene.recorded.leases.iter().filter(|lease| is_it(lease)).collect()
    };
    let link = by(&|lease| link_name(lease, scene) == name);
    if !link.is_empty() {
        return link;
    }
    let container = by(&|lease| lease.attachment.container_id.as_str() == name);
    if !container.is_empty() || name.len() < SHORT_ID_MIN {
        return container;
    }
    by(&|lease| lease.attachment.container_id.as_str().starts_with(name))
}

/// What is recorded of these leases, each in a block of its own; none if there are none.
fn told(order: &Order, scene: &Scene, word: &Word, leases: Vec<&Lease>) -> Option<String> {
    let blocks = leases.into_iter().map(|lease| {
        let identity = |pod: &PodName| identity(order, word, pod);
        let seen = Seen { scene, word, identity: &identity };
        let whose = lease.pod.as_ref().map_or_else(|| container(lease), ToString::to_string);
        block(&format!("{whose} {}", lease.attachment.ifname), seen.lease(lease))
    });
    let text = blocks.collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

/// A link that nobody has recorded.
fn stranger(scene: &Scene, name: &str) -> Option<String> {
    if let Some(link) = scene.pairs.iter().find(|link| link.name == name)
        && let Some(attachment) = link.alias.as_deref().and_then(plan::attachment_of_alias)
    {
        let routed: Vec<String> = link.routed().map(|ip| ip.to_string()).collect();
        return Some(block(
            name,
            vec![
                ("link", "bears flock's mark, and is not recorded: the agent takes it up in its next round".into()),
                ("container", format!("{}, {}", attachment.container_id, attachment.ifname)),
                ("leads to", if routed.is_empty() { "nobody".into() } else { routed.join(", ") }),
            ],
        ));
    }
    let mut conn = Conn::open(Instant::now() + KERNEL_LIMIT).ok()?;
    let link = conn.link_named(name).ok().flatten()?;
    Some(block(name, vec![("link", format!("is a link of this host, index {}, and none of flock's", link.index))]))
}

fn block(title: &str, lines: Vec<Line>) -> String {
    let lines = lines.into_iter().map(|(key, text)| format!("  {key:KEY$}{text}\n"));
    format!("{title}\n") + &lines.collect::<String>()
}

fn container(lease: &Lease) -> String {
    format!("container {}", lease.attachment.container_id)
}

fn link_name(lease: &Lease, scene: &Scene) -> String {
    host_end_of(lease, &scene.pairs).map_or_else(|| lease.host_link.to_string(), |link| link.name.clone())
}

/// Everything that is known.
struct Seen<'a> {
    scene: &'a Scene,
    word: &'a Word,
    identity: &'a dyn Fn(&PodName) -> Identity,
}

impl Seen<'_> {
    fn address(&self, ip: IpAddr, host: Option<Holder>) -> Vec<Line> {
        let range = self.range(ip);
        let mut lines = vec![("range", self.range_text(range))];
        let before = lines.len();
        lines.extend(self.holders(ip));
        lines.extend(of_this_host(ip, host, range.is_some()));
        let rule = range.and_then(|range| ipam::rule(range, ip));
        lines.extend(rule.map(|rule| ("never", format!("a pod's: it is {rule}"))));
        lines.extend(self.others(ip));
        if lines.len() == before {
            lines.push(match range {
                Some(_) => ("free", "nobody has it, and a pod may get it".into()),
                None => ("nobody", "that is known here has it".into()),
            });
        }
        lines
    }

    fn range(&self, ip: IpAddr) -> Option<&IpNet> {
        self.scene.prefixes.iter().find(|range| range.contains(&ip))
    }

    fn range_text(&self, range: Option<&IpNet>) -> String {
        let node = self.word.as_ref().map_or("this node", |word| word.node.as_str());
        match range {
            Some(range) => format!("{range} of {node}"),
            None if self.scene.prefixes.is_empty() => {
                format!("not known: {node} has no NodeConfig in force, or has not served pods since the boot")
            }
            None => {
                let ranges: Vec<String> = self.scene.prefixes.iter().map(ToString::to_string).collect();
                format!("outside of what {node} has, which is {}", ranges.join(" and "))
            }
        }
    }

    /// The pods that have it, have had it until just now, or share it, and what shows of it without a record.
    fn holders(&self, ip: IpAddr) -> Vec<Line> {
        let Scene { recorded, pairs, routes, .. } = self.scene;
        let mut lines: Vec<Line> = Vec::new();
        let mut known = BTreeSet::new();
        for lease in recorded.leases.iter().filter(|lease| lease.addresses().any(|own| own == ip)) {
            lines.push(("held by", self.holder(lease)));
            lines.extend(self.shown(ip, lease.pod.as_ref()));
            known.insert(link_name(lease, self.scene));
        }
        for lease in recorded.leases.iter().filter(|lease| lease.anycast.contains(&ip)) {
            lines.push(("shared by", self.holder(lease)));
            known.insert(link_name(lease, self.scene));
        }
        for link in pairs.iter().filter(|link| !known.contains(&link.name) && leads_to(link, ip)) {
            lines.push(("leads to", format!("link {}, which bears flock's mark and is not recorded", link.name)));
        }
        if !lines.iter().any(|(key, _)| *key == "held by") {
            let rests = recorded.freed.iter().filter(|freed| freed.ips.contains(&ip)).max_by_key(|freed| freed.at);
            lines.extend(rests.map(|freed| ("rests", self.resting(freed))));
        }
        let told = routes
            .routes
            .iter()
            .any(|(key, way)| key.table == ANNOUNCED && key.to == IpNet::from(ip) && matches!(way, Way::Link(_)));
        if told {
            lines.push(("announced", "by itself, in kernel table 102".into()));
        }
        lines
    }

    fn holder(&self, lease: &Lease) -> String {
        let attachment = &lease.attachment;
        let pod = lease.pod.as_ref().map(|pod| format!("{pod}, ")).unwrap_or_default();
        format!(
            "{pod}{}, container {}, link {}, {}",
            attachment.ifname,
            attachment.container_id,
            link_name(lease, self.scene),
            self.state(lease)
        )
    }

    fn state(&self, lease: &Lease) -> String {
        let Scene { recorded, pairs, .. } = self.scene;
        // A lease that was read back from its link is dated before all others.
        let since = match lease.since {
            0 => UNKNOWN.to_owned(),
            since => age(recorded.now.saturating_sub(since) / 1000),
        };
        let state = match lease.phase {
            _ if recorded.is_delete_noted(lease) => "; its delete is noted and waits for the agent",
            Phase::Pending => "; its ADD is not finished",
            Phase::Committed if host_end_of(lease, pairs).is_none() => "; its link is missing",
            Phase::Committed => "",
        };
        format!("for {since}{state}")
    }

    fn resting(&self, freed: &Freed) -> String {
        let whose = match &freed.pod {
            Some(pod) => pod.to_string(),
            None => format!("container {}", freed.attachment.container_id),
        };
        let left = self.scene.recorded.rests_ms(freed).div_ceil(1000);
        format!("it was {whose}'s, and another pod gets it in {left} s at the earliest, unless nothing else is free")
    }

    /// Other nodes that have it.
    fn others(&self, ip: IpAddr) -> Vec<Line> {
        let said = self.word.iter().flat_map(|word| &word.others).map(|other| {
            let node = &other.node;
            let text = match (&other.range, &other.pod, other.shared) {
                (Some(range), ..) => format!("{node} has it, in its range {range}"),
                (None, Some(pod), false) => format!("{node} has it, for pod {pod}, which names it by annotation"),
                (None, Some(pod), true) => format!("{node} has it, for pod {pod}, which shares it"),
                (None, None, _) => format!("{node} has it"),
            };
            ("other node", text)
        });
        let mut lines: Vec<Line> = said.collect();
        let unheard = self.word.as_ref().is_ok_and(|word| word.others_heard == Some(false));
        if unheard && lines.is_empty() {
            lines.push((
                "other node",
                "not known: the API server has not told of all nodes, see flock-agent status".into(),
            ));
        }
        if lines.is_empty() {
            let Scene { routes, pairs, .. } = self.scene;
            let of_pod = |link: u32| pairs.iter().any(|pair| pair.index == link && is_marked(pair));
            let to_others = routes.routes.iter().filter(|(key, way)| {
                let is_for_it = key.table == MAIN && key.to.contains(&ip);
                // To what pods of this node share there are such routes, too.
                is_for_it && !routes.links(**way).any(of_pod)
            });
            lines.extend(to_others.max_by_key(|(key, _)| key.to.prefix_len()).map(|(key, way)| {
                let via = if let Way::Gateway { via, .. } = way { format!(", by way of {via}") } else { String::new() };
                ("other node", format!("has it: flock's route to {} leads there{via}", key.to))
            }));
        }
        lines
    }

    fn lease(&self, lease: &Lease) -> Vec<Line> {
        let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut lines: Vec<Line> = Vec::new();
        lines.push(("container", lease.attachment.container_id.to_string()));
        lines.push(("link", format!("{}, mtu {}", link_name(lease, self.scene), lease.mtu)));
        lines.extend(lease.ipv6.map(|ip| ("ipv6", ip.to_string())));
        lines.extend(lease.ipv6.and_then(|ip| self.shown(ip.into(), lease.pod.as_ref())));
        lines.extend(lease.ipv4.map(|ip| ("ipv4", ip.to_string())));
        lines.extend((!lease.extra.is_empty()).then(|| ("further", list(&lease.extra))));
        lines.extend((!lease.anycast.is_empty()).then(|| ("anycast", list(&lease.anycast))));
        lines.push(("age", self.state(lease).trim_start_matches("for ").to_owned()));
        lines.push(("network", format!("{}, namespace {}", lease.network, lease.netns)));
        lines
    }

    /// What the digits of an address show of its pod.
    fn shown(&self, ip: IpAddr, pod: Option<&PodName>) -> Option<Line> {
        let (IpAddr::V6(ip), Some(IpNet::V6(range))) = (ip, self.range(ip)) else { return None };
        Some(("shows", shown(*range, ip, &(self.identity)(pod?))?))
    }
}

/// What the host has to do with it.
fn of_this_host(ip: IpAddr, holder: Option<Holder>, in_range: bool) -> Option<Line> {
    if ip == IpAddr::V6(GATEWAY6) || ip == IpAddr::V4(GATEWAY4) {
        return Some(("gateway", "of pods: the host end of each link has it".into()));
    }
    let end = if in_range { ", so that no pod gets it" } else { "" };
    Some(("host", format!("it is {}{end}", holder?)))
}

/// Whether a link is flock's.
fn is_marked(link: &Observed) -> bool {
    link.alias.as_deref().is_some_and(|alias| plan::attachment_of_alias(alias).is_some())
}

/// Whether packets to `ip` leave by this link.
fn leads_to(link: &Observed, ip: IpAddr) -> bool {
    is_marked(link) && (link.routed().any(|routed| routed == ip) || link.shared.contains(&ip))
}

/// None if it shows nothing that is known.
fn shown(range: Ipv6Net, ip: Ipv6Addr, identity: &Identity) -> Option<String> {
    let shown = embed::shown(range, ip, identity)?;
    let fields = shown.fields.iter().map(|(digits, of)| match of {
        Some((field, value)) => format!("{field} {digits} ({})", Excerpt::line(value, WORD_MAX)),
        None => format!("{digits}, of something that is not known here"),
    });
    let fields: Vec<String> = fields.collect();
    Some(format!("{}, {} of {N_VALUES}", fields.join(", "), ordinal(shown.n.saturating_add(1))))
}

fn ordinal(number: u8) -> String {
    let end = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::agent::node::survey::Survey;
    use crate::operator::golden;
    use crate::record::examples::{lease, link_of};
    use crate::rpc::client::CallError;
    use crate::rpc::report::OtherNode;
    use model::embed::Algo;
    use model::routes::{Group, Nexthop, RouteKey, Routes, Stage};

    const NOW: u64 = 10_000_000;
    const RANGE6: &str = "2001:db8:1:f001::/64";
    const RANGE4: &str = "10.25.214.0/24";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    fn pod(name: &str) -> Option<PodName> {
        Some(PodName { namespace: "shop".into(), name: name.into(), uid: None })
    }

    fn known() -> Identity {
        let text = |text: &str| Some(text.to_owned());
        Identity { namespace: text("shop"), app: text("web"), image: text("ghcr.io/example/web:1.4") }
    }

    /// The address that shows the identity of `shop/web-1`.
    fn readable() -> Ipv6Addr {
        let algo: Algo = "namespace,app,image".parse().expect("an algo");
        embed::address(RANGE6.parse().expect("a range"), &algo, &known(), 4).expect("embeds")
    }

    fn scene() -> Scene {
        let web = Lease {
            pod: pod("web-1"),
            ipv6: Some(readable()),
            ipv4: Some([10, 25, 214, 7].into()),
            extra: vec![ip("203.0.113.7")],
            anycast: vec![ip("203.0.113.53"), ip("203.0.113.54")],
            since: NOW - 12_000,
            ..lease("4f1d2c3b4a59/eth0")
        };
        let bare = Lease { ipv6: None, ipv4: Some([10, 25, 214, 8].into()), since: 0, ..lease("7788aabb/eth0") };
        let cut =
            Lease { pod: pod("cut"), ipv6: None, ipv4: Some([10, 25, 214, 9].into()), since: NOW, ..lease("99/eth0") };
        let lost = Lease { ipv6: None, ipv4: Some([10, 25, 214, 10].into()), ..lease("a6/eth0") };
        let freed = Freed {
            attachment: lease("b1/eth0").attachment,
            at: NOW - 19_000,
            ips: vec![ip("10.25.214.20")],
            pod: pod("old"),
        };
        let pairs: Vec<Observed> = [&web, &bare, &lost].map(link_of).into();
        let main = |to: &str| RouteKey { table: MAIN, to: to.parse().expect("a prefix"), metric: 0 };
        let announced = RouteKey { table: ANNOUNCED, to: ip("203.0.113.7").into(), metric: 1 };
        // As flock leads to what its pods share: by objects, and before Linux 5.3 by the pod's address.
        let hop = Nexthop { via: ip("10.25.214.7"), link: pairs[0].index };
        let routes = [
            (main("10.25.215.0/24"), Way::Gateway { via: ip("192.0.2.2"), link: 2 }),
            (main("203.0.113.53/32"), Way::Nexthop(3)),
            (main("203.0.113.54/32"), Way::Gateway { via: hop.via, link: hop.link }),
            (announced, Way::Link(7)),
        ];
        Scene {
            recorded: Recorded { leases: vec![web, bare, cut], freed: vec![freed], now: NOW, ..Recorded::default() },
            pairs,
            routes: Routes {
                routes: routes.into(),
                nexthops: [(5, hop)].into(),
                groups: [(3, Group { members: vec![(5, 127)], resilient: true })].into(),
                ..Routes::default()
            },
            stage: Stage::default(),
            prefixes: nets(&[RANGE6, RANGE4]),
            survey: Survey::default(),
            shows: Default::default(),
            uplinks: vec![],
            ends: vec![],
        }
    }

    fn word(others: &[OtherNode]) -> Word {
        let ranges = vec![RANGE6.into(), RANGE4.into()];
        Ok(WhoseReport {
            node: "host001".into(),
            ranges,
            others: others.into(),
            others_heard: Some(true),
            ..WhoseReport::default()
        })
    }

    fn silence() -> Word {
        let error = io::Error::from(io::ErrorKind::NotFound);
        Err(Unanswered::Call(CallError::Absent { socket: "/s".into(), error }))
    }

    fn asked(scene: &Scene, word: &Word, address: &str, host: Option<Holder>) -> String {
        let identity = |_: &PodName| known();
        block(address, Seen { scene, word, identity: &identity }.address(ip(address), host))
    }

    #[test]
    fn every_address_is_somebodys_or_it_is_said_why_it_is_nobodys() {
        let (scene, readable) = (scene(), readable().to_string());
        let other = |range: Option<&str>, pod: Option<&str>| OtherNode {
            node: "host002".into(),
            range: range.map(Into::into),
            pod: pod.map(Into::into),
            shared: false,
        };
        let nobody = &word(&[]);
        let mut all = String::new();
        for (address, host, word) in [
            (readable.as_str(), None, nobody),
            ("10.25.214.8", None, nobody),
            ("10.25.214.9", None, nobody),
            ("10.25.214.10", None, nobody),
            ("203.0.113.7", None, nobody),
            ("203.0.113.53", None, nobody),
            ("203.0.113.54", None, nobody),
            ("10.25.214.20", None, nobody),
            ("10.25.214.21", None, nobody),
            ("10.25.214.0", None, nobody),
            ("10.25.214.1", Some(Holder::Host), nobody),
            ("10.25.214.255", None, nobody),
            ("2001:db8:1:f001::", None, nobody),
            ("10.25.214.254", Some(Holder::NextHop), nobody),
            ("192.0.2.9", Some(Holder::Neighbour), nobody),
            ("169.254.1.1", Some(Holder::Host), nobody),
            ("10.25.215.3", None, &word(&[other(Some("10.25.215.0/24"), None)])),
            ("198.51.100.7", None, &word(&[other(None, Some("mail/smtp-0"))])),
            ("10.25.215.3", None, &silence()),
            ("198.51.100.8", None, &silence()),
        ] {
            all += &asked(&scene, word, address, host);
            all.push('\n');
        }
        golden::compare("explain-addresses", &all);
    }

    #[test]
    fn a_node_of_which_no_range_is_known_says_so_and_nothing_is_free() {
        let scene = Scene { prefixes: vec![], ..scene() };
        let text = asked(&scene, &silence(), "10.25.214.99", None);
        assert!(
            text.contains("range       not known: this node has no NodeConfig in force") && !text.contains("free"),
            "{text}"
        );
        let deaf = Ok(WhoseReport { others_heard: Some(false), ..word(&[]).expect("a word") });
        let text = asked(&self::scene(), &deaf, "198.51.100.8", None);
        assert!(text.contains("other node  not known: the API server has not told"), "{text}");
    }

    #[test]
    fn pods_links_and_containers_are_told_with_all_that_they_have() {
        let (scene, word) = (scene(), word(&[]));
        let identity = |_: &PodName| known();
        let seen = Seen { scene: &scene, word: &word, identity: &identity };
        let web = &scene.recorded.leases[0];
        golden::compare("explain-pod", &block("shop/web-1 eth0", seen.lease(web)));
        let keys = |leases: Vec<&Lease>| leases.iter().map(|lease| lease.attachment.to_string()).collect::<Vec<_>>();
        let own = vec!["4f1d2c3b4a59/eth0".to_owned()];
        assert_eq!(keys(of_pod(&scene.recorded, &pod("web-1").expect("a pod"))), own);
        for name in ["4f1d2c3b4a59", "4f1d", web.host_link.as_str()] {
            assert_eq!(keys(of_name(&scene, name)), own, "{name}");
        }
        for name in ["4f1", "4f1e", "eth0", "99999"] {
            assert_eq!(keys(of_name(&scene, name)), Vec::<String>::new(), "{name}");
        }
        assert_eq!(keys(of_name(&scene, "99")), ["99/eth0"], "a whole id, however short");
        let lost = stranger(&scene, &scene.pairs[2].name).expect("a link");
        assert!(lost.contains("not recorded") && lost.contains("10.25.214.10") && lost.contains("a6, eth0"), "{lost}");
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        for word in ["", "a/b/c", "/b", "a/", "a b", "10.0.0.0/24/1", "é", &"a".repeat(WORD_MAX + 1)] {
            assert_eq!(What::read(word), None, "{word}");
        }
        for (word, meant) in [
            ("::1", "::1"),
            ("::ffff:10.25.214.7", "10.25.214.7"),
            ("10.25.214.7/24", "10.25.214.7"),
            ("2001:db8::7/128", "2001:db8::7"),
            ("fe80::1%eth0", "fe80::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("10.25.214.7:80", "10.25.214.7"),
        ] {
            assert_eq!(What::read(word), Some(What::Address(ip(meant))), "{word}");
        }
        for pod in ["10/24", "shop/10.0.0.1", "10.0.0.1/web"] {
            assert!(matches!(What::read(pod), Some(What::Pod(_))), "{pod}");
        }
        assert_eq!(What::read("shop/web-1"), pod("web-1").map(What::Pod));
        assert_eq!(What::read("flock1a2b3c4d"), Some(What::Name("flock1a2b3c4d".into())));
        for (number, text) in
            [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (16, "16th"), (21, "21st")]
        {
            assert_eq!(ordinal(number), text);
        }
    }
}
