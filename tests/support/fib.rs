//! The kernel's routes of a host: as `ip` shows them, and as the kernel announces that they change. Never what a daemon believes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::host::Host;
use super::waiting::PATIENCE;
use crate::support::inside::Inside as _;

/// Destinations, each with its ways: the addresses of next hops, or `dev LINK`, or a type such as `unreachable`.
pub type Routes = BTreeMap<String, BTreeSet<String>>;

impl Host {
    /// The routes of both families that `ip route show SELECTOR` shows.
    pub fn routes(&self, selector: &str) -> Routes {
        let mut routes = Routes::new();
        for family in ["-4", "-6"] {
            // A table that never had a route does not exist, for IPv4.
            let mut command = self.command("ip");
            command.args(["-j", family, "route", "show"]).args(selector.split(' '));
            let output = command.output().expect("ip (iproute2) starts");
            let text = String::from_utf8_lossy(&output.stdout);
            let shown: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
            for route in shown {
                routes.entry(text_of(&route["dst"])).or_default().extend(ways(&route));
            }
        }
        routes
    }

    /// Listens to what the kernel announces of its routes from now on.
    pub fn route_events(&self) -> RouteEvents {
        RouteEvents::listen(&self.netns())
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ways(route: &Value) -> Vec<String> {
    if let Some(hops) = route["nexthops"].as_array() {
        return hops.iter().flat_map(ways).collect();
    }
    let gateway = route["gateway"].as_str().or(route["via"]["host"].as_str());
    match (gateway, route["type"].as_str(), route["dev"].as_str()) {
        (_, Some(kind), _) => vec![kind.to_owned()],
        (Some(gateway), ..) => vec![gateway.to_owned()],
        (None, None, Some(link)) => vec![format!("dev {link}")],
        _ => vec![route.to_string()],
    }
}

/// A change of a route, as the kernel announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEvent {
    pub at: Instant,
    pub gone: bool,
    pub table: u32,
    pub to: IpAddr,
    pub bits: u8,
    pub protocol: u8,
}

/// What the kernel announces of the routes of a network namespace.
pub struct RouteEvents(OwnedFd);

impl RouteEvents {
    pub fn listen(netns: &std::path::Path) -> RouteEvents {
        let open = || {
            let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
            let fd = socket::socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute).expect("a socket");
            socket::setsockopt(&fd, sockopt::RcvBufForce, &(8 << 20)).ok();
            socket::setsockopt(&fd, sockopt::RcvBuf, &(8 << 20)).expect("set");
            const IPV4_ROUTE: u32 = 1 << (7 - 1);
            const IPV6_ROUTE: u32 = 1 << (11 - 1);
            socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, IPV4_ROUTE | IPV6_ROUTE)).expect("bound");
            fd
        };
        RouteEvents(Netns::open(netns).expect("a namespace").run(open).expect("entered"))
    }

    /// The next changes, as soon as there is one; none when none comes in that time.
    pub fn next(&self, within: Duration) -> Vec<RouteEvent> {
        let timeout = Timespec::try_from(within).expect("short");
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).expect("pollable") == 0 {
            return Vec::new();
        }
        let at = Instant::now();
        let mut buffer = [0; 1 << 16];
        let length = socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).expect("nothing was missed");
        parse(&buffer[..length], at)
    }

    /// Waits for a change that is meant.
    #[track_caller]
    pub fn wait(&self, what: &str, mut meant: impl FnMut(&RouteEvent) -> bool) -> RouteEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}");
            if let Some(found) = self.next(left).into_iter().find(&mut meant) {
                return found;
            }
        }
    }

    /// Tells each change as it comes, with its time, on a thread of its own: for callers that are busy meanwhile.
    pub fn told(self) -> Receiver<RouteEvent> {
        let (tell, told) = mpsc::channel();
        thread::spawn(
            move || {
                while self.next(Duration::from_secs(1)).into_iter().all(|event| tell.send(event).is_ok()) {}
            },
        );
        told
    }

    /// A daemon that follows this table of the kernel has had nothing to hear since the last change that was taken from here.
    #[track_caller]
    pub fn assert_unheard(&self, table: u32) {
        let heard: Vec<RouteEvent> = self.drain().into_iter().filter(|event| event.table == table).collect();
        assert_eq!(heard, [], "table {table} has changed");
    }

    /// Every change up to now.
    pub fn drain(&self) -> Vec<RouteEvent> {
        let mut all = Vec::new();
        loop {
            let some = self.next(Duration::ZERO);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }
}

/// The messages of a datagram: each begins with its length and type, and of a route's, family, length, protocol and attributes
/// count.
fn parse(mut bytes: &[u8], at: Instant) -> Vec<RouteEvent> {
    const NEW_ROUTE: u16 = 24;
    const DEL_ROUTE: u16 = 25;
    const DESTINATION: u16 = 1;
    const TABLE: u16 = 15;
    const CLONED: u32 = 0x200;
    let mut events = Vec::new();
    while bytes.len() >= 28 {
        let length = u32::from_ne_bytes(bytes[..4].try_into().expect("four")) as usize;
        let (message, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = &rest[(length.next_multiple_of(4) - length).min(rest.len())..];
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let flags = u32::from_ne_bytes(message[24..28].try_into().expect("four"));
        if !matches!(kind, NEW_ROUTE | DEL_ROUTE) || flags & CLONED != 0 {
            continue;
        }
        let (bits, mut table, protocol) = (message[17], u32::from(message[20]), message[21]);
        let mut to: IpAddr = if message[16] == 10 { "::" } else { "0.0.0.0" }.parse().expect("literal");
        let mut attributes = &message[28..];
        while attributes.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
            let value = &attributes[4..length];
            match u16::from_ne_bytes([attributes[2], attributes[3]]) {
                TABLE => table = u32::from_ne_bytes(value.try_into().expect("four")),
                DESTINATION => to = address(value),
                _ => {}
            }
            attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
        }
        events.push(RouteEvent { at, gone: kind == DEL_ROUTE, table, to, bits, protocol });
    }
    events
}

fn address(bytes: &[u8]) -> IpAddr {
    match bytes.try_into() {
        Ok(four) => <[u8; 4]>::into(four),
        Err(_) => <[u8; 16]>::try_from(bytes).expect("an address").into(),
    }
}
