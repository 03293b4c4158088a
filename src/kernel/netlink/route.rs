//! The routes of the table that is announced, and those of the main table that lead to other nodes and to anycast addresses:
//! reads them with the nexthop objects behind them, and carries out a list of [`Step`]s.
//!
//! Owns how they are encoded, and what becomes of the steps behind one that was refused. Must not decide what should be there,
//! nor touch what lacks flock's mark. The routes of pods' links and the host's own unreachable ones are of `apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use super::apply::route;
use super::conn::{Conn, Encoded, Request};
use super::foreign::{NexthopObjects, as_foreign_route, hops_of};
use super::message::{Object, address, number, other_family};
use super::nexthop::{Owner, delete_nexthop, put_flags, put_group, put_nexthop, taken};
use super::uapi::{
    AF_INET, AF_INET6, ROUTE_SIZE, RTA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PRIORITY, RTA_TABLE,
    RTA_VIA, RTM_F_CLONED, RTM_NEWROUTE, RTN_BLACKHOLE, RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE, RTPROT_BOOT,
};
use super::{Cause, Hop, NetlinkError};
use model::plan::ROUTE_PROTOCOL;
use model::routes::{ANNOUNCED, MAIN, RouteKey, Routes, Step, Way};

/// Most requests in one system call. Their acknowledgements wait in the socket's queue, which holds some 270.
const BATCH: usize = 64;

/// A route as the kernel shows it, as far as it is of a shape that flock makes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) key: RouteKey,
    pub(super) way: Way,
    pub(super) protocol: u8,
}

/// What stands where a route was to be made.
struct InTheWay {
    protocol: u8,
    /// Where it leads, if flock could have made it.
    way: Option<Way>,
    hops: Vec<Hop>,
}

