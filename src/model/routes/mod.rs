//! The routes that a node keeps beside those of its pods' links: what it announces, how it reaches other nodes, and where anycast
//! addresses lead.
//!
//! What is wanted and what the kernel shows are values of one type, [`Routes`], and [`steps`] is the way from one to the other.
//! Table 102 is never used for forwarding: it *is* the list of what this node announces, for any routing daemon to take up. Must
//! not decide about the routes of pods' links, which are `plan`'s, nor about the host's own unreachable routes (`desired`).

pub mod announce;
pub mod anycast;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

/// The kernel's main table.
pub const MAIN: u32 = 254;

/// The table of what this node announces.
pub const ANNOUNCED: u32 = 102;

/// Largest metric of an announcement; there is one metric per pod and prefix, from 1.
pub const METRIC_MAX: u32 = 999;

/// What is added to an announcement's metric while the node drains: a daemon's filter makes other nodes preferred by it.
pub const DRAINING: u32 = 4000;

/// What the kernel tells one route from another by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// [`MAIN`] or [`ANNOUNCED`].
    pub table: u32,
    /// The destination, without host bits.
    pub to: IpNet,
    /// The metric; 0 for IPv4 routes without one, and 1024 for such IPv6 routes, as the kernel shows them.
    pub metric: u32,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Nowhere.
    Unreachable,
    /// Out of the link of this index.
    Link(u32),
    /// To a gateway that is taken to be on the link. It may be of the other family.
    Gateway {
        /// The gateway.
        via: IpAddr,
        /// Index of the link.
        link: u32,
    },
    /// Where the nexthop object, or the group, of this number leads.
    Nexthop(u32),
}

/// A nexthop object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nexthop {
    /// The gateway, taken to be on the link.
    pub via: IpAddr,
    /// Index of the link.
    pub link: u32,
}

/// A group of nexthop objects, among which the kernel chooses by flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// Number and weight (1 to 255) of each member, by number.
    pub members: Vec<(u32, u8)>,
    /// Whether flows stay where they are when members come and go.
    pub resilient: bool,
}

/// Routes, with the nexthop objects and groups that they use, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Routes {
    /// Where each route leads.
    pub routes: BTreeMap<RouteKey, Way>,
    /// The nexthop objects.
    pub nexthops: BTreeMap<u32, Nexthop>,
    /// The groups. No number is a nexthop's, too.
    pub groups: BTreeMap<u32, Group>,
    /// Of routes that are wanted: those in whose place one without flock's mark stands that is to be taken over, with the links
    /// that it leads to.
    pub left: BTreeMap<RouteKey, BTreeSet<u32>>,
}

/// How far a node has withdrawn itself from the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// It announces what it has.
    #[default]
    Announcing,
    /// It announces that others should be preferred.
    Draining,
    /// It announces nothing.
    Withdrawn,
}

impl Routes {
    /// Takes up everything of `other`. Where both have something under one key, `other` counts.
    pub fn extend(&mut self, mut other: Routes) {
        // Both are in order, so the outcome is made in one go: denser, and not one by one.
        self.routes.append(&mut other.routes);
        self.nexthops.extend(other.nexthops);
        self.groups.extend(other.groups);
        self.left.extend(other.left);
    }

    /// The links out of which a route leads, as far as its next hops are among these.
    pub fn links(&self, way: Way) -> impl Iterator<Item = u32> + '_ {
        let group = |number| self.groups.get(&number).map(|group| group.members.iter().map(|(member, _)| *member));
        let (link, number) = match way {
            Way::Unreachable => (None, None),
            Way::Link(link) | Way::Gateway { link, .. } => (Some(link), None),
            Way::Nexthop(number) => (None, Some(number)),
        };
        let members = number.and_then(group).into_iter().flatten().chain(number);
        link.into_iter().chain(members.filter_map(|member| self.nexthops.get(&member)).map(|hop| hop.link))
    }

    /// The same with the announcements of a node at `stage`.
    #[must_use]
    pub fn at(self, stage: Stage) -> Routes {
        if stage == Stage::Announcing {
            return self;
        }
        let at_stage = |(key, way): (RouteKey, Way)| match (key.table, stage) {
            (ANNOUNCED, Stage::Withdrawn) => None,
            (ANNOUNCED, Stage::Draining) => Some((RouteKey { metric: draining(key.metric), ..key }, way)),
            _ => Some((key, way)),
        };
        Routes { routes: self.routes.into_iter().filter_map(at_stage).collect(), ..self }
    }
}

