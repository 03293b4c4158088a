//! The text of BIRD's configuration: values in, text out, the same text for the same values.
//!
//! Every value has been parsed before it is printed, so nothing that an operator writes can become configuration by itself. What a
//! node announces is not in here: BIRD learns it from kernel table 102. Must not read a file, nor speak to BIRD.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use model::addr::fnv1a32;
use model::bgp::{Bgp, Neighbour, Peer, PeerAsn, PeerName};
use model::excerpt::Excerpt;
use model::plan::ROUTE_PROTOCOL;
use model::routes::{ANNOUNCED, DRAINING, MAIN, METRIC_MAX};

use crate::bird::password::Password;

/// First line of a file that flock has written.
pub const HEADER: &str = "# Written by flock-agent. Changes are overwritten.";

/// What the protocols of peers begin with: a peer may bear any word of BIRD's own language.
pub const PROTOCOL: &str = "peer_";

/// What stands between a protocol's name and the number of a session that began at the other end of a link. Names of peers have no
/// capitals.
pub const DYNAMIC: &str = "_U";

/// Metric of imported routes in the main table: behind everything that the host or its operator has.
const IMPORT_METRIC: u32 = 2048;

/// Metrics that mean that the node or pod is about to go.
const LEAVING: std::ops::RangeInclusive<u32> = DRAINING + 1..=DRAINING + METRIC_MAX;

/// The filter of what peers of other ASes are told.
const EXTERNAL: &str = "announce";

/// The filter of what peers of the own AS are told.
const INTERNAL: &str = "announce_internal";

/// Preference of what the node announces: above whatever a peer says of the same prefix, or only one of two nodes with one anycast
/// address would announce it.
const PREFERENCE: u32 = 500;

/// Time that BIRD waits for its peers after a restart before it goes on without those that are silent, in seconds.
const RESTART_WAIT: u32 = 10;

/// Most prefixes of the host's links that are told. Where what is listed overlaps with more, no more than a default route is taken.
pub const CONNECTED_MAX: usize = 1024;

/// What a host is, as far as the configuration needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The node's name.
    pub node: String,
    /// The router id where the NodeConfig has none.
    pub router_id: Ipv4Addr,
    /// The node's own ranges.
    pub own: Vec<IpNet>,
    /// The prefixes of the host's links, and its own addresses.
    pub connected: BTreeSet<IpNet>,
    /// The operator's own file, if there is one.
    pub extra: Option<PathBuf>,
}

/// A configuration. It holds passwords: has no `Display`, and a `Debug` without text.
#[derive(Clone, PartialEq, Eq)]
pub struct Configuration {
    text: String,
    passwords: Vec<Password>,
}

impl Configuration {
    /// The text, for the file and nothing else.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What BIRD says of this configuration, without any password that it might repeat.
    pub fn without_passwords(&self, said: &str) -> Excerpt {
        let mut said = said.to_owned();
        for password in &self.passwords {
            said = said.replace(password.expose(), "<password>");
        }
        Excerpt::line(&said, said.len().max(1))
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<configuration of {} bytes>", self.text.len())
    }
}

/// The router id for a host with these IPv4 addresses, the best one first: the one that it keeps, or else the first address, or
/// else a hash of the node's name.
pub fn router_id(node: &str, addresses: &[Ipv4Addr], kept: Option<Ipv4Addr>) -> Ipv4Addr {
    kept.or_else(|| addresses.first().copied()).unwrap_or_else(|| hashed(node))
}

fn hashed(node: &str) -> Ipv4Addr {
    Ipv4Addr::from(fnv1a32(node.as_bytes()).max(1))
}

/// The router id in `text`, a configuration that flock has written for this node, if it is to stay, since a change would end every
/// session. It stays while the host bears it, on whatever link, or has no address that is good for one; and one that was made of
/// the node's name while there are peers that know it. An address that the host has lost may be another router's.
pub fn kept_router_id(text: &str, node: &str, addresses: &[Ipv4Addr], borne: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let id = router_id_in(text, node)?;
    let known = || text.contains(&format!("\nprotocol bgp {PROTOCOL}"));
    (addresses.is_empty() || borne.contains(&id) || id == hashed(node) && known()).then_some(id)
}

/// The router id in a configuration that flock has written for this node.
pub fn router_id_in(text: &str, node: &str) -> Option<Ipv4Addr> {
    if !text.starts_with(HEADER) || !text.lines().any(|line| line == node_line(node)) {
        return None;
    }
    let line = text.lines().find_map(|line| line.strip_prefix("router id "))?;
    line.strip_suffix(';')?.parse().ok()
}