impl Conn {
    /// What bears flock's mark: all of the announced table, of the main table what leads to a gateway or by a nexthop object, and
    /// those objects. The kernel leaves all other routes out, so it does not matter how long the tables are.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn shown_routes(&mut self) -> Result<Routes, NetlinkError> {
        let mut shown = Routes::default();
        for table in [ANNOUNCED, MAIN] {
            let of_table = self.marked(table)?.into_iter();
            let ours = of_table.filter(|route| match route.way {
                Way::Gateway { .. } | Way::Nexthop(_) => true,
                Way::Link(_) | Way::Unreachable => route.key.table == ANNOUNCED,
            });
            shown.routes.append(&mut ours.map(|route| (route.key, route.way)).collect());
        }
        self.shown_nexthops(&mut shown)?;
        Ok(shown)
    }

    /// The routes of a table that bear the mark.
    fn marked(&mut self, table: u32) -> Result<Vec<Shown>, NetlinkError> {
        let filter = RouteHeader {
            table: short(table),
            protocol: RouteProtocol::from(ROUTE_PROTOCOL),
            ..RouteHeader::default()
        };
        let routes = self.route_objects(filter)?;
        let marked = |route: &Shown| route.protocol == ROUTE_PROTOCOL && route.key.table == table;
        Ok(routes.iter().filter_map(as_shown).filter(marked).collect())
    }

    /// Carries out the steps in order and says of each what became of it. What is done already is done, and what is gone
    /// is removed. What rests on a refused step is not tried: an address is not announced when its route was refused, no route is
    /// removed whose announcement could not be withdrawn, and no nexthop object while anything may still lead to it.
    ///
    /// Fewer results than steps when the kernel could not be asked any more: the last one is the reason, and nothing is known of
    /// what follows.
    pub fn carry_out(&mut self, steps: &[Step]) -> Vec<Result<(), NetlinkError>> {
        let mut results = Vec::with_capacity(steps.len());
        let mut refused = Refused::default();
        let mut rest = steps;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(independent(rest));
            match self.carry_out_batch(batch, &refused) {
                Ok(of_batch) => {
                    let failed = batch.iter().zip(&of_batch).filter(|(_, result)| result.is_err());
                    failed.for_each(|(step, _)| refused.note(step));
                    results.extend(of_batch);
                }
                Err(error) => {
                    results.push(Err(error));
                    break;
                }
            }
            rest = after;
        }
        results
    }

    fn carry_out_batch(
        &mut self,
        batch: &[Step],
        refused: &Refused,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let mut stand = self.replaceable(batch)?;
        stand.extend(self.takeable(batch)?);
        let mut requests = Vec::new();
        let mut done = Vec::with_capacity(batch.len());
        for step in batch {
            let request = if refused.hold(step) {
                Err(Err(NetlinkError { what: step.to_string(), cause: Cause::Unfounded }))
            } else {
                self.request(step, &stand)
            };
            done.push(request.map(|request| requests.push(request)).err());
        }
        // Empty when all of it is done, or held back.
        let mut sent = if requests.is_empty() { Vec::new() } else { self.batch(requests)? }.into_iter();
        let results = done.into_iter().zip(batch).map(|(done, step)| match done.or_else(|| sent.next()) {
            Some(Err(error)) => self.judge(step, error),
            Some(Ok(())) => Ok(()),
            None => Err(NetlinkError { what: step.to_string(), cause: Cause::Garbled("no acknowledgement".into()) }),
        });
        Ok(results.collect())
    }

    /// The links that a route leads to which stands where `key` belongs, and which may be the Go flock's: what packets take now,
    /// made without a mark of anybody's. None if there is no such route.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn left_route(&mut self, key: RouteKey) -> Result<Option<BTreeSet<u32>>, NetlinkError> {
        let found = self.look_up(key.to.addr())?.iter().find_map(as_left);
        Ok(found.filter(|(of, _)| *of == key).map(|(_, links)| links))
    }

    /// Of the routes that are to be taken over, those in whose place nothing else stands at this moment. The whole table is read
    /// for it, since the kernel does not say which of several equal routes it would replace.
    fn takeable(&mut self, batch: &[Step]) -> Result<BTreeSet<RouteKey>, NetlinkError> {
        let taken =
            |step: &Step| if let Step::TakeRoute(key, _, links) = step { Some((*key, links.clone())) } else { None };
        let mut takeable: BTreeMap<RouteKey, BTreeSet<u32>> = batch.iter().filter_map(taken).collect();
        if takeable.is_empty() {
            return Ok(BTreeSet::new());
        }
        let table = RouteHeader { table: short(MAIN), ..RouteHeader::default() };
        for object in self.route_objects(table)? {
            let Some(key) = key_of(&object) else { continue };
            let own = |links: &BTreeSet<u32>| as_left(&object).is_some_and(|(_, found)| found.is_subset(links));
            if takeable.get(&key).is_some_and(|links| !own(links)) {
                takeable.remove(&key);
            }
        }
        Ok(takeable.into_keys().collect())
    }

    /// Of the routes that are to be replaced, those that stand and bear the mark at this moment.
    fn replaceable(&mut self, batch: &[Step]) -> Result<BTreeSet<RouteKey>, NetlinkError> {
        let replaced = |step: &Step| if let Step::ReplaceRoute(key, _) = step { Some(*key) } else { None };
        let tables: BTreeSet<u32> = batch.iter().filter_map(replaced).map(|key| key.table).collect();
        let mut stand = BTreeSet::new();
        for table in tables {
            stand.extend(self.marked(table)?.into_iter().map(|route| route.key));
        }
        Ok(stand)
    }

    /// The request of a step; or its result, when there is nothing to ask. What is to be replaced or removed was flock's when it
    /// was read. It is looked at once more where the kernel itself does not look, so that nobody's is touched.
    fn request(&mut self, step: &Step, stand: &BTreeSet<RouteKey>) -> Result<Encoded, Result<(), NetlinkError>> {
        let what = step.to_string();
        Ok(match step {
            Step::PutNexthop(id, nexthop) => {
                let replace = self.is_flocks(*id, &what).map_err(Err)?;
                put_nexthop(*id, *nexthop, replace, what)
            }
            Step::PutGroup(id, group) => {
                let replace = self.is_flocks(*id, &what).map_err(Err)?;
                put_group(*id, group, replace, what)
            }
            Step::AddRoute(key, way) => put_route(*key, *way, false, what),
            Step::ReplaceRoute(key, way) | Step::TakeRoute(key, way, _) => {
                put_route(*key, *way, stand.contains(key), what)
            }
            Step::DeleteRoute(key, way) => delete_route(*key, *way, what),
            Step::DeleteGroup(id) | Step::DeleteNexthop(id) => match self.nexthop_owner(*id).map_err(Err)? {
                Owner::Flock => delete_nexthop(*id, what),
                Owner::Nobody | Owner::Other(_) => return Err(Ok(())),
            },
        })
    }

    /// Whether flock has something under this number already, which is an error when somebody else has.
    fn is_flocks(&mut self, id: u32, what: &str) -> Result<bool, NetlinkError> {
        match self.nexthop_owner(id)? {
            Owner::Nobody => Ok(false),
            Owner::Flock => Ok(true),
            Owner::Other(protocol) => Err(taken(what.into(), protocol)),
        }
    }

    /// What a refusal means.
    fn judge(&mut self, step: &Step, error: NetlinkError) -> Result<(), NetlinkError> {
        match step {
            Step::DeleteRoute(..) | Step::DeleteGroup(_) | Step::DeleteNexthop(_) if error.is_gone() => Ok(()),
            // "Nexthop id does not exist": with the object its routes have gone.
            Step::DeleteRoute(key, _) if error.is_refused_value() => {
                if self.marked(key.table)?.iter().any(|route| route.key == *key) { Err(error) } else { Ok(()) }
            }
            Step::AddRoute(key, way) | Step::TakeRoute(key, way, _) | Step::ReplaceRoute(key, way)
                if error.is_exists() =>
            {
                match self.in_the_way(*key)? {
                    Some(found) if found.protocol == ROUTE_PROTOCOL && found.way == Some(*way) => Ok(()),
                    Some(InTheWay { protocol, hops, .. }) => {
                        Err(NetlinkError { what: error.what, cause: Cause::Occupied { protocol, hops } })
                    }
                    None => Err(error),
                }
            }
            _ => Err(error),
        }
    }

    /// The route of this key, whosever it is. Of the main table only one that packets take is looked for, since the table may be
    /// long.
    fn in_the_way(&mut self, key: RouteKey) -> Result<Option<InTheWay>, NetlinkError> {
        let header = |protocol| RouteHeader { table: short(key.table), protocol, ..RouteHeader::default() };
        let ours = self.route_objects(header(RouteProtocol::from(ROUTE_PROTOCOL)))?;
        let all = if key.table == MAIN {
            self.look_up(key.to.addr())?
        } else {
            self.route_objects(header(RouteProtocol::default()))?
        };
        let found = ours.iter().chain(&all).filter(|object| key_of(object) == Some(key)).find_map(as_in_the_way);
        Ok(found)
    }
}

