//! Keeps BIRD configured as `spec.bgp` of the NodeConfig says, and knows how the sessions with the peers are. One thread, the only
//! one that writes BIRD's configuration or speaks to BIRD.
//!
//! Without `spec.bgp` nothing is written and nobody is called. BIRD away, or in trouble, is said and waited for; nothing else waits
//! with it. Must not touch a route, and never starts or ends BIRD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::agent::board::Board;
use crate::agent::node::state::{NodeState, View};
use crate::agent::routing::news::News;
use crate::agent::routing::restart;
use crate::bird::conf::{self, CONNECTED_MAX, Configuration, Facts};
use crate::bird::keeper::{Keeper, Standing as Kept};
use crate::bird::password::Password;
use crate::bird::sessions::Session;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::process::log;
use model::addr::is_link_local;
use model::bgp::{Bgp, PeerName};
use model::excerpt::Excerpt;
use model::nodeconfig::NodeConfig;

/// Interval between looks at whether the NodeConfig has changed, 0.5 s.
const INTERVAL: Duration = Duration::from_millis(500);

/// Interval between looks at BIRD and its sessions, 5 s.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Time that sessions have for their beginning before the next look, 1.5 s. BIRD takes 1 s.
const SESSION_TIME: Duration = Duration::from_millis(1500);

/// Deadline for one look, 3 s: less than between two.
const LIMIT: Duration = Duration::from_secs(3);

/// Longest text about passwords, links and refusals together, in bytes.
const TEXT_MAX: usize = 1000;

/// Where BIRD is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Its configuration, an absolute path.
    pub file: PathBuf,
    /// Its control socket, an absolute path.
    pub socket: PathBuf,
}

/// How the peers of `spec.bgp` are told what the node announces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Speaking {
    /// What keeps BIRD from being as it should; none if nothing does, or if there is no `spec.bgp`.
    pub trouble: Option<Trouble>,
    /// The session with each peer, in the order of the NodeConfig; none as long as BIRD has not been asked.
    pub sessions: Vec<Session>,
    /// What an operator should know, a line each.
    pub remarks: Vec<String>,
}

/// What keeps BIRD from being as it should, in one line for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be asked.
    Unreachable(String),
    /// It does not take the configuration, or the configuration cannot be made.
    Refused(String),
}

impl Speaking {
    /// Whether a peer is told anything; none as long as BIRD has not been asked.
    pub fn is_heard(&self) -> Option<bool> {
        let asked = self.trouble.is_some() || !self.sessions.is_empty();
        asked.then(|| self.sessions.iter().any(Session::is_established))
    }

    /// The sessions that the NodeConfig asks for, which without `spec.bgp` is none. Those that BIRD has not ended yet are nobody's
    /// concern.
    pub fn wanted(&self, bgp: bool) -> &[Session] {
        if bgp { &self.sessions } else { &[] }
    }

    /// Whether all is well, in one word, and in words for an operator. Without `spec.bgp`, only what keeps BIRD from ending its
    /// sessions is told, since that is not over by itself.
    pub fn judge(&self, bgp: bool) -> Option<(bool, &'static str, String)> {
        let sessions = self.wanted(bgp);
        let remarks = if self.remarks.is_empty() { String::new() } else { format!("; {}", self.remarks.join("; ")) };
        let (well, reason, text) = match &self.trouble {
            Some(Trouble::Unreachable(why)) => (false, "BirdUnreachable", why.clone()),
            Some(Trouble::Refused(why)) => (false, "ConfigurationRefused", why.clone()),
            None if sessions.is_empty() => return None,
            None => {
                let down: Vec<String> =
                    sessions.iter().filter(|session| !session.is_established()).map(in_words).collect();
                match down.is_empty() {
                    true => (true, "Established", "the session with each peer is established".into()),
                    false => (false, "SessionDown", down.join(", ")),
                }
            }
        };
        Some((well, reason, Excerpt::line(&format!("{text}{remarks}"), TEXT_MAX).into()))
    }
}

