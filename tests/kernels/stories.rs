//! The stories, each of a host as it is after its start.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::ip::{Ip, index};
use crate::machine::{Boot, has_ipv6, is_loaded, let_kernel_load, links, load};
use crate::node::{
    Agent, Attached, CIDR4, CIDR6, Pod, arm, assert_empty, assert_sound, call, collect_garbage, differences,
    flock_links, gateways, host_addresses, is_armed, leases, log, neighbours, routes, shown, wait_for, wait_sound,
};
use crate::ping::Pinger;
use crate::{policing, routed};

type Story = (&'static str, fn());

/// The first ones of a boot tell of a kernel that has no module for pairs of links yet, nor for the packet filter; those behind
/// them have both.
const WITH_IPV6: [Story; 18] = [
    ("an_agent_without_the_modules_says_what_to_do", without_modules),
    ("pods_get_both_families_and_their_first_packets_arrive", first_packets),
    ("check_agrees_and_a_delete_may_come_twice", check_and_delete),
    ("pods_go_on_while_the_agent_is_stopped_killed_and_started", restart),
    ("an_agent_that_is_killed_amid_adds_leaves_nothing_half_done", killed_amid_adds),
    ("garbage_of_vanished_pods_is_collected", garbage),
    ("a_round_puts_back_what_was_taken_from_links_and_host", rounds),
    ("a_lost_record_is_read_back_from_the_kernel", lost_record),
    ("deletes_without_an_agent_are_kept_and_carried_out", deletes_without_agent),
    ("an_alias_that_is_no_text_hides_no_link", odd_alias),
    ("an_interface_in_the_way_is_named_and_stays", in_the_way),
    ("a_pair_whose_ends_have_one_index_is_like_any_other", one_index),
    ("forty_pods_at_once_come_and_go", many_pods),
    ("announcements_routes_and_nexthop_objects_are_read_as_they_were_written", routed::written_and_read),
    SOURCES,
    POLICIES,
    MASQUERADE,
    NEIGHBOURS,
];

/// The first one tells of a kernel that has loaded no module yet, and does it by itself.
const WITHOUT_IPV6: [Story; 9] = [
    ("a_node_of_ipv4_alone_serves_without_ipv6_in_the_kernel_which_loads_its_modules_itself", first_packets),
    ("check_agrees_and_a_delete_may_come_twice", check_and_delete),
    ("pods_go_on_while_the_agent_is_stopped_killed_and_started", restart),
    ("a_range_of_a_family_that_the_kernel_lacks_is_named", missing_family),
    ("announcements_routes_and_nexthop_objects_are_read_as_they_were_written", routed::written_and_read),
    SOURCES,
    POLICIES,
    MASQUERADE,
    NEIGHBOURS,
];

const SOURCES: Story = ("a_pod_that_takes_others_addresses_reaches_nobody_with_them", policing::sources);
const POLICIES: Story = ("a_policy_holds_for_packets_both_ways_and_what_it_revokes_ends", policing::policies);
const MASQUERADE: Story = ("the_outside_sees_the_node_until_that_is_switched_off", policing::masquerade);
const NEIGHBOURS: Story = ("a_pod_that_floods_or_sweeps_keeps_nobody_from_new_neighbours", policing::neighbours);

/// The stories of a boot.
pub fn of(boot: &Boot) -> &'static [Story] {
    if boot.ipv6 { &WITH_IPV6 } else { &WITHOUT_IPV6 }
}

/// Pods with their results, all attached at once.
fn attach(pods: &[Pod]) -> Vec<Attached> {
    thread::scope(|scope| {
        let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(|| pod.add())).collect();
        calls.into_iter().map(|call| call.join().expect("attached")).collect()
    })
}

fn detach(pods: &[Pod]) {
    thread::scope(|scope| {
        for pod in pods {
            scope.spawn(|| pod.del());
        }
    });
}

/// Each reaches the host, the next one, and is reached by the host.
#[track_caller]
fn assert_all_reach(pods: &[Pod], attached: &[Attached]) {
    let mut host = Pinger::here();
    for (n, pod) in pods.iter().enumerate() {
        pod.pings(host_addresses());
        pod.pings(attached[(n + 1) % pods.len()].ips());
        for ip in attached[n].ips() {
            assert!(host.ping(ip), "the host cannot reach {ip}");
        }
    }
}