/// What the steps of this call that were refused keep others from.
#[derive(Default)]
struct Refused {
    destinations: BTreeSet<IpNet>,
    objects_stay: bool,
}

impl Refused {
    fn note(&mut self, step: &Step) {
        self.destinations.extend(destination(step));
        // One that could not be made leads nowhere, so it keeps nothing.
        self.objects_stay |= !matches!(step, Step::AddRoute(..) | Step::TakeRoute(..));
    }

    fn hold(&self, step: &Step) -> bool {
        match step {
            Step::DeleteGroup(_) | Step::DeleteNexthop(_) => self.objects_stay,
            other => destination(other).is_some_and(|to| self.destinations.contains(&to)),
        }
    }
}

fn destination(step: &Step) -> Option<IpNet> {
    match step {
        Step::AddRoute(key, _) | Step::TakeRoute(key, ..) | Step::ReplaceRoute(key, _) | Step::DeleteRoute(key, _) => {
            Some(key.to)
        }
        Step::PutNexthop(..) | Step::PutGroup(..) | Step::DeleteGroup(_) | Step::DeleteNexthop(_) => None,
    }
}

/// How many of the first steps rest on none among them whose refusal would have to be known before.
fn independent(steps: &[Step]) -> usize {
    let removes = |step: &Step| matches!(step, Step::DeleteGroup(_) | Step::DeleteNexthop(_));
    let mut destinations = BTreeSet::new();
    let mut before = None;
    let stops = |step: &Step| {
        let again = destination(step).is_some_and(|to| !destinations.insert(to));
        let turns = before.replace(removes(step)).is_some_and(|before| before != removes(step));
        again || turns
    };
    steps.iter().take(BATCH).position(stops).unwrap_or(steps.len().min(BATCH))
}

fn short(table: u32) -> u8 {
    // Both tables have small numbers; 0 is every table, from which the one is then picked.
    u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
}

/// A route to `key`, without its way.
fn keyed(key: RouteKey) -> RouteMessage {
    let mut message = route(key.to);
    message.header.table = short(key.table);
    message.attributes.push(RouteAttribute::Priority(key.metric));
    message
}

fn lead(message: &mut RouteMessage, to: IpAddr, way: Way) {
    match way {
        Way::Unreachable => message.header.kind = RouteType::Unreachable,
        Way::Link(link) => message.attributes.push(RouteAttribute::Oif(link)),
        Way::Gateway { via, link } => {
            message.attributes.push(RouteAttribute::Oif(link));
            message.attributes.push(match (to, via) {
                (IpAddr::V4(_), IpAddr::V6(via)) => RouteAttribute::Via(RouteVia::Inet6(via)),
                (IpAddr::V6(_), IpAddr::V4(via)) => RouteAttribute::Via(RouteVia::Inet(via)),
                _ => RouteAttribute::Gateway(via.into()),
            });
        }
        Way::Nexthop(id) => message.attributes.push(RouteAttribute::NhId(id)),
    }
}