fn node_line(node: &str) -> String {
    format!("# Node {}", Excerpt::of(node))
}

/// The configuration for these peers.
pub fn with_peers(bgp: &Bgp, facts: &Facts, passwords: &BTreeMap<PeerName, Password>) -> Configuration {
    let mut text = String::new();
    // Writing to a string cannot fail.
    write_with_peers(&mut text, bgp, facts, passwords).ok();
    Configuration { text, passwords: passwords.values().cloned().collect() }
}

/// The configuration that ends all sessions.
pub fn without_peers(node: &str, router_id: Ipv4Addr) -> Configuration {
    let mut text = String::new();
    write_head(&mut text, node, router_id).ok();
    text.push_str("# spec.bgp is absent: no peers.\nprotocol device { }\n");
    Configuration { text, passwords: Vec::new() }
}

/// What BIRD can be started with before any agent has run. Nothing in it is of a node: the agent replaces it.
pub fn before_any_agent() -> String {
    let mut text = format!("{HEADER}\n");
    // BIRD wants a router id, and would not start on a host without an IPv4 address.
    write_settings(&mut text, Ipv4Addr::new(0, 0, 0, 1)).ok();
    text.push_str(
        "# flock-agent puts the peers here, as soon as spec.bgp of the NodeConfig names any.\nprotocol device { }\n",
    );
    text
}

fn write_head(out: &mut String, node: &str, router_id: Ipv4Addr) -> fmt::Result {
    writeln!(out, "{HEADER}")?;
    writeln!(out, "{}", node_line(node))?;
    write_settings(out, router_id)
}

fn write_settings(out: &mut String, router_id: Ipv4Addr) -> fmt::Result {
    writeln!(out, "log stderr all;")?;
    writeln!(out, "router id {router_id};")?;
    // With the offset, so that whoever reads the times need not know the daemon's time zone.
    for what in ["base", "protocol"] {
        writeln!(out, "timeformat {what} \"%FT%T.%3f%z\";")?;
    }
    writeln!(out, "graceful restart wait {RESTART_WAIT};")
}

fn write_with_peers(
    out: &mut String,
    bgp: &Bgp,
    facts: &Facts,
    passwords: &BTreeMap<PeerName, Password>,
) -> fmt::Result {
    write_head(out, &facts.node, bgp.router_id.unwrap_or(facts.router_id))?;
    let import = Import::of(bgp, facts);
    writeln!(out, "protocol device {{ }}")?;
    write_announcements(out, bgp)?;
    import.write(out)?;
    write_template(out, bgp, &import)?;
    if bgp.peers.iter().any(|peer| peer.bfd.is_some()) {
        writeln!(out, "protocol bfd {{ }}")?;
    }
    write_advertisements(out, bgp)?;
    for peer in &bgp.peers {
        write_peer(out, peer, is_internal(bgp, peer), passwords.get(&peer.name), &import)?;
    }
    if let Some(extra) = &facts.extra {
        write_include(out, extra)?;
    }
    Ok(())
}

/// What is learned from table 102, and how it is told to peers.
fn write_announcements(out: &mut String, bgp: &Bgp) -> fmt::Result {
    for family in [4, 6] {
        writeln!(out, "ipv{family} table flock{family};")?;
        writeln!(out, "protocol kernel announce{family} {{")?;
        writeln!(out, "  learn; kernel table {ANNOUNCED}; scan time 20;")?;
        writeln!(out, "  ipv{family} {{")?;
        writeln!(out, "    table flock{family};")?;
        writeln!(
            out,
            "    import filter {{ if krt_source != {ROUTE_PROTOCOL} then reject; preference = {PREFERENCE}; accept; }};"
        )?;
        writeln!(out, "    export none;")?;
        writeln!(out, "  }};")?;
        writeln!(out, "}}")?;
    }
    write_filter(out, EXTERNAL, &format!("bgp_path.prepend({})", bgp.asn))?;
    if bgp.peers.iter().any(|peer| is_internal(bgp, peer)) {
        // Within an AS nobody takes a path with the own number in it.
        write_filter(out, INTERNAL, "bgp_local_pref = 0")?;
    }
    Ok(())
}

/// What peers are told. Of what is about to go, they are asked to prefer any other way.
fn write_filter(out: &mut String, name: &str, to_go: &str) -> fmt::Result {
    writeln!(out, "filter {name} {{")?;
    // What has come from a peer goes to no other one: this node is no way through.
    writeln!(out, "  if source != RTS_INHERIT then reject;")?;
    writeln!(out, "  if krt_metric >= {} && krt_metric <= {} then {{", LEAVING.start(), LEAVING.end())?;
    writeln!(out, "    bgp_community.add((65535,0));")?;
    writeln!(out, "    {to_go};")?;
    writeln!(out, "  }}")?;
    writeln!(out, "  accept;")?;
    writeln!(out, "}}")
}

