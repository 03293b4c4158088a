//! The record against the kernel: links, addresses, routes, neighbours and settings of pods, and what the node announces.
//!
//! The comparison is the agent's own (`model::recover`, `model::observed`, `model::routes`); this file says it in an operator's
//! words. Must not compare anything by a rule of its own.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;

use crate::operator::check::finding::{Area, Finding, Level};
use crate::operator::check::scene::Scene;
use crate::operator::record::Recorded;
use model::addr::Attachment;
use model::lease::Lease;
use model::observed::{Observed, host_end_of};
use model::plan::{self, Change, Setting};
use model::recover::{Repair, repairs};
use model::routes::{self, Step, announce, steps};

/// An ADD that has not ended so long after it began does not end, 60 s.
const UNFINISHED_MS: u64 = 60_000;

/// Pauses before further looks, in milliseconds: nothing counts that has not stood for 2 s, in which requests come to their end.
const SETTLING_MS: [u64; 5] = [50, 150, 300, 500, 1000];

/// What is known of who keeps the record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// An agent answers, so ADDs and DELs may be at work.
    pub answers: bool,
    /// It keeps another record than this one.
    pub elsewhere: bool,
    /// It says that an address has pods on two nodes, and does not say of each which of them counts.
    pub contested: bool,
}

/// What sets record and kernel apart. `again` looks once more, if there is anything.
pub fn look(scene: &Scene, known: Known, mut again: impl FnMut() -> Option<Scene>) -> Vec<Finding> {
    let unknown = match &scene.recorded.unknown {
        None if known.elsewhere => Some("the agent that answers keeps it elsewhere (--state-dir)".to_owned()),
        unknown => unknown.clone(),
    };
    if let Some(why) = unknown {
        return vec![Finding::warn(Area::Links, format!("record and kernel were not compared: {why}"))];
    }
    let mut found = compare(scene, known);
    // Without an agent, nobody changes a link or a route but in the moment in which it ends.
    let pauses = if known.answers { &SETTLING_MS[..] } else { &SETTLING_MS[..1] };
    for pause in pauses {
        if found.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(*pause));
        let Some(later) = again() else {
            // What was seen once may have been on its way.
            found.iter_mut().for_each(|finding| finding.level = Level::Warn);
            break;
        };
        let later = compare(&later, known);
        found.retain(|finding| later.contains(finding));
    }
    let ours = scene
        .pairs
        .iter()
        .filter(|link| link.alias.as_deref().is_some_and(|text| plan::attachment_of_alias(text).is_some()));
    let has = |area| found.iter().any(|finding| finding.area == area);
    let leases = scene.recorded.leases.len();
    let fine = [
        (Area::Links, format!("{leases} leases, {} links", ours.count())),
        (Area::Routes, "each address of a pod has its route".to_owned()),
        (Area::Neighbours, "each address of a pod has its permanent neighbour".to_owned()),
    ];
    let fine: Vec<Finding> =
        fine.into_iter().filter(|(area, _)| !has(*area)).map(|(area, what)| Finding::ok(area, what)).collect();
    found.extend(fine);
    found
}

fn compare(scene: &Scene, known: Known) -> Vec<Finding> {
    let mut found = pairs(&scene.recorded, &scene.pairs);
    found.extend(announcements(scene, known));
    found.extend(shared(scene));
    found
}