fn put_route(key: RouteKey, way: Way, replace: bool, what: String) -> Encoded {
    let mut message = keyed(key);
    lead(&mut message, key.to.addr(), way);
    match way {
        Way::Link(_) if key.to.addr().is_ipv4() => message.header.scope = RouteScope::Link,
        Way::Gateway { .. } => message.header.flags |= RouteFlags::Onlink,
        _ => {}
    }
    Request { message: RouteNetlinkMessage::NewRoute(message), flags: put_flags(replace), what }.into()
}

/// Names the protocol, so that the kernel removes nobody else's, and the way, since IPv4 takes metric 0 for any.
fn delete_route(key: RouteKey, way: Way, what: String) -> Encoded {
    let mut message = keyed(key);
    lead(&mut message, key.to.addr(), way);
    message.header.scope = RouteScope::NoWhere;
    Request { message: RouteNetlinkMessage::DelRoute(message), flags: 0, what }.into()
}

/// None for a route of a shape that flock never makes. One with several next hops is left to whoever made it: they may be of
/// several people.
pub(super) fn as_shown(object: &Object) -> Option<Shown> {
    let &[family, _, _, _, _, protocol, _, kind, ..] = object.of::<ROUTE_SIZE>(RTM_NEWROUTE)?;
    let key = key_of(object)?;
    let (mut link, mut via, mut by_number, mut several) = (None, None, None, false);
    for (attribute, value) in object.attributes(ROUTE_SIZE) {
        match attribute {
            RTA_OIF => link = number(value),
            RTA_GATEWAY => via = address(family, value),
            RTA_VIA => via = other_family(value),
            RTA_NH_ID => by_number = number(value),
            RTA_MULTIPATH => several = true,
            _ => {}
        }
    }
    let way = match (kind, by_number, via, link) {
        (RTN_UNREACHABLE | RTN_BLACKHOLE | RTN_PROHIBIT, ..) => Way::Unreachable,
        (RTN_UNICAST, Some(id), ..) => Way::Nexthop(id),
        (RTN_UNICAST, None, Some(via), Some(link)) if !several => Way::Gateway { via, link },
        (RTN_UNICAST, None, None, Some(link)) if !several => Way::Link(link),
        _ => return None,
    };
    Some(Shown { key, way, protocol })
}

/// What tells a route from another one, whosever it is and wherever it leads.
fn key_of(object: &Object) -> Option<RouteKey> {
    let &[family, prefix_len, _, _, table, _, _, _, a, b, c, d] = object.of::<ROUTE_SIZE>(RTM_NEWROUTE)?;
    let mut to: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut table, mut metric) = (u32::from(table), 0);
    for (attribute, value) in object.attributes(ROUTE_SIZE) {
        match attribute {
            RTA_DST => to = address(family, value)?,
            RTA_TABLE => table = number(value).unwrap_or(table),
            RTA_PRIORITY => metric = number(value).unwrap_or_default(),
            _ => {}
        }
    }
    let cloned = u32::from_ne_bytes([a, b, c, d]) & RTM_F_CLONED != 0;
    (!cloned).then_some(RouteKey { table, to: IpNet::new(to, prefix_len).ok()?, metric })
}

fn as_in_the_way(object: &Object) -> Option<InTheWay> {
    let &[family, _, _, _, _, protocol, _, kind, ..] = object.of::<ROUTE_SIZE>(RTM_NEWROUTE)?;
    // An unreachable IPv6 route is shown with the loopback link.
    let hops = if kind == RTN_UNICAST { hops_of(family, object) } else { Vec::new() };
    Some(InTheWay { protocol, way: as_shown(object).map(|shown| shown.way), hops })
}

/// A route that may be the Go flock's, with the links of all of its next hops: of `ip`'s own protocol, to one address, and to
/// gateways.
fn as_left(object: &Object) -> Option<(RouteKey, BTreeSet<u32>)> {
    let &[_, _, _, _, _, protocol, _, kind, ..] = object.of::<ROUTE_SIZE>(RTM_NEWROUTE)?;
    let key = key_of(object)?;
    let single = key.to.prefix_len() == key.to.max_prefix_len();
    if protocol != RTPROT_BOOT || kind != RTN_UNICAST || !single {
        return None;
    }
    let route = as_foreign_route(object, &NexthopObjects::default())?;
    let links: Option<BTreeSet<u32>> = route.hops.into_iter().map(|(link, via)| via.and(link)).collect();
    Some((key, links.filter(|links| !links.is_empty())?))
}