/// The metric of an announcement while the node drains. One that says so already stays.
fn draining(metric: u32) -> u32 {
    if metric > DRAINING { metric } else { metric + DRAINING }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make this nexthop object, or give it this content.
    PutNexthop(u32, Nexthop),
    /// Make this group, or give it this content.
    PutGroup(u32, Group),
    /// Make this route.
    AddRoute(RouteKey, Way),
    /// Make this route in the place of one without flock's mark that leads to these links only.
    TakeRoute(RouteKey, Way, BTreeSet<u32>),
    /// Lead this route, which is there, elsewhere.
    ReplaceRoute(RouteKey, Way),
    /// Remove this route.
    DeleteRoute(RouteKey, Way),
    /// Remove this group.
    DeleteGroup(u32),
    /// Remove this nexthop object.
    DeleteNexthop(u32),
}

/// The way from what is `shown` to what is `wanted`, in an order in which nothing is announced that cannot be reached: what leads
/// packets is made before it is announced, and removed after it is withdrawn. Of announcements of one prefix, new ones come first.
/// Empty where nothing differs.
pub fn steps(wanted: &Routes, shown: &Routes) -> Vec<Step> {
    let mut steps = Vec::new();
    let differs = |found: Option<&Nexthop>, nexthop: &Nexthop| found != Some(nexthop);
    let nexthops = wanted.nexthops.iter().filter(|(id, nexthop)| differs(shown.nexthops.get(id), nexthop));
    steps.extend(nexthops.map(|(id, nexthop)| Step::PutNexthop(*id, *nexthop)));
    let groups = wanted.groups.iter().filter(|(id, group)| shown.groups.get(id) != Some(group));
    steps.extend(groups.map(|(id, group)| Step::PutGroup(*id, group.clone())));
    for announced in [false, true] {
        let of_table = wanted.routes.iter().filter(|(key, _)| (key.table == ANNOUNCED) == announced);
        steps.extend(of_table.filter_map(|(key, way)| match shown.routes.get(key) {
            None => Some(match wanted.left.get(key) {
                Some(links) => Step::TakeRoute(*key, *way, links.clone()),
                None => Step::AddRoute(*key, *way),
            }),
            Some(found) if found != way => Some(Step::ReplaceRoute(*key, *way)),
            Some(_) => None,
        }));
    }
    for announced in [true, false] {
        let gone = shown.routes.iter().filter(|(key, _)| (key.table == ANNOUNCED) == announced);
        let gone = gone.filter(|(key, _)| !wanted.routes.contains_key(key));
        steps.extend(gone.map(|(key, way)| Step::DeleteRoute(*key, *way)));
    }
    steps.extend(shown.groups.keys().filter(|id| !wanted.groups.contains_key(id)).map(|id| Step::DeleteGroup(*id)));
    let gone = shown.nexthops.keys().filter(|id| !wanted.nexthops.contains_key(id));
    steps.extend(gone.map(|id| Step::DeleteNexthop(*id)));
    steps
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        if self.table == ANNOUNCED { write!(f, " in table {ANNOUNCED} metric {}", self.metric) } else { Ok(()) }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Unreachable => f.write_str("unreachable"),
            Way::Link(link) => write!(f, "by link {link}"),
            Way::Gateway { via, link } => write!(f, "via {via} on link {link}"),
            Way::Nexthop(id) => write!(f, "by nexthop {id}"),
        }
    }
}

impl Step {
    /// What is changed, without what becomes of it.
    pub fn object(&self) -> String {
        match self {
            Step::PutNexthop(id, _) | Step::DeleteNexthop(id) => format!("nexthop {id}"),
            Step::PutGroup(id, _) | Step::DeleteGroup(id) => format!("nexthop group {id}"),
            Step::AddRoute(key, _)
            | Step::TakeRoute(key, ..)
            | Step::ReplaceRoute(key, _)
            | Step::DeleteRoute(key, _) => format!("route {key}"),
        }
    }
}