/// Whether the peer is of the node's own AS.
fn is_internal(bgp: &Bgp, peer: &Peer) -> bool {
    matches!(peer.asn, PeerAsn::Is(asn) if asn == bgp.asn)
}

/// Those of the host's own prefixes that `import` could bring another way to. A default route is taken as it stands, and so brings
/// none: with it alone, nothing that comes and goes on the host's links, such as addresses of services, is a new configuration.
pub fn overlapping<'a>(import: &'a [IpNet], connected: &'a BTreeSet<IpNet>) -> impl Iterator<Item = &'a IpNet> {
    let overlap = |net: &IpNet, listed: &IpNet| net.contains(listed) || listed.contains(net);
    let ranges = || import.iter().filter(|listed| listed.prefix_len() > 0);
    connected.iter().filter(move |net| net.prefix_len() > 0 && ranges().any(|listed| overlap(net, listed)))
}

/// What an operator should know who has listed what peers may give: from distant ones, nothing is taken.
pub fn distant(bgp: &Bgp) -> Option<String> {
    let distant: Vec<&str> =
        bgp.peers.iter().filter(|peer| peer.multihop.is_some()).map(|peer| peer.name.as_str()).collect();
    let silent = distant.is_empty() || bgp.import.is_empty();
    (!silent)
        .then(|| format!("nothing is imported from {}, as the way there (multihop) is not BIRD's", distant.join(", ")))
}

/// What peers may give to this host, by family.
struct Import {
    v4: Vec<IpNet>,
    v6: Vec<IpNet>,
    /// Never taken, whatever is listed.
    refused: BTreeSet<IpNet>,
}

impl Import {
    fn of(bgp: &Bgp, facts: &Facts) -> Import {
        let fixed = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"];
        let mut refused: BTreeSet<IpNet> = fixed.into_iter().filter_map(|net| net.parse().ok()).collect();
        refused.extend(&facts.own);
        let too_many = overlapping(&bgp.import, &facts.connected).count() > CONNECTED_MAX;
        if !too_many {
            refused.extend(overlapping(&bgp.import, &facts.connected));
        }
        let of = |v6: bool| {
            let can_be_told = |net: &&IpNet| net.prefix_len() == 0 || !too_many;
            let family = bgp.import.iter().filter(|net| net.addr().is_ipv6() == v6).filter(can_be_told);
            let mut family: Vec<IpNet> = family.copied().collect();
            family.sort_unstable();
            family
        };
        Import { v4: of(false), v6: of(true), refused }
    }

    fn families(&self) -> impl Iterator<Item = (u8, &Vec<IpNet>)> {
        [(4, &self.v4), (6, &self.v6)].into_iter().filter(|(_, listed)| !listed.is_empty())
    }

    fn takes(&self, family: u8) -> bool {
        self.families().any(|(of, _)| of == family)
    }

    /// The filter, and the way from the peers' tables to the kernel's main table: BIRD lets a table have one kernel table only, and
    /// the peers' tables have 102.
    fn write(&self, out: &mut String) -> fmt::Result {
        for (family, listed) in self.families() {
            let refused = self.refused.iter().filter(|net| net.addr().is_ipv6() == (family == 6));
            writeln!(out, "filter import{family} {{")?;
            writeln!(out, "  if net ~ [ {} ] then reject;", set(refused))?;
            writeln!(out, "  if net ~ [ {} ] then accept;", set(listed.iter()))?;
            writeln!(out, "  reject;")?;
            writeln!(out, "}}")?;
            writeln!(out, "protocol pipe imported{family} {{")?;
            writeln!(out, "  table master{family}; peer table flock{family};")?;
            writeln!(out, "  import where source = RTS_BGP; export none;")?;
            writeln!(out, "}}")?;
            writeln!(out, "protocol kernel main{family} {{")?;
            writeln!(out, "  kernel table {MAIN}; metric {IMPORT_METRIC}; merge paths on; graceful restart on;")?;
            writeln!(out, "  ipv{family} {{ table master{family}; import none; export where source = RTS_BGP; }};")?;
            writeln!(out, "}}")?;
        }
        Ok(())
    }
}

/// Prefixes with the longer ones in them; a default route as it stands.
fn set<'a>(nets: impl Iterator<Item = &'a IpNet>) -> String {
    let item = |net: &IpNet| if net.prefix_len() == 0 { net.to_string() } else { format!("{net}+") };
    nets.map(item).collect::<Vec<_>>().join(", ")
}