/// A session that is not established. In which state of connecting it is changes by the second, and tells nobody anything.
fn in_words(session: &Session) -> String {
    match &session.last_error {
        Some(error) => format!("{} is down ({error})", session.peer),
        None => format!("{} is down", session.peer),
    }
}

/// The thread's state.
#[derive(Debug)]
pub struct Bird {
    keeper: Keeper,
    agent: PathBuf,
    node: String,
    state: Board<NodeState>,
    board: Board<Speaking>,
    /// Wakes the thread of the routes, which may need others as soon as a peer is told anything.
    routing: Sender<News>,
    /// The NodeConfig that was last looked at.
    seen: Option<Arc<View>>,
    /// What the log has last said.
    told: Option<(bool, &'static str, String)>,
}

impl Bird {
    /// The keeper of the BIRD at `places`, for the node `node` whose agent listens on `socket`. Publishes on `board`, and wakes
    /// `routing`.
    pub fn new(
        places: Places,
        socket: &Path,
        node: String,
        state: Board<NodeState>,
        board: Board<Speaking>,
        routing: Sender<News>,
    ) -> Bird {
        Bird {
            keeper: Keeper::new(places.file, places.socket),
            agent: socket.into(),
            node,
            state,
            board,
            routing,
            seen: None,
            told: None,
        }
    }

    /// Looks at once when the NodeConfig has changed, and in intervals, until `stop` says so or is dropped.
    pub fn run(mut self, stop: &Receiver<()>) {
        let mut next = Instant::now();
        while matches!(stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
            let view = self.state.get().view.clone();
            let same = match (&view, &self.seen) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                (now, before) => now.is_none() && before.is_none(),
            };
            if same && Instant::now() < next {
                continue;
            }
            self.seen.clone_from(&view);
            // Before the first good NodeConfig nobody knows what is wanted.
            let configured = view.is_some_and(|view| self.look(&view.config));
            next = Instant::now() + if configured { SESSION_TIME } else { LOOK_INTERVAL };
        }
    }

    /// One look. True if BIRD has just been configured, and its sessions have not had the time to begin.
    fn look(&mut self, config: &NodeConfig) -> bool {
        let deadline = Instant::now() + LIMIT;
        let (speaking, configured) = match &config.bgp {
            Some(bgp) => self.with_peers(config, bgp, deadline),
            None => (self.without_peers(deadline), false),
        };
        if !configured {
            self.tell(&speaking);
        }
        let former = self.board.get();
        if *former != speaking {
            let turned = former.is_heard() != speaking.is_heard();
            self.board.set(speaking);
            if turned {
                // It ends only with the agent.
                self.routing.send(News::Look).ok();
            }
        }
        configured
    }

    fn without_peers(&mut self, deadline: Instant) -> Speaking {
        let node = self.node.clone();
        let empty = |text: &str| {
            let id = conf::router_id_in(text, &node);
            conf::without_peers(&node, conf::router_id(&node, &[], id))
        };
        let outcome = self.keeper.keep_none(empty, deadline);
        if outcome.configured {
            log::info("BIRD has no peers any more, as spec.bgp is absent").write();
        }
        Speaking { trouble: trouble(&outcome.standing), ..Speaking::default() }
    }

    fn with_peers(&mut self, config: &NodeConfig, bgp: &Bgp, deadline: Instant) -> (Speaking, bool) {
        let mut speaking = Speaking::default();
        let wanted = match self.wanted(config, bgp, deadline, &mut speaking.remarks) {
            Ok(wanted) => wanted,
            Err(why) => {
                speaking.trouble =
                    Some(Trouble::Refused(format!("the former configuration of BIRD stays in force: {why}")));
                speaking.sessions = self.keeper.sessions(bgp, deadline).unwrap_or_default();
                return (speaking, false);
            }
        };
        let outcome = self.keeper.keep(&wanted, deadline);
        if let Some(repair) = outcome.repaired {
            log::warn("BIRD was not as flock had left it, and is put right").with("why", repair).write_limited();
        } else if outcome.configured {
            log::info("BIRD is configured")
                .number("peers", bgp.peers.len())
                .with("now", &outcome.standing)
                .write_limited();
        }
        speaking.trouble = trouble(&outcome.standing);
        match self.keeper.sessions(bgp, deadline) {
            Ok(sessions) => speaking.sessions = sessions,
            Err(error) if speaking.trouble.is_none() => {
                speaking.trouble = Some(Trouble::Unreachable(error.to_string()));
            }
            Err(_) => {}
        }
        if speaking.sessions.iter().any(Session::is_established) {
            restart::expect(&self.agent);
        }
        (speaking, outcome.configured)
    }