/// The change in the words of `ip`, for logs and errors.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::PutNexthop(id, Nexthop { via, link }) => write!(f, "nexthop {id} via {via} on link {link}"),
            Step::PutGroup(id, group) => {
                write!(f, "nexthop group {id} of")?;
                group.members.iter().try_for_each(|(member, weight)| write!(f, " {member}x{weight}"))
            }
            Step::AddRoute(key, way) => write!(f, "route {key} {way}"),
            Step::TakeRoute(key, way, _) => write!(f, "route {key} {way}, which has been left by another flock"),
            Step::ReplaceRoute(key, way) => write!(f, "route {key} now {way}"),
            Step::DeleteRoute(key, _) => write!(f, "no route {key}"),
            Step::DeleteGroup(id) => write!(f, "no nexthop group {id}"),
            Step::DeleteNexthop(id) => write!(f, "no nexthop {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn key(table: u32, to: &str, metric: u32) -> RouteKey {
        RouteKey { table, to: to.parse().expect("a prefix"), metric }
    }

    fn routes(of: &[(RouteKey, Way)]) -> Routes {
        Routes { routes: of.iter().copied().collect(), ..Routes::default() }
    }

    /// An anycast address that leads to one pod, and is announced.
    fn anycast() -> Routes {
        let nexthop = Nexthop { via: "2001:db8::5".parse().expect("literal"), link: 7 };
        let mut all = routes(&[
            (key(MAIN, "192.0.2.1/32", 0), Way::Nexthop(9)),
            (key(ANNOUNCED, "192.0.2.1/32", 1), Way::Link(7)),
        ]);
        all.nexthops.insert(8, nexthop);
        all.groups.insert(9, Group { members: vec![(8, 1)], resilient: true });
        all
    }

    #[test]
    fn nothing_is_announced_before_it_can_be_reached_and_withdrawn_before_it_cannot() {
        let said = |steps: Vec<Step>| steps.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            said(steps(&anycast(), &Routes::default())),
            [
                "nexthop 8 via 2001:db8::5 on link 7",
                "nexthop group 9 of 8x1",
                "route 192.0.2.1/32 by nexthop 9",
                "route 192.0.2.1/32 in table 102 metric 1 by link 7",
            ]
        );
        assert_eq!(
            said(steps(&Routes::default(), &anycast())),
            [
                "no route 192.0.2.1/32 in table 102 metric 1",
                "no route 192.0.2.1/32",
                "no nexthop group 9",
                "no nexthop 8",
            ]
        );
        assert_eq!(steps(&anycast(), &anycast()), []);
    }

    #[test]
    fn a_node_that_drains_says_so_before_it_says_nothing() {
        let draining = anycast().at(Stage::Draining);
        let announced = key(ANNOUNCED, "192.0.2.1/32", 4001);
        assert_eq!(
            steps(&draining, &anycast()),
            [
                Step::AddRoute(announced, Way::Link(7)),
                Step::DeleteRoute(key(ANNOUNCED, "192.0.2.1/32", 1), Way::Link(7))
            ]
        );
        assert_eq!(draining.clone().at(Stage::Draining), draining);
        let withdrawn = anycast().at(Stage::Withdrawn);
        assert_eq!(steps(&withdrawn, &draining), [Step::DeleteRoute(announced, Way::Link(7))]);
        assert_eq!(anycast().at(Stage::Announcing), anycast());
    }

    #[test]
    fn what_leads_elsewhere_is_put_right_in_place() {
        let way = |link| Way::Gateway { via: "192.0.2.9".parse().expect("literal"), link };
        let (wanted, shown) = (key(MAIN, "10.2.0.0/24", 0), key(MAIN, "10.3.0.0/24", 0));
        assert_eq!(
            steps(&routes(&[(wanted, way(2))]), &routes(&[(wanted, way(3)), (shown, way(2))])),
            [Step::ReplaceRoute(wanted, way(2)), Step::DeleteRoute(shown, way(2))]
        );
    }
}