fn without_modules() {
    assert!(!is_loaded("veth") && !is_loaded("nf_tables"), "nobody has loaded them yet");
    // A node that checks nothing does without the packet filter.
    let agent = Agent::of(&json!({"sourceCheck": false}), &[]);
    let line = log().lines().find(|line| line.contains("kernel lacks")).map(str::to_owned).expect("a line");
    assert!(line.contains(" error ") && line.contains("veth") && line.contains("modprobe veth"), "{line}");
    let pods = Pod::many("early", 2);
    let said = pods[0].try_add().failed();
    assert!(said.contains("modprobe veth"), "{said}");
    assert_empty();
    // What it says is all that has to be done.
    load("veth");
    let attached = pods[0].add();
    pods[0].pings(host_addresses());
    assert_eq!(attached.ips().len(), 2);
    assert!(!log().contains("nf_tables"), "nobody misses it");
    agent.stop();
    let agent = Agent::start();
    let said = pods[1].try_add().failed();
    assert!(said.contains("modprobe nf_tables"), "{said}");
    pods[0].pings(host_addresses());
    let_kernel_load();
    load("nf_tables");
    let second = pods[1].add();
    pods[1].pings(attached.ips());
    pods[0].pings(second.ips());
    detach(&pods);
    assert_empty();
    agent.stop();
}

fn first_packets() {
    let_kernel_load();
    let agent = Agent::start();
    // The first look at what stands makes the kernel load it.
    wait_for("the packet filter", || is_loaded("nf_tables").then_some(()));
    assert_eq!(log().contains("kernel lacks"), !has_ipv6());
    call("STATUS", &[], &[]).succeeded();
    let families = if has_ipv6() { 2 } else { 1 };
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let first = a.add();
    a.pings(host_addresses());
    let second = b.add();
    a.pings(second.ips());
    b.pings(first.ips());
    b.pings(host_addresses());
    assert_eq!((first.ips().len(), second.ips().len()), (families, families));
    assert_sound("with two pods");
    // The very first packet of each that follows, to the pod before, which has not said anything to it yet.
    let mut before = second.ips();
    for n in 0..10 {
        let pod = Pod::new(&format!("p{n}"));
        let attached = pod.add();
        pod.pings(before);
        before = attached.ips();
    }
    assert_sound("with twelve pods");
    agent.stop();
}

fn check_and_delete() {
    let agent = Agent::start();
    let pods = Pod::many("p", 3);
    let attached = attach(&pods);
    for (pod, attached) in pods.iter().zip(&attached) {
        pod.check(attached);
        assert_eq!(pod.links().len(), 1, "{:?}", pod.links());
    }
    for _ in 0..2 {
        pods[0].del();
        wait_for("its link to go", || pods[0].links().is_empty().then_some(()));
        wait_sound("after a DEL");
    }
    pods[1].pings(attached[2].ips());
    // Another ADD of the same pod works, and may get any address but those of the others.
    let again = pods[0].add();
    pods[0].check(&again);
    pods[0].pings(attached[1].ips());
    for pod in &pods {
        pod.del();
        pod.del();
    }
    assert_empty();
    agent.stop();
}

fn restart() {
    let mut agent = Agent::start();
    let pods = Pod::many("p", 4);
    let attached = attach(&pods);
    let over = AtomicBool::new(false);
    let (agent, lost): (Agent, Vec<String>) = thread::scope(|scope| {
        let pingers: Vec<_> = (0..pods.len())
            .map(|n| {
                let (pods, attached, over) = (&pods, &attached, &over);
                scope.spawn(move || {
                    let mut pinger = pods[n].pinger();
                    let targets = [attached[(n + 1) % pods.len()].ips(), host_addresses()].concat();
                    let mut lost = Vec::new();
                    let mut rounds = 0;
                    while rounds < 3 || !over.load(Ordering::Relaxed) {
                        lost.extend(targets.iter().filter(|ip| !pinger.ping(**ip)).map(|ip| format!("{n} to {ip}")));
                        rounds += 1;
                        thread::park_timeout(std::time::Duration::from_millis(20));
                    }
                    lost
                })
            })
            .collect();
        for kill in [false, true, true] {
            if kill {
                agent.kill()
            } else {
                agent.stop()
            }
            agent = Agent::start();
            assert_sound("after a restart");
        }
        over.store(true, Ordering::Relaxed);
        (agent, pingers.into_iter().flat_map(|pinger| pinger.join().expect("no panic")).collect())
    });
    assert_eq!(lost, Vec::<String>::new(), "packets that were lost");
    let newcomer = Pod::new("newcomer");
    let more = newcomer.add();
    pods[0].pings(more.ips());
    for (pod, attached) in pods.iter().zip(&attached) {
        pod.check(attached);
    }
    detach(&pods);
    newcomer.del();
    assert_empty();
    agent.stop();
}