fn pairs(recorded: &Recorded, pairs: &[Observed]) -> Vec<Finding> {
    let mut found: Vec<Finding> = recorded.remarks.iter().map(|remark| Finding::warn(Area::Links, remark)).collect();
    // Whatever began before now is compared, and what is noted for deletion is about to go.
    let living = recorded.leases.iter().filter(|lease| !recorded.is_delete_noted(lease));
    let noted = |attachment: &Attachment| recorded.notes.iter().any(|note| note.attachment == *attachment);
    for repair in repairs(living, pairs, |_| false, recorded.now, recorded.now) {
        let lease = |attachment: &Attachment| recorded.leases.iter().find(|lease| lease.attachment == *attachment);
        let young = |attachment: &Attachment| {
            lease(attachment).is_some_and(|lease| recorded.now.saturating_sub(lease.since) < UNFINISHED_MS)
        };
        match &repair {
            Repair::Undo(attachment) | Repair::Commit(attachment) if young(attachment) => {}
            Repair::Adopt(lease) if noted(&lease.attachment) => {}
            Repair::Remove(attachment) if noted(attachment) => {}
            Repair::Undo(attachment) => {
                let what = format!("an ADD of {} has not come to its end", whose(lease(attachment), attachment));
                found.push(Finding::warn(Area::Links, what).repairable());
            }
            Repair::Commit(attachment) => {
                let what = format!("the end of the ADD of {} is not recorded", whose(lease(attachment), attachment));
                found.push(Finding::warn(Area::Links, what).repairable());
            }
            Repair::Release(attachment) => {
                let of = lease(attachment);
                let name = of.map_or_else(String::new, |lease| format!(" {}", lease.host_link));
                let what = format!("the link{name} of {} is gone, and its addresses are held", whose(of, attachment));
                found.push(Finding::fail(Area::Links, what).repairable());
            }
            Repair::Forget(attachment) => {
                let what = format!("what is recorded of {} is of an earlier pod", whose(lease(attachment), attachment));
                found.push(Finding::warn(Area::Links, what).repairable());
            }
            Repair::Amend(shown) => {
                let what = format!(
                    "the link of {} shows addresses that are not recorded, so another pod may get them",
                    whose(Some(shown), &shown.attachment)
                );
                found.push(Finding::fail(Area::Links, what).repairable());
            }
            Repair::Adopt(shown) => {
                let what = format!(
                    "link {} of {} stands, and nothing is recorded of it, so another pod may get its addresses",
                    shown.host_link,
                    whose(Some(shown), &shown.attachment)
                );
                found.push(Finding::fail(Area::Links, what).repairable());
            }
            Repair::Remove(attachment) => {
                let what = format!("a link of {} stands without record and without addresses", whose(None, attachment));
                found.push(Finding::warn(Area::Links, what).repairable());
            }
            Repair::Conflict { attachment, ip, holder } => {
                let what = format!(
                    "{ip} has two pods: it is recorded for {}, and the link of {} leads there, too",
                    whose(lease(holder), holder),
                    whose(lease(attachment), attachment)
                );
                found.push(Finding::fail(Area::Links, what).cured_by("delete one of the two pods"));
            }
            Repair::Rewire(attachment) => {
                let of = lease(attachment);
                if let Some((lease, link)) = of.and_then(|lease| Some((lease, host_end_of(lease, pairs)?))) {
                    found.extend(
                        link.lacks(&plan::kept_host_end(lease)).into_iter().map(|change| lacking(lease, link, change)),
                    );
                }
            }
        }
    }
    found
}

/// A pod in the words of who looks for it.
fn whose(lease: Option<&Lease>, attachment: &Attachment) -> String {
    match lease.and_then(|lease| lease.pod.as_ref()) {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => format!("container {}, {}", attachment.container_id, attachment.ifname),
    }
}

/// What a host end lacks.
fn lacking(lease: &Lease, link: &Observed, change: &Change) -> Finding {
    let whose = whose(Some(lease), &lease.attachment);
    let name = &link.name;
    let (area, what) = match change {
        Change::Name(wanted) => (Area::Links, format!("link {wanted} of {whose} is called {name}")),
        Change::Mac(wanted) => (
            Area::Links,
            format!("link {name} of {whose} has another hardware address than {wanted}, to which the pod sends"),
        ),
        Change::Alias(wanted) => (Area::Links, format!("link {name} of {whose} has lost its alias {wanted}")),
        Change::NoAutoAddress => (Area::Links, format!("link {name} of {whose} makes addresses by itself")),
        Change::Up => (Area::Links, format!("link {name} of {whose} is down")),
        Change::Address { ip, .. } => {
            (Area::Links, format!("link {name} of {whose} has lost {ip}, which answers for the pod's gateway"))
        }
        Change::Setting(Setting { family, key, value, .. }) => {
            (Area::Sysctls, format!("link {name} of {whose}: {family} {key} is not {value}"))
        }
        Change::Neighbour { ip, .. } => (
            Area::Neighbours,
            format!("{ip} of {whose}: its permanent neighbour is missing on {name}, or leads elsewhere"),
        ),
        Change::Route { to, .. } => (Area::Routes, format!("{} of {whose}: its route is missing on {name}", to.addr())),
    };
    Finding::fail(area, what).repairable()
}

/// What the node is to announce, and does not.
fn announcements(scene: &Scene, known: Known) -> Vec<Finding> {
    // A node announces nothing before it serves.
    if scene.shows.unreachable.is_empty() {
        return Vec::new();
    }
    let wanted = announce::own(&scene.prefixes, &scene.recorded.leases, |_| false).at(scene.stage);
    let missing = steps(&wanted, &scene.routes).into_iter().filter_map(|step| match step {
        Step::AddRoute(key, way) | Step::ReplaceRoute(key, way) => Some((key, way)),
        _ => None,
    });
    let said = |(key, way): (routes::RouteKey, routes::Way)| {
        let what = format!("{} is not announced: table {} lacks it ({way})", key.to, routes::ANNOUNCED);
        // Of an address that another node's pod has, too, this is as it should be.
        match known.contested && matches!(way, routes::Way::Link(_)) {
            true => Finding::warn(Area::Routes, what).cured_by("see which pods have it: flock-agent status"),
            false => Finding::fail(Area::Routes, what).repairable(),
        }
    };
    missing.map(said).collect()
}