    /// The configuration for these peers on this host as it is now. What an operator should know goes to `remarks`.
    fn wanted(
        &self,
        config: &NodeConfig,
        bgp: &Bgp,
        deadline: Instant,
        remarks: &mut Vec<String>,
    ) -> Result<Configuration, String> {
        let mut passwords: BTreeMap<PeerName, Password> = BTreeMap::new();
        for peer in &bgp.peers {
            if let Some(file) = &peer.password_file {
                let found = Password::in_file(Path::new(file));
                let (password, remark) = found.map_err(|error| format!("peer {}: {error}", peer.name))?;
                passwords.insert(peer.name.clone(), password);
                remarks.extend(remark);
            }
        }
        let own = config.prefixes();
        let host = host(bgp, &own, deadline).map_err(|error| error.to_string())?;
        if conf::overlapping(&bgp.import, &host.connected).count() > CONNECTED_MAX {
            remarks.push(format!(
                "spec.bgp.import overlaps with more than {CONNECTED_MAX} prefixes of the host's own links, which no peer may give: \
                 nothing is imported but a default route"
            ));
        }
        remarks.extend(conf::distant(bgp));
        let text = self.keeper.own_text().map_err(|error| error.to_string())?;
        let kept = text.and_then(|text| conf::kept_router_id(&text, &self.node, &host.addresses, &host.borne));
        let router_id = conf::router_id(&self.node, &host.addresses, kept);
        let facts =
            Facts { node: self.node.clone(), router_id, own, connected: host.connected, extra: self.keeper.extra() };
        Ok(conf::with_peers(bgp, &facts, &passwords))
    }

    /// Logs how the sessions are when that has changed.
    fn tell(&mut self, speaking: &Speaking) {
        let judged = speaking.judge(true);
        if judged == self.told {
            return;
        }
        match &judged {
            None => {}
            Some((true, _, text)) => {
                log::info("peers are told what this node announces").with("state", text).write_limited();
            }
            Some((false, reason, text)) => log::warn("not every peer is told what this node announces")
                .with("reason", reason)
                .with("err", text)
                .write_limited(),
        }
        self.told = judged;
    }
}

fn trouble(standing: &Kept) -> Option<Trouble> {
    match standing {
        Kept::Idle | Kept::InForce | Kept::InProgress => None,
        Kept::Unreachable(_) => Some(Trouble::Unreachable(standing.to_string())),
        Kept::Refused(_) | Kept::Unwritable { .. } => Some(Trouble::Refused(standing.to_string())),
    }
}

/// What a configuration needs to know of the host.
#[derive(Debug, PartialEq, Eq)]
struct OfHost {
    /// Addresses that are good for a router id, the best one first, in whatever order the kernel names them.
    addresses: Vec<Ipv4Addr>,
    /// All addresses that could be one.
    borne: BTreeSet<Ipv4Addr>,
    /// The prefixes of its links.
    connected: BTreeSet<IpNet>,
}

