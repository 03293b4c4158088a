//! One look at what is recorded and at what the kernel shows, for all parts of a check that compare the two.
//!
//! The reading is that of the agent, so that both see the same. Must not judge, and never changes anything.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Instant;

use ipnet::IpNet;

use crate::agent::fault::Cause;
use crate::agent::node::survey::{self, Survey};
use crate::agent::observe;
use crate::agent::routing::drain::DrainFile;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::kernel::netlink::link::Link;
use crate::operator::check::firewall::Ends;
use crate::operator::record::{RecordError, Recorded};
use model::addr::{GATEWAY4, POD_LINKS};
use model::desired::Shows;
use model::forwarding;
use model::observed::{Observed, host_end_of};
use model::plan;
use model::routes::{ANNOUNCED, MAIN, Routes, Stage, Way};

/// A link as a pod's would be, where there is none.
const SOME_LINK: &str = "flock00000000";

/// Somebody beyond, where the host has no route to anybody.
const SOMEBODY: [&str; 2] = ["192.0.2.254", "2001:db8::ffff:ffff:fffe"];

/// A link, and who is there.
type End = (forwarding::Link, IpAddr);

/// What was found.
#[derive(Debug)]
pub struct Scene {
    /// What is recorded.
    pub recorded: Recorded,
    /// The host ends of all pairs of links.
    pub pairs: Vec<Observed>,
    /// Flock's routes beside those of pods' links.
    pub routes: Routes,
    /// How far the node has withdrawn itself.
    pub stage: Stage,
    /// The node's ranges, as its routes say.
    pub prefixes: Vec<IpNet>,
    /// The host.
    pub survey: Survey,
    /// Its settings and what else pods need of it.
    pub shows: Shows,
    /// The links that packets leave by.
    pub uplinks: Vec<Link>,
    /// Where packets of each family come from and go to.
    pub ends: Vec<Ends>,
}

/// Why there is nothing to tell.
#[derive(Debug)]
pub enum SceneError {
    /// The record cannot be read.
    Record(RecordError),
    /// The kernel cannot be asked.
    Kernel(Cause),
}

impl From<Cause> for SceneError {
    fn from(cause: Cause) -> SceneError {
        SceneError::Kernel(cause)
    }
}

impl Scene {
    /// Looks, also at the record in `state_dir` of the agent that listens, or listened, on `socket`, which has said that these are
    /// the node's ranges, if it has said anything.
    ///
    /// # Errors
    /// What is there cannot be read.
    pub fn look(state_dir: &Path, socket: &Path, ranges: &[IpNet], deadline: Instant) -> Result<Scene, SceneError> {
        // Links before leases: of a link that is made in between, there is no lease in an older list.
        let pairs = observe::host_links(deadline)?;
        let recorded = Recorded::read(state_dir, socket).map_err(SceneError::Record)?;
        let kernel = |error| SceneError::Kernel(Cause::from(error));
        let mut conn = Conn::open(deadline).map_err(kernel)?;
        let routes = conn.shown_routes().map_err(kernel)?;
        // The agent's word counts, and what it has made while it is away.
        let unreachable = conn.own_unreachable_routes().map_err(kernel)?.into_iter().map(|route| route.to);
        let announced = routes.routes.iter().filter(|(key, way)| key.table == ANNOUNCED && **way == Way::Unreachable);
        let prefixes: BTreeSet<IpNet> = unreachable.chain(announced.map(|(key, _)| key.to)).collect();
        let prefixes: Vec<IpNet> = if ranges.is_empty() { prefixes.into_iter().collect() } else { ranges.to_vec() };
        let survey = survey::take(&prefixes, GATEWAY4, None, deadline).map_err(kernel)?;
        let shows = survey::settings(&survey, None, deadline)?;
        let (uplinks, beyond) = ways_out(&mut conn, &routes).map_err(kernel)?;
        let ends = ends(&recorded, &pairs, &prefixes, &beyond);
        let stage = DrainFile::beside(socket).stage().unwrap_or_default();
        Ok(Scene { recorded, pairs, routes, stage, prefixes, survey, shows, uplinks, ends })
    }
}