/// Addresses that pods share, and to which no route leads. A pod that does not serve yet has none.
fn shared(scene: &Scene) -> Vec<Finding> {
    let announced = scene.routes.routes.keys().filter(|key| key.table == routes::ANNOUNCED).map(|key| key.to);
    let led: BTreeSet<IpNet> =
        scene.routes.routes.keys().filter(|key| key.table == routes::MAIN).map(|key| key.to).collect();
    let leases = scene.recorded.leases.iter();
    let shared: BTreeSet<IpNet> = leases.flat_map(|lease| &lease.anycast).map(|ip| IpNet::from(*ip)).collect();
    let lost = announced.filter(|to| shared.contains(to) && !led.contains(to)).collect::<BTreeSet<_>>();
    let said = |to: IpNet| {
        let what = format!("{} is shared by pods and announced, and its route is missing", to.addr());
        Finding::fail(Area::Routes, what).repairable()
    };
    lost.into_iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::node::survey::Survey;
    use crate::record::examples::{lease, link_of};
    use model::desired::Shows;
    use model::routes::{Routes, Stage};

    const ANSWERS: Known = Known { answers: true, elsewhere: false, contested: false };

    /// A pod with an address outside of the range, and of which nothing is announced.
    fn scene() -> Scene {
        let pod = Lease { ipv6: None, ipv4: Some([203, 0, 113, 7].into()), host_index: Some(7), ..lease("a/eth0") };
        let range: IpNet = "10.25.214.0/24".parse().expect("literal");
        let mut pair = link_of(&pod);
        pair.index = 7;
        let routes = announce::own(&[range], [], |_| false);
        Scene {
            recorded: Recorded { leases: vec![pod], ..Recorded::default() },
            pairs: vec![pair],
            routes,
            stage: Stage::default(),
            prefixes: vec![range],
            survey: Survey::default(),
            shows: Shows { unreachable: vec![range], ..Shows::default() },
            uplinks: vec![],
            ends: vec![],
        }
    }

    fn wrong(found: Vec<Finding>) -> Vec<(Level, String, bool)> {
        let wrong = found.into_iter().filter(|finding| finding.level != Level::Ok);
        let repairable = |finding: &Finding| finding.remedy == Some(crate::operator::check::finding::Remedy::Repair);
        wrong.map(|finding| (finding.level, finding.what.clone(), repairable(&finding))).collect()
    }

    #[test]
    fn what_two_nodes_have_a_pod_for_is_not_repairable() {
        let announced = |contested| wrong(compare(&scene(), Known { contested, ..ANSWERS }));
        assert!(matches!(&announced(false)[..], [(Level::Fail, what, true)] if what.contains("203.0.113.7/32 is not")));
        assert!(matches!(&announced(true)[..], [(Level::Warn, what, false)] if what.contains("203.0.113.7/32 is not")));
    }

    #[test]
    fn an_address_that_is_announced_and_shared_needs_its_route() {
        let mut scene = scene();
        let shared: IpNet = "203.0.113.53/32".parse().expect("literal");
        scene.recorded.leases[0].anycast = vec![shared.addr()];
        scene.recorded.leases[0].ipv4 = Some([10, 25, 214, 7].into());
        scene.pairs = vec![link_of(&scene.recorded.leases[0])];
        let key = |table| routes::RouteKey { table, to: shared, metric: 1 };
        scene.routes.routes.insert(key(routes::ANNOUNCED), routes::Way::Nexthop(3));
        let found = wrong(super::shared(&scene));
        assert!(
            matches!(&found[..], [(Level::Fail, what, true)] if what.contains("203.0.113.53 is shared")),
            "{found:?}"
        );
        scene.routes.routes.insert(key(routes::MAIN), routes::Way::Nexthop(3));
        assert_eq!(super::shared(&scene), []);
    }

    #[test]
    fn nothing_counts_that_comes_to_its_end_or_cannot_be_seen_again() {
        let mut later =
            vec![Scene { recorded: Recorded { leases: vec![], ..scene().recorded }, pairs: vec![], ..scene() }];
        later.push(scene());
        assert_eq!(wrong(look(&scene(), ANSWERS, || later.pop())), [], "the pod is gone at the second further look");
        let found = wrong(look(&scene(), ANSWERS, || None));
        assert!(matches!(&found[..], [(Level::Warn, ..)]), "{found:?}");
        let mut looks = 0;
        let found = wrong(look(&scene(), Known::default(), || {
            looks += 1;
            Some(scene())
        }));
        assert!(matches!(&found[..], [(Level::Fail, ..)]) && looks == 1, "{found:?}");
        let well = Scene { routes: announce::own(&scene().prefixes, &scene().recorded.leases, |_| false), ..scene() };
        assert_eq!(wrong(look(&well, ANSWERS, || panic!("nothing was found"))), []);
    }

    #[test]
    fn pods_are_not_held_against_a_record_that_is_elsewhere() {
        let empty = |recorded| Scene { recorded, routes: Routes::default(), ..scene() };
        let missing = Recorded { unknown: Some("/x is missing".into()), ..Recorded::default() };
        let found = wrong(look(&empty(missing), Known::default(), || None));
        assert!(matches!(&found[..], [(Level::Warn, what, false)] if what.contains("not compared: /x is missing")));
        let found = wrong(look(&empty(Recorded::default()), Known { elsewhere: true, ..ANSWERS }, || None));
        assert!(matches!(&found[..], [(Level::Warn, what, false)] if what.contains("(--state-dir)")), "{found:?}");
    }
}