/// The host as the kernel shows it.
fn host(bgp: &Bgp, own: &[IpNet], deadline: Instant) -> Result<OfHost, NetlinkError> {
    let mut conn = Conn::open(deadline)?;
    let all = conn.addresses(None)?;
    let nets = all
        .iter()
        .filter_map(|address| Some((address.link, address.ip, IpNet::new(address.ip, address.prefix_len).ok()?)));
    let nets: Vec<(u32, IpAddr, IpNet)> = nets.collect();
    // Any address that nobody on a link has says where the way out is.
    let outside = conn.route_for(IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)))?.and_then(|route| route.link);
    let peers = bgp.peers.iter().filter_map(|peer| peer.neighbour.address()).filter(|ip| !is_link_local(*ip));
    Ok(of_host(&nets, outside, &peers.collect::<Vec<_>>(), own))
}

/// The host with these addresses on its links, of which `outside` leads out. An address is good for a router id on the loopback
/// link, on the link that leads out, and on a link of a peer: those of bridges are often the same on every node. One that stands
/// alone on a link is worse than one of a network there, as it may be a service's that moves between hosts.
fn of_host(nets: &[(u32, IpAddr, IpNet)], outside: Option<u32>, peers: &[IpAddr], own: &[IpNet]) -> OfHost {
    let towards: BTreeSet<u32> =
        nets.iter().filter(|(_, _, net)| peers.iter().any(|peer| net.contains(peer))).map(|(link, ..)| *link).collect();
    let outer = |net: &IpNet| !own.iter().any(|own| own.contains(&net.addr()));
    let mut good: Vec<(u8, bool, Ipv4Addr)> = Vec::new();
    for (link, ip, net) in nets.iter().filter(|(.., net)| outer(net)) {
        let class = match *link {
            LOOPBACK => 0,
            link if Some(link) == outside => 1,
            link if towards.contains(&link) => 2,
            _ => continue,
        };
        let alone = *link != LOOPBACK && net.prefix_len() == net.max_prefix_len();
        good.extend(conf::is_for_router_id(*ip).map(|ip| (class, alone, ip)));
    }
    good.sort_unstable();
    let connected = nets.iter().filter(|(_, ip, _)| !is_link_local(*ip) && !ip.is_loopback());
    OfHost {
        addresses: good.into_iter().map(|(.., ip)| ip).collect(),
        borne: nets.iter().filter_map(|(_, ip, _)| conf::is_for_router_id(*ip)).collect(),
        connected: connected.map(|(.., net)| net.trunc()).collect(),
    }
}

/// Index of the loopback link in each namespace.
const LOOPBACK: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_id_does_not_depend_on_the_order_of_the_kernels_answer_nor_on_a_services_address() {
        let net = |link, net: &str| {
            let net: IpNet = net.parse().expect("an address with its prefix length");
            (link, net.addr(), net)
        };
        let (lo, out, peers, bridge) = (LOOPBACK, 2, 3, 9);
        let mut nets = [
            net(lo, "127.0.0.1/8"),
            net(out, "192.0.2.5/32"),
            net(out, "192.0.2.12/24"),
            net(out, "192.0.2.11/24"),
            net(out, "2001:db8::1/64"),
            net(peers, "198.51.100.1/31"),
            net(bridge, "172.17.0.1/16"),
            net(out, "10.7.0.1/24"),
        ];
        let (towards, own) = (["198.51.100.0".parse().expect("literal")], ["10.7.0.0/24".parse().expect("literal")]);
        let seen = |nets: &[(u32, IpAddr, IpNet)]| of_host(nets, Some(out), &towards, &own);
        let expected: Vec<Ipv4Addr> = ["192.0.2.11", "192.0.2.12", "192.0.2.5", "198.51.100.1"]
            .iter()
            .map(|ip| ip.parse().expect("literal"))
            .collect();
        let first = seen(&nets);
        assert_eq!(first.addresses, expected);
        assert!(first.borne.contains(&Ipv4Addr::new(172, 17, 0, 1)), "it is the host's, though nobody would choose it");
        nets.reverse();
        assert_eq!(seen(&nets), first);
        nets[0] = net(lo, "203.0.113.1/32");
        assert_eq!(seen(&nets).addresses[0], Ipv4Addr::new(203, 0, 113, 1), "that of the loopback link is the host's");
    }
}