impl Scene {
    /// The names of pods' links; of one as it would be called, where there is none.
    pub fn link_names(&self) -> Vec<String> {
        let leases = &self.recorded.leases;
        let names: Vec<String> =
            leases.iter().filter_map(|lease| host_end_of(lease, &self.pairs)).map(|link| link.name.clone()).collect();
        if names.is_empty() { vec![SOME_LINK.into()] } else { names }
    }
}

/// The links that packets leave by, to anybody and to other nodes, and somebody of each family beyond each of them.
fn ways_out(conn: &mut Conn, routes: &Routes) -> Result<(Vec<Link>, Vec<End>), NetlinkError> {
    let objects = conn.nexthop_objects()?;
    let mut ways: Vec<(u32, IpAddr)> = Vec::new();
    for (ip, somebody) in survey::ANYWHERE.iter().zip(SOMEBODY.iter().rev()) {
        let Some(way) = conn.foreign_route_for(*ip, &objects)? else { continue };
        for (index, via) in way.hops {
            let other = via.filter(|via| via.is_ipv6() == ip.is_ipv6()).or_else(|| somebody.parse().ok());
            ways.extend(index.zip(other));
        }
    }
    for (key, way) in routes.routes.iter().filter(|(key, _)| key.table == MAIN) {
        ways.extend(routes.links(*way).map(|link| (link, some_address(&key.to))));
    }
    let mut known: BTreeSet<(u32, bool)> = BTreeSet::new();
    ways.retain(|(index, ip)| known.insert((*index, ip.is_ipv6())));
    let (mut uplinks, mut beyond): (Vec<Link>, Vec<End>) = Default::default();
    for (index, other) in ways {
        let Some(link) = conn.link_at(index)? else { continue };
        let is_marked = link.alias.as_deref().is_some_and(|alias| plan::attachment_of_alias(alias).is_some());
        if link.loopback || link.veth && (is_marked || link.name.starts_with(POD_LINKS)) {
            continue;
        }
        beyond.push((forwarding::Link { name: link.name.clone(), index: link.index }, other));
        if uplinks.iter().all(|known| known.index != link.index) {
            uplinks.push(link);
        }
    }
    Ok((uplinks, beyond))
}

/// Two pods of each family that the node serves, which are made up where there are none.
fn ends(recorded: &Recorded, pairs: &[Observed], prefixes: &[IpNet], beyond: &[End]) -> Vec<Ends> {
    let mut ends = Vec::new();
    for prefix in prefixes {
        let v6 = prefix.addr().is_ipv6();
        if ends.iter().any(|Ends { pods: [(_, ip), _], .. }| ip.is_ipv6() == v6) {
            continue;
        }
        let living = recorded.leases.iter().filter_map(|lease| {
            let ip = lease.primary().find(|ip| ip.is_ipv6() == v6)?;
            let link = host_end_of(lease, pairs)?;
            Some((forwarding::Link { name: link.name.clone(), index: link.index }, ip))
        });
        let some = || (forwarding::Link { name: SOME_LINK.into(), index: 0 }, some_address(prefix));
        let mut living = living.take(2);
        let (one, other) = (living.next(), living.next());
        let one = one.unwrap_or_else(some);
        let other = other.unwrap_or_else(some);
        let beyond = beyond.iter().filter(|(_, ip)| ip.is_ipv6() == v6).cloned().collect();
        ends.push(Ends { pods: [one, other], beyond });
    }
    ends
}

/// Some address of a range that a pod could have.
fn some_address(range: &IpNet) -> IpAddr {
    match range {
        IpNet::V4(range) => Ipv4Addr::from_bits(range.network().to_bits().saturating_add(2)).into(),
        IpNet::V6(range) => Ipv6Addr::from_bits(range.network().to_bits().saturating_add(2)).into(),
    }
}

/// What a record that may not be read means for the whole check.
pub fn is_denied(error: &SceneError) -> bool {
    match error {
        SceneError::Record(RecordError::Denied(_)) => true,
        SceneError::Record(RecordError::Disk(error)) => error.error.kind() == io::ErrorKind::PermissionDenied,
        SceneError::Kernel(_) => false,
    }
}