fn write_template(out: &mut String, bgp: &Bgp, import: &Import) -> fmt::Result {
    let taken = |family| if import.takes(family) { format!("filter import{family}") } else { "none".into() };
    writeln!(out, "template bgp flock_peer {{")?;
    writeln!(out, "  local as {};", bgp.asn)?;
    writeln!(out, "  graceful restart on; connect delay time 1; error wait time 1,5;")?;
    // Other nodes have the same AS number, and what they announce comes by way of the router; twice, if it is about to go.
    if import.families().next().is_some() {
        writeln!(out, "  allow local as 2;")?;
    }
    writeln!(out, "  ipv4 {{")?;
    writeln!(
        out,
        "    table flock4; import {}; export filter {EXTERNAL}; next hop self; extended next hop on;",
        taken(4)
    )?;
    writeln!(out, "  }};")?;
    writeln!(out, "  ipv6 {{")?;
    writeln!(out, "    table flock6; import {}; export filter {EXTERNAL}; next hop self;", taken(6))?;
    writeln!(out, "  }};")?;
    writeln!(out, "}}")
}

/// Router advertisements on links whose other end is to find this host. They say that it is there, and that it is nobody's default
/// router, and name no prefix.
fn write_advertisements(out: &mut String, bgp: &Bgp) -> fmt::Result {
    let on = |peer: &Peer| match &peer.neighbour {
        Neighbour::On(link) => Some(link.clone()),
        Neighbour::At { .. } => None,
    };
    let links: BTreeSet<_> = bgp.peers.iter().filter_map(on).collect();
    if links.is_empty() {
        return Ok(());
    }
    writeln!(out, "protocol radv flock_links {{")?;
    writeln!(out, "  prefix ::/0 {{ skip; }};")?;
    for link in links {
        writeln!(out, "  interface \"{link}\" {{")?;
        writeln!(out, "    min ra interval 3; max ra interval 10; default lifetime 0; current hop limit 0;")?;
        writeln!(out, "  }};")?;
    }
    writeln!(out, "}}")
}

fn write_peer(
    out: &mut String,
    peer: &Peer,
    internal: bool,
    password: Option<&Password>,
    import: &Import,
) -> fmt::Result {
    let name = &peer.name;
    let asn = match peer.asn {
        PeerAsn::Is(asn) => format!("as {asn}"),
        PeerAsn::External => "external".into(),
    };
    writeln!(out, "protocol bgp {PROTOCOL}{name} from flock_peer {{")?;
    match &peer.neighbour {
        Neighbour::At { address, interface } => {
            writeln!(out, "  neighbor {address} {asn};")?;
            if let Some(link) = interface {
                writeln!(out, "  interface \"{link}\";")?;
            }
        }
        Neighbour::On(link) => {
            writeln!(out, "  neighbor range fe80::/10 {asn};")?;
            writeln!(out, "  interface \"{link}\"; passive on; dynamic name \"{PROTOCOL}{name}{DYNAMIC}\";")?;
        }
    }
    match peer.multihop {
        None => writeln!(out, "  direct;")?,
        Some(hops) => writeln!(out, "  multihop {hops};")?,
    }
    for family in [4, 6] {
        // Of a distant peer, the way to its next hops is in the kernel, which BIRD does not look at.
        let import = if peer.multihop.is_some() && import.takes(family) { " import none;" } else { "" };
        let export = if internal { format!(" export filter {INTERNAL};") } else { String::new() };
        if !(import.is_empty() && export.is_empty()) {
            writeln!(out, "  ipv{family} {{{import}{export} }};")?;
        }
    }
    writeln!(out, "  hold time {}; keepalive time {};", peer.hold_time, (peer.hold_time / 3).max(1))?;
    if let Some(bfd) = peer.bfd {
        let interval = bfd.interval;
        writeln!(out, "  bfd {{")?;
        writeln!(
            out,
            "    min rx interval {interval} ms; min tx interval {interval} ms; multiplier {};",
            bfd.multiplier
        )?;
        writeln!(out, "  }};")?;
    }
    if let Some(password) = password {
        writeln!(out, "  password \"{}\";", password.expose())?;
    }
    writeln!(out, "}}")
}

/// On a line of its own, as BIRD wants it.
fn write_include(out: &mut String, extra: &Path) -> fmt::Result {
    writeln!(out, "include \"{}\";", extra.display())
}

/// The addresses of a host that are good for a router id, from all that it has.
pub fn is_for_router_id(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(ip) if !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()) => Some(ip),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