fn killed_amid_adds() {
    let points = [
        ("conn/netlink.request", 2),
        ("conn/netlink.receive", 1),
        ("conn/netlink.receive", 6),
        // Three ADDs at once may share one sync of their reservations, and one of their commits.
        ("ledger/disk.sync", 2),
        ("netns/netns.entered", 2),
    ];
    let witness = Pod::new("witness");
    let mut agent = Agent::start();
    let known = witness.add();
    for (round, (point, nth)) in points.into_iter().enumerate() {
        let pods = Pod::many(&format!("r{round}p"), 3);
        arm(&format!("{point} {nth} kill\n"));
        thread::scope(|scope| {
            let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(|| pod.try_add())).collect();
            wait_for(&format!("the agent's death at {point} {nth}"), || (!is_armed()).then_some(()));
            assert!(!agent.ends(), "killed");
            agent = Agent::start();
            calls.into_iter().for_each(|call| drop(call.join().expect("no panic")));
        });
        wait_sound(&format!("after a death at {point} {nth}"));
        // Runtimes repeat an ADD that failed after a DEL.
        for pod in &pods {
            pod.del();
        }
        let attached = attach(&pods);
        assert_all_reach(&pods, &attached);
        witness.pings(attached[0].ips());
        pods[0].pings(known.ips());
        detach(&pods);
        wait_for(&format!("one lease after a death at {point} {nth}"), || (leases().len() == 1).then_some(()));
    }
    witness.del();
    assert_empty();
    agent.stop();
}

fn garbage() {
    let agent = Agent::start();
    let pods = Pod::many("p", 4);
    let attached = attach(&pods);
    pods[0].vanish();
    pods[1].vanish();
    wait_for("the kernel to end the namespaces", || (flock_links().len() == 2).then_some(()));
    collect_garbage(&[&pods[2], &pods[3]]);
    assert_eq!(leases().len(), 2);
    assert_sound("after GC");
    pods[2].pings(attached[3].ips());
    pods[2].del();
    pods[3].del();
    assert_empty();
    agent.stop();
}

fn rounds() {
    let agent = Agent::start();
    let pods = Pod::many("p", 2);
    let attached = attach(&pods);
    let link = attached[0].host_link();
    let mut ip = Ip::new();
    let mut repaired = |what: &str, take: &mut dyn FnMut(&mut Ip), stands: &dyn Fn() -> bool| {
        assert!(stands(), "{what} stands before it is taken");
        let said = || log().matches("lacks what flock gave it").count() + log().matches("has it again").count();
        let before = said();
        take(&mut ip);
        agent.look_again();
        // The agent may be faster than a look of this story at what was taken: that it was, the agent says.
        wait_for(what, || (said() > before && stands() && differences().is_empty()).then_some(()));
        assert_all_reach(&pods, &attached);
    };
    for own in attached[0].ips() {
        repaired(&format!("the route to {own}"), &mut |ip| ip.delete_route(own), &|| {
            routes().contains(&(own, link.clone()))
        });
    }
    let own4 = attached[0].ips().into_iter().find(IpAddr::is_ipv4).expect("IPv4");
    repaired(&format!("the neighbour {own4}"), &mut |ip| ip.delete_neighbour(&link, own4), &|| {
        neighbours().contains(&(own4, link.clone()))
    });
    let gateway6: IpAddr = model::addr::GATEWAY6.into();
    repaired("the gateway of IPv6", &mut |ip| ip.delete_address(&link, gateway6), &|| {
        gateways().contains(&(gateway6, link.clone()))
    });
    repaired("a link that is up", &mut |ip| ip.down(&link), &|| shown(&link, "operstate") == "up");
    repaired("the alias", &mut |ip| ip.alias(&link, b"\xff"), &|| shown(&link, "ifalias") == "flock:p0/eth0");
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let file = format!("/proc/sys/net/{key}");
        let forwards = || std::fs::read_to_string(&file).expect("readable") == "1\n";
        repaired(key, &mut |_| std::fs::write(&file, "0").expect("written"), &forwards);
    }
    detach(&pods);
    assert_empty();
    agent.stop();
}

fn lost_record() {
    let agent = Agent::start();
    let pods = Pod::many("p", 3);
    let attached = attach(&pods);
    agent.kill();
    std::fs::remove_dir_all("/run/flock/state").expect("removed");
    let agent = Agent::start();
    assert_eq!(leases().len(), 3);
    assert_sound("after the record was lost");
    assert_all_reach(&pods, &attached);
    detach(&pods);
    assert_empty();
    agent.stop();
}

fn deletes_without_agent() {
    let agent = Agent::start();
    let pods = Pod::many("p", 3);
    let attached = attach(&pods);
    agent.kill();
    pods[0].vanish();
    call("DEL", &[("CNI_CONTAINERID", "p0".into()), ("CNI_IFNAME", "eth0".into())], &[]).succeeded();
    pods[1].del();
    pods[1].del();
    let agent = Agent::start();
    wait_for("the deletes to be carried out", || (leases().len() == 1 && flock_links().len() == 1).then_some(()));
    assert_sound("after the deletes");
    pods[2].pings(host_addresses());
    pods[2].check(&attached[2]);
    pods[2].del();
    assert_empty();
    agent.stop();
}

fn odd_alias() {
    let mut ip = Ip::new();
    ip.alias("up0", &[0xff; 255]);
    ip.add_dummy("odd");
    ip.alias("odd", b"flock:\xc3");
    let agent = Agent::start();
    let pods = Pod::many("p", 2);
    let attached = attach(&pods);
    for attached in &attached {
        ip.alias(&attached.host_link(), b"caf\xe9\xff");
    }
    // One with the alias as it is, the other after the agent has found it.
    pods[0].pings(attached[1].ips());
    pods[0].del();
    agent.kill();
    let agent = Agent::start();
    assert_sound("after a start");
    pods[1].check(&attached[1]);
    pods[1].pings(host_addresses());
    pods[1].del();
    assert_empty();
    assert!(links().contains("odd"), "nobody's business");
    assert!(!log().contains("cannot be read"));
    agent.stop();
}

fn in_the_way() {
    let agent = Agent::start();
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let attached = a.add();
    // The same interface of the same pod, for another container: eth0 is there.
    let env = [("CNI_CONTAINERID", "other".to_owned()), ("CNI_NETNS", a.path()), ("CNI_IFNAME", "eth0".into())];
    let said = call("ADD", &env, &[]).failed();
    assert!(said.contains("eth0"), "{said}");
    assert_sound("after a refused ADD");
    a.pings(host_addresses());
    a.check(&attached);
    let other = b.add();
    a.pings(other.ips());
    a.del();
    b.del();
    assert_empty();
    agent.stop();
}

/// Indexes are counted in each namespace, so both ends of a pair may have the same.
fn one_index() {
    let agent = Agent::start();
    let (pod, other) = (Pod::new("p"), Pod::new("other"));
    let second = other.add();
    let next = |ip: &mut Ip| {
        ip.add_dummy("counts");
        let index = index("counts");
        ip.delete("counts");
        index
    };
    let of_host = next(&mut Ip::new());
    pod.inside(|| {
        let mut ip = Ip::new();
        while next(&mut ip) < of_host {}
    });
    let attached = pod.add();
    let link = attached.host_link();
    assert_eq!(shown(&link, "ifindex"), shown(&link, "iflink"), "the ends have one index");
    pod.pings(host_addresses());
    other.pings(attached.ips());
    pod.pings(second.ips());
    pod.check(&attached);
    assert_sound("with ends of one index");
    pod.del();
    other.del();
    assert_empty();
    agent.stop();
}

fn many_pods() {
    let agent = Agent::start();
    let pods = Pod::many("p", 40);
    let attached: Vec<Attached> = pods.chunks(10).flat_map(attach).collect();
    assert_eq!(flock_links().len(), 40);
    assert_sound("with forty pods");
    for (n, pod) in pods.iter().enumerate().step_by(9) {
        pod.pings(attached[(n + 20) % 40].ips());
        pod.check(&attached[n]);
    }
    agent.kill();
    let agent = Agent::start();
    assert_sound("after a restart");
    // Half are deleted, half vanish with their namespaces before their deletes come.
    pods[..20].chunks(10).for_each(detach);
    wait_sound("with twenty pods");
    pods[20..].iter().for_each(Pod::vanish);
    for pod in &pods[20..] {
        call("DEL", &[("CNI_CONTAINERID", pod.name.clone()), ("CNI_IFNAME", "eth0".into())], &[]).succeeded();
    }
    assert_empty();
    agent.stop();
}

fn missing_family() {
    let agent = Agent::with(&[CIDR6, CIDR4]);
    let line = log().lines().find(|line| line.contains("kernel lacks")).map(str::to_owned).expect("a line");
    assert!(line.contains("IPv6") && line.contains("cidr6"), "{line}");
    let pod = Pod::new("p");
    let said = pod.try_add().failed();
    assert!(said.contains("IPv6") && said.contains("cidr6"), "{said}");
    assert_empty();
    agent.stop();
}
