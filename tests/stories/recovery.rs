//! Stories of an agent that ends, dies, comes back, or finds its record and the kernel apart.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flock::record::format::{Record, VERSION};
use model::addr::{Attachment, LinkEnd};
use model::lease::{Lease, Phase};
use serde_json::{Value, json};

use crate::addresses;
use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR6, node_config, node_config_spec};
use crate::support::outcome::{Attached, Outcome};
use crate::support::pod::Pod;
use crate::support::probe::{Echo, Probe};
use crate::support::programs::succeed;
use crate::support::record::log_of;
use crate::support::waiting::{PATIENCE, wait_for};

fn log_file(host: &Host) -> PathBuf {
    host.path("/run/flock/state/leases.log")
}

fn append(host: &Host, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).open(log_file(host)).expect("there is a log");
    file.write_all(bytes).expect("written");
}

/// The delete notes that wait.
fn notes(host: &Host) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(host.path("/run/flock/deletes")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "delete")).collect()
}

/// Adds pods of these names and returns them with what they got.
fn names(prefix: &str, count: usize) -> impl Iterator<Item = String> + use<> {
    let prefix = prefix.to_owned();
    (0..count).map(move |n| format!("{prefix}{n}"))
}

/// All of them reach the host and their neighbour, and no address occurs twice.
fn assert_all_work(pods: &[(Pod<'_>, Attached)]) {
    let all: Vec<IpAddr> = pods.iter().flat_map(|(_, attached)| attached.ips()).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "an address was given twice: {all:?}");
    for (n, (pod, _)) in pods.iter().enumerate() {
        pod.assert_pings(host_addresses());
        pod.assert_pings(pods[(n + 1) % pods.len()].1.ips());
    }
}

#[test]
fn pods_keep_addresses_and_connections_while_the_agent_is_restarted() {
    for signal in ["TERM", "KILL"] {
        let host = Host::new();
        let mut agent = host.agent().start();
        let mut pods = host.attach_all(names("old", 5));
        let leases = host.leases();
        agent.signal(signal);
        agent.wait();
        assert_all_work(&pods);
        let agent = host.agent().start();
        assert!(agent.log().contains("leases=5"), "{}", agent.log());
        assert_eq!(host.leases(), leases);
        pods.extend(host.attach_all(names("new", 5)));
        assert_all_work(&pods);
        let error = host.add(&pods[0].0).error();
        assert_eq!(error.code, 4, "a second ADD is refused after a restart, too: {error:?}");
        for (pod, _) in &pods {
            host.del(pod).done();
        }
        host.assert_empty();
    }
}

// covers: FM-A02
#[test]
fn an_agent_that_is_killed_again_and_again_under_load_loses_and_doubles_nothing() {
    let host = Host::new();
    let pods: Vec<Pod<'_>> = names("p", 24).map(|name| host.pod(&name)).collect();
    let mut agent = host.agent().start();
    let over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for chunk in pods.chunks(6) {
            let (host, over) = (&host, &over);
            scope.spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    for pod in chunk {
                        // Whatever comes of it, as long as it ends.
                        host.add(pod).run();
                    }
                    for pod in chunk {
                        host.del(pod).done();
                    }
                }
            });
        }
        for round in 0..10 {
            // Enough for some requests, a different number each time.
            let served = agent.log().matches("request served").count() + round * 3;
            let deadline = Instant::now() + PATIENCE;
            while agent.log().matches("request served").count() < served && Instant::now() < deadline {
                thread::yield_now();
            }
            agent.signal("KILL");
            agent.wait();
            agent = host.agent().start();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for pod in &pods {
        host.del(pod).done();
    }
    host.assert_empty();
    let pods: Vec<_> = pods
        .into_iter()
        .map(|pod| {
            let attached = host.add(&pod).result();
            (pod, attached)
        })
        .collect();
    assert_all_work(&pods);
}

// covers: FM-A06
#[test]
fn a_delete_while_the_agent_is_away_is_promised_kept_and_done_before_the_next_add() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config("", "10.25.214.0/30"))).start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let attached = host.add(&a).result();
    agent.kill();
    for _ in 0..3 {
        host.del(&a).done();
    }
    assert_eq!(notes(&host).len(), 1);
    a.vanish();
    let agent = host.agent().config(Some(&node_config("", "10.25.214.0/30"))).start();
    // The one address of this range is free again.
    assert_eq!(host.add(&b).result().ips(), attached.ips());
    assert_eq!(notes(&host), Vec::<PathBuf>::new());
    agent.wait_log("noted delete carried out");
    host.del(&b).done();
    host.assert_empty();
}

#[test]
fn a_delete_while_the_agent_is_away_takes_the_link_of_a_namespace_that_still_stands() {
    let host = Host::new();
    host.agent().start().kill();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 3));
    agent.kill();
    host.del(&pods[1].0).done();
    let _agent = host.agent().start();
    assert_eq!(host.leases().len(), 2);
    assert_eq!(host.flock_links().len(), 2);
    pods[0].0.assert_pings(pods[2].1.ips());
    assert_eq!(pods[1].0.run("ip -o link").lines().count(), 1);
}

// covers: FM-A10
#[test]
fn a_note_of_an_older_sandbox_never_harms_the_newer_one() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    agent.kill();
    host.del(&pod).done();
    let note = notes(&host).pop().expect("a note");
    let content = fs::read(&note).expect("readable");
    let agent = host.agent().start();
    let attached = host.add(&pod).result();
    // As if the removal of the note had been lost in a crash.
    fs::write(&note, content).expect("writable");
    agent.kill();
    let agent = host.agent().start();
    agent.wait_log("noted delete carried out");
    assert_eq!(notes(&host), Vec::<PathBuf>::new());
    assert_eq!(host.leases().len(), 1);
    pod.assert_pings(host_addresses());
    host.add(&host.pod("q")).result();
    assert_eq!(host.leases()[0].addresses().collect::<Vec<_>>(), attached.ips());
}

#[test]
fn files_that_are_no_notes_are_reported_and_left() {
    let host = Host::new();
    host.run("mkdir -p -m 0700 /run/flock/deletes");
    let stranger = host.path("/run/flock/deletes/0123456789abcdef.delete");
    fs::write(&stranger, "{").expect("writable");
    let agent = host.agent().start();
    let line = agent.wait_log("not a delete note");
    assert!(line.contains("0123456789abcdef.delete"), "{line}");
    assert!(stranger.exists());
    host.add(&host.pod("p")).result();
}

// covers: FM-A03
#[test]
fn a_lost_state_directory_is_read_back_from_the_kernel() {
    let host = Host::new();
    let agent = host.agent().start();
    let mut pods = host.attach_all(names("old", 5));
    let two = host.add(&pods[0].0).ifname("net1").result();
    agent.kill();
    fs::remove_dir_all(host.path("/run/flock/state")).expect("removed");
    let agent = host.agent().start();
    agent.wait_log_times("attachment without record adopted", 6);
    let known: BTreeSet<IpAddr> = host.leases().iter().flat_map(|lease| lease.addresses()).collect();
    let expected: BTreeSet<IpAddr> = pods.iter().flat_map(|(_, a)| a.ips()).chain(two.ips()).collect();
    assert_eq!(known, expected);
    pods.extend(host.attach_all(names("new", 5)));
    assert_all_work(&pods);
    host.del(&pods[0].0).ifname("net1").done();
    for (pod, _) in &pods {
        host.del(pod).done();
    }
    host.assert_empty();
}

#[test]
fn a_damaged_record_is_set_aside_and_its_pod_is_read_back_from_the_kernel() {
    let host = Host::new();
    let agent = host.agent().start();
    let mut pods = host.attach_all(names("p", 3));
    agent.kill();
    let text = fs::read_to_string(log_file(&host)).expect("readable");
    let damaged = text.replace("\"container_id\":\"p1\"", "\"container_id\":\"pX\"");
    assert_ne!(damaged, text);
    fs::write(log_file(&host), &damaged).expect("writable");
    let agent = host.agent().start();
    agent.wait_log("state was damaged");
    agent.wait_log("attachment without record adopted");
    let kept: Vec<PathBuf> = fs::read_dir(host.path("/run/flock/state"))
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.to_string_lossy().contains("damaged"))
        .collect();
    assert_eq!(fs::read_to_string(&kept[0]).expect("readable"), damaged);
    assert_eq!(host.leases().len(), 3);
    pods.extend(host.attach_all(names("new", 3)));
    assert_all_work(&pods);
}

#[test]
fn a_record_that_was_cut_off_is_forgotten_and_the_others_stand() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 3));
    let leases = host.leases();
    agent.kill();
    let half = log_of([Record::Put(Box::new(leases[0].clone()))], None);
    append(&host, &half[..half.len() / 2]);
    let agent = host.agent().start();
    agent.wait_log("last record was cut off");
    assert_eq!(host.leases(), leases);
    assert_all_work(&pods);
}

/// The log of this host says of `attachment` that its ADD has begun, and no more.
fn unfinish(host: &Host, attachment: &str) {
    let found = host.leases().into_iter().find(|lease| lease.attachment.to_string() == attachment);
    let lease = Lease { phase: Phase::Pending, ..found.expect("leased") };
    host.append_to_log([Record::Put(Box::new(lease))]);
}

// covers: FM-A04
#[test]
fn an_add_that_was_cut_off_is_undone_at_the_next_start() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 4));
    agent.kill();
    // One whose pod end was not up yet, and one whose host end lacked a route.
    unfinish(&host, "p0/eth0");
    pods[0].0.run("ip link set eth0 down");
    unfinish(&host, "p1/eth0");
    host.run(&format!("ip -4 route del {}", pods[1].1.ipv4().expect("IPv4")));
    // And one that had not made a link yet.
    let mut other = host.leases().remove(0);
    other.attachment = "never-wired/eth0".parse().expect("a key");
    other.host_link = other.attachment.host_link(0);
    (other.host_mac, other.host_index) = (other.attachment.mac(LinkEnd::Host), None);
    (other.phase, other.ipv6, other.ipv4) = (Phase::Pending, None, "10.25.214.77".parse().ok());
    host.append_to_log([Record::Put(Box::new(other))]);
    let agent = host.agent().start();
    agent.wait_log_times("unfinished ADD undone", 3);
    assert_eq!(host.leases().len(), 2);
    let left: BTreeSet<String> = host.flock_links().into_iter().collect();
    assert_eq!(left, pods[2..].iter().map(|(_, attached)| attached.host_link()).collect());
    for (pod, _) in &pods[..2] {
        host.add(pod).result();
        pod.assert_pings(pods[2].1.ips());
    }
    host.assert_sound("added again");
}

// covers: FM-P02
#[test]
fn a_pod_whose_link_is_whole_keeps_it_though_the_last_line_of_its_add_is_lost() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 2));
    agent.kill();
    // A disk that lied, or an editor: nothing in the log shows it.
    let text = fs::read_to_string(log_file(&host)).expect("readable");
    let (kept, last) = text.trim_end().rsplit_once('\n').expect("lines");
    assert!(last.contains("\"container_id\":\"p1\"") && last.contains("committed"), "{last}");
    fs::write(log_file(&host), format!("{kept}\n")).expect("writable");
    let agent = host.agent().start();
    let line = agent.wait_log("attachment kept whose ADD is not recorded as finished");
    assert!(line.contains("cid=p1"), "{line}");
    assert!(!agent.log().contains("undone") && !agent.log().contains("damaged"), "{}", agent.log());
    host.assert_sound("with the line lost");
    assert_all_work(&pods);
    // And it is deleted as ever.
    host.del(&pods[1].0).done();
    host.del(&pods[0].0).done();
    host.assert_empty();
}

// covers: FM-G07 FM-P02
#[test]
fn a_log_from_before_a_pod_was_made_again_does_not_give_its_address_away() {
    let host = Host::new();
    let start = || host.agent().config(Some(&node_config("", "10.25.214.0/29"))).start();
    let agent = start();
    let pods = host.attach_all(["same".to_owned(), "gone".to_owned()]);
    let before = fs::read(log_file(&host)).expect("readable");
    for (pod, _) in &pods {
        host.del(pod).done();
    }
    // The same container with another address, and another one with the address of the second.
    let again = host.add(&pods[0].0).result();
    assert_ne!(again.ips(), pods[0].1.ips());
    let others = host.attach_all(names("new", 4));
    assert!(others.iter().any(|(_, attached)| attached.ips() == pods[1].1.ips()));
    agent.kill();
    fs::write(log_file(&host), before).expect("writable");
    let agent = start();
    agent.wait_log("record corrected by what the link shows");
    agent.wait_log("lease of a vanished pod ended");
    agent.wait_log_times("attachment without record adopted", 4);
    host.assert_sound("with a log of an earlier hour");
    let held: BTreeSet<IpAddr> = host.leases().iter().flat_map(Lease::addresses).collect();
    assert_eq!(held, others.iter().flat_map(|(_, attached)| attached.ips()).chain(again.ips()).collect());
    assert_eq!(host.add(&host.pod("more")).error().code, 11, "all five addresses are somebody's");
    for (pod, _) in &others {
        pod.assert_pings(again.ips());
    }
}

/// What happened to the log, and what is in its place.
type Edit = fn(Vec<&str>) -> Vec<&str>;

// covers: FM-P02
#[test]
fn whatever_lines_of_a_log_are_lost_doubled_or_exchanged_every_pod_keeps_its_link() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let pods = host.attach_all(names("p", 3));
    let expected: BTreeSet<IpAddr> = pods.iter().flat_map(|(_, attached)| attached.ips()).collect();
    let whole = fs::read_to_string(log_file(&host)).expect("readable");
    assert_eq!(whole.lines().count(), 7, "each pod has two lines");
    let edits: [(&str, bool, Edit); 7] = [
        ("each committed line lost", true, |lines| lines.into_iter().filter(|l| !l.contains("committed")).collect()),
        ("the header lost", true, |lines| lines[1..].to_vec()),
        ("a pending line doubled at the end", true, |mut lines| {
            lines.push(lines[1]);
            lines
        }),
        ("pending and committed exchanged", true, |mut lines| {
            lines.swap(3, 4);
            lines
        }),
        ("all in the other order", true, |mut lines| {
            lines[1..].reverse();
            lines
        }),
        ("cut after a pending line", false, |lines| lines[..6].to_vec()),
        ("cut after the header", false, |lines| lines[..1].to_vec()),
    ];
    for (what, is_seen, edit) in edits {
        agent.kill();
        fs::write(log_file(&host), edit(whole.lines().collect()).join("\n") + "\n").expect("writable");
        agent = host.agent().start();
        host.assert_sound(what);
        assert_eq!(agent.log().contains("state was damaged"), is_seen, "{what}: {}", agent.log());
        assert!(!agent.log().contains("undone"), "{what}: {}", agent.log());
        let held: BTreeSet<IpAddr> = host.leases().iter().flat_map(Lease::addresses).collect();
        assert_eq!(held, expected, "{what}");
        assert_all_work(&pods);
    }
}

// covers: FM-G04
#[test]
fn the_log_of_the_version_before_is_read_and_then_written_anew() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 2));
    let leases = host.leases();
    agent.kill();
    let header = Record::Header { version: 1, boot: flock::record::boot_clock::id().expect("readable"), serial: 0 };
    let records = [header].into_iter().chain(leases.iter().cloned().map(|lease| Record::Put(Box::new(lease))));
    let text: Vec<u8> = records.flat_map(|record| log_of([record], None)).collect();
    fs::write(log_file(&host), text).expect("writable");
    let agent = host.agent().start();
    assert!(!agent.log().contains("damaged") && !agent.log().contains("adopted"), "{}", agent.log());
    assert_eq!(host.leases(), leases, "names of pods and networks included");
    assert!(fs::read_to_string(log_file(&host)).expect("readable").contains("{\"version\":2,"));
    assert_all_work(&pods);
}

/// Writes the log of a host without agent as a flock does that knows neither further nor shared addresses. Returns the leases as
/// they were.
pub(crate) fn downgrade(host: &Host) -> Vec<Lease> {
    let leases = host.leases();
    let older = leases.iter().cloned().map(|lease| Lease { extra: vec![], anycast: vec![], ..lease });
    let header =
        Record::Header { version: VERSION, boot: flock::record::boot_clock::id().expect("readable"), serial: 9 };
    let records = [header].into_iter().chain(older.map(|lease| Record::Put(Box::new(lease))));
    fs::write(log_file(host), log_of(records, None)).expect("writable");
    sorted(leases)
}

/// In an order that does not tell how they were recorded.
pub(crate) fn sorted(mut leases: Vec<Lease>) -> Vec<Lease> {
    leases.iter_mut().for_each(|lease| {
        lease.extra.sort();
        lease.anycast.sort();
    });
    leases
}

// covers: FM-G09
#[test]
fn what_a_downgrade_leaves_out_of_the_record_is_back_after_the_upgrade_and_no_announcement_goes_meanwhile() {
    let host = Host::new();
    let mut agent = host.agent().config(Some(&addresses::config())).start();
    let pod = host.pod("p");
    host.add(&pod).annotations(&[("addresses", addresses::OWN), ("anycast", addresses::SHARED)]).result();
    host.assert_sound("before");
    let whole = sorted(host.leases());
    let announcements = host.route_events();
    // Somebody may have taken the routes of pods meanwhile, of the first address of each family or of a further one.
    for taken in [&[][..], &["203.0.113.5"], &["2001:db8:f::5", "203.0.113.5"], &["203.0.113.6"]] {
        agent.kill();
        assert_eq!(downgrade(&host), whole);
        for ip in taken {
            host.run(&format!("ip route del {ip} proto 102"));
        }
        agent = host.agent().keep_config().start();
        agent.wait_log("record corrected by what the link shows");
        agent.rounds(1);
        assert_eq!(sorted(host.leases()), whole, "{taken:?}");
        host.assert_sound(&format!("without the routes {taken:?}"));
        announcements.assert_unheard(102);
    }
    host.del(&pod).done();
    host.assert_empty();
}

// covers: FM-B07 FM-B08
#[test]
fn what_somebody_takes_from_the_host_end_of_a_living_pod_comes_back_and_is_said() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 2));
    let (pod, attached) = &pods[0];
    let (ip6, ip4, link) = (attached.ipv6().expect("v6"), attached.ipv4().expect("v4"), attached.host_link());
    let damages = [
        (format!("ip -6 route del {ip6} proto 102"), format!("lacks=\"route {ip6}/128\"")),
        (format!("ip -4 route del {ip4} proto 102"), format!("lacks=\"route {ip4}/32\"")),
        (format!("ip neigh del {ip6} dev {link}"), format!("lacks=\"neighbour {ip6}\"")),
        (
            format!("ip neigh replace {ip4} dev {link} lladdr 02:00:00:00:00:01 nud permanent"),
            format!("lacks=\"neighbour {ip4}\""),
        ),
        (format!("ip addr del fe80::1/128 dev {link}"), "lacks=\"address fe80::1\"".to_owned()),
        (format!("ip addr del 169.254.1.1/32 dev {link}"), "lacks=\"address 169.254.1.1, ".to_owned()),
        (format!("ip link set {link} alias somebody"), "lacks=\"alias flock:p0/eth0\"".to_owned()),
        (format!("ip link set {link} down"), "lacks=\"up, ".to_owned()),
    ];
    for (damage, said) in &damages {
        host.run(damage);
        agent.signal("HUP");
        let line = agent.wait_log(said);
        assert!(line.contains("warn") && line.contains("cid=p0"), "{line}");
        host.assert_sound(damage);
        pod.assert_pings(host_addresses());
        pod.assert_pings(pods[1].1.ips());
    }
    let other = agent.log().lines().filter(|line| line.contains("lacks=") && line.contains("cid=p1")).count();
    assert_eq!(other, 0, "nothing was wrong with the other pod");
}

#[test]
fn what_somebody_takes_from_a_host_that_serves_pods_comes_back_and_is_said() {
    let host = Host::new();
    let agent = host.agent().start();
    agent.signal("HUP");
    agent.wait_log("looking again");
    let pods = host.attach_all(names("p", 2));
    for (n, (damage, said)) in [
        ("sysctl -q net.ipv4.ip_forward=0", "net/ipv4/ip_forward=1"),
        ("sysctl -q net.ipv6.conf.all.forwarding=0", "net/ipv6/conf/all/forwarding=1"),
        (
            "ip -6 route del unreachable 2001:db8:1:f001::/64 proto 102 metric 4294967295",
            "unreachable 2001:db8:1:f001::/64",
        ),
        ("ip -4 route del unreachable 10.25.214.0/24 proto 102 metric 4294967295", "unreachable 10.25.214.0/24"),
    ]
    .into_iter()
    .enumerate()
    {
        host.run(damage);
        agent.signal("HUP");
        let line = agent.wait_log_times("host had lost what pods need", n + 1);
        assert!(line.contains(said), "{line}");
        assert_all_work(&pods);
    }
}

// covers: FM-A02
#[test]
fn a_node_with_250_pods_comes_back_from_its_record_or_from_the_kernel_and_no_pod_loses_a_packet() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config(CIDR6, "10.25.214.0/23"))).start();
    let pods: Vec<Pod<'_>> = names("p", 250).map(|name| host.pod(&name)).collect();
    thread::scope(|scope| {
        for chunk in pods.chunks(63) {
            let host = &host;
            scope.spawn(move || chunk.iter().for_each(|pod| drop(host.add(pod).result())));
        }
    });
    let leases = host.leases();
    assert_eq!(leases.len(), 250);
    // One packet every 10 ms from one pod to another, through two restarts.
    let target = leases.iter().find(|lease| lease.netns.ends_with("/p249")).and_then(|lease| lease.ipv6).expect("v6");
    let mut command = host.command("ip");
    command.args(["netns", "exec", "p0", "ping", "-n", "-q", "-i", "0.01", &target.to_string()]);
    let mut ping = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("ping starts");
    agent.kill();
    let agent = host.agent().config(Some(&node_config(CIDR6, "10.25.214.0/23"))).start();
    assert!(agent.log().contains("leases=250"), "{}", agent.log());
    host.assert_sound("restarted with its record");
    assert_eq!(host.leases(), leases, "nothing was to repair");
    agent.kill();
    fs::remove_dir_all(host.path("/run/flock/state")).expect("removed");
    let agent = host.agent().config(Some(&node_config(CIDR6, "10.25.214.0/23"))).start();
    agent.wait_log("attachment without record adopted");
    host.assert_sound("restarted without its record");
    let held = |leases: &[Lease]| leases.iter().flat_map(Lease::addresses).collect::<BTreeSet<IpAddr>>();
    assert_eq!(held(&host.leases()), held(&leases));
    succeed(Command::new("kill").args(["-s", "INT", &ping.id().to_string()]));
    let mut said = String::new();
    ping.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    ping.wait().expect("waitable");
    assert!(said.contains(" 0% packet loss"), "{said}");
}

// covers: FM-A01
#[test]
fn state_of_an_earlier_boot_is_dropped() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 2));
    let leases = host.leases();
    agent.kill();
    for (pod, _) in &pods {
        pod.vanish();
    }
    wait_for("the links to go", || host.flock_links().is_empty().then_some(()));
    let header = Record::Header { version: VERSION, boot: "another-boot".into(), serial: 1 };
    let records = [header].into_iter().chain(leases.into_iter().map(|lease| Record::Put(Box::new(lease))));
    fs::write(log_file(&host), log_of(records, None)).expect("writable");
    let agent = host.agent().start();
    agent.wait_log("state of an earlier boot dropped");
    host.assert_empty();
}

#[test]
fn a_second_agent_refuses_and_the_first_goes_on() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pods = host.attach_all(names("p", 2));
    for (arguments, why) in [
        (&[][..], "another agent keeps its state here: /run/flock/state is locked"),
        (&["--state-dir", "/run/other"][..], "another agent listens on /run/flock/flock.sock"),
    ] {
        let mut second = host.agent().args(arguments).no_wait().start();
        assert_eq!(second.wait().code(), Some(1));
        let line = second.wait_log("flock-agent cannot run");
        assert!(line.contains(why), "{line}");
    }
    assert_all_work(&pods);
    host.add(&host.pod("q")).result();
}

#[test]
fn sigterm_lets_requests_in_service_come_to_an_end() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let pods: Vec<Pod<'_>> = names("p", 24).map(|name| host.pod(&name)).collect();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let running: Vec<_> = pods.iter().map(|pod| scope.spawn(|| host.add(pod).run())).collect();
        agent.wait_log("op=ADD");
        agent.signal("TERM");
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(agent.wait().success());
    assert!(!agent.log().contains("requests were still in service"), "{}", agent.log());
    // Each either got its addresses, or was told to come again and left nothing behind.
    let mut served = 0;
    for (outcome, pod) in outcomes.iter().zip(&pods) {
        if outcome.output.status.success() {
            served += 1;
            pod.assert_pings(host_addresses());
        } else {
            assert_eq!(outcome.failed().code, 11);
            assert_eq!(pod.run("ip -o link").lines().count(), 1);
        }
    }
    assert!(served > 0);
    assert_eq!((host.leases().len(), host.flock_links().len()), (served, served));
    assert!(host.leases().iter().all(|lease| lease.phase == Phase::Committed));
}

/// A pod as the Go flock left it. Returns its addresses.
fn go_pod(host: &Host, id: &str, n: u8) -> (Vec<IpAddr>, String) {
    let pod = host.pod(id);
    let name = format!("{id}/eth0").parse::<Attachment>().expect("a key").host_link(0);
    let (v6, v4) = (format!("2001:db8:1:f001::{n}"), format!("10.25.214.{n}"));
    succeed(host.command("sh").args([
        "-ec",
        &format!(
            "ip link add {name} type veth peer name tmp{n}; ip link set tmp{n} netns {id}; \
             ip -n {id} link set tmp{n} name eth0; ip -n {id} link set eth0 up; ip link set {name} up; \
             ip -6 addr add fe80::1/64 dev {name} nodad; \
             ip -6 route add {v6}/128 dev {name} proto boot; ip route add {v4}/32 dev {name} proto boot; \
             echo 1 >/proc/sys/net/ipv4/conf/{name}/proxy_arp; \
             echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; \
             ip -n {id} -6 addr add {v6}/128 dev eth0 nodad; ip -n {id} addr add {v4}/32 dev eth0; \
             ip -n {id} -6 route add default via fe80::1 dev eth0; \
             ip -n {id} route add 169.254.1.1 dev eth0 scope link; \
             ip -n {id} route add default via 169.254.1.1 dev eth0"
        ),
    ]));
    drop(pod);
    ([v6, v4].map(|ip| ip.parse().expect("an address")).to_vec(), name.to_string())
}

fn go_entry(id: &str, n: u8, state: &str) -> Value {
    json!({
        "container_id": id, "namespace": "default", "pod_name": id, "owner_uid": "u",
        "ip6": format!("2001:db8:1:f001::{n}"), "ip4": format!("10.25.214.{n}"),
        "state": state, "allocated_at": "2026-04-25T09:25:45-05:00",
    })
}

fn go_file(host: &Host, entries: &[(&str, u8, &str)]) {
    write_go_file(host, &entries.iter().map(|(id, n, state)| go_entry(id, *n, state)).collect::<Vec<_>>());
}

fn write_go_file(host: &Host, allocations: &[Value]) {
    let file = json!({"version": 1, "node": "host001", "allocations": allocations}).to_string();
    fs::write(host.path("/run/allocations.json"), file).expect("writable");
}

// covers: FM-G03
#[test]
fn pods_of_the_go_flock_are_taken_over_while_they_run() {
    let host = Host::new();
    let (ips, link) = go_pod(&host, "go1", 2);
    let (_, unfinished) = go_pod(&host, "go2", 3);
    go_file(&host, &[("go1", 2, "committed"), ("go2", 3, "pending"), ("long-gone", 4, "committed")]);
    let agent = host.agent().start();
    agent.wait_log("attachment of the Go flock taken over");
    assert_eq!(host.flock_links(), [link.as_str()], "{unfinished} was never finished");
    let leases = host.leases();
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].addresses().collect::<Vec<_>>(), ips);

    let go = Pod { host: &host, name: "go1".into() };
    wait_for("the link-local addresses to settle", || {
        let pings = host_addresses().into_iter().all(|ip| go.pings(ip));
        pings.then_some(())
    });
    // Its addresses are taken: 10.25.214.2 would be the first one to be given.
    let pods = host.attach_all(names("new", 3));
    assert!(pods.iter().all(|(_, attached)| attached.ips().iter().all(|ip| !ips.contains(ip))));
    pods[0].0.assert_pings(ips.iter().copied());
    go.assert_pings(pods[0].1.ips());

    // Once more: nothing to do, and nothing done. Also not with the state lost.
    agent.stop();
    let agent = host.agent().start();
    assert!(!agent.log().contains("repaired") && !agent.log().contains("taken over"), "{}", agent.log());
    agent.kill();
    fs::remove_dir_all(host.path("/run/flock/state")).expect("removed");
    let agent = host.agent().start();
    assert_eq!(host.leases().len(), 4, "{}", agent.log());
    go.assert_pings(host_addresses());

    host.del(&go).done();
    assert!(!host.flock_links().contains(&link));
    for (pod, _) in &pods {
        host.del(pod).done();
    }
    host.assert_empty();
}

/// Addresses of pods of the Go flock: shared by two of them, by one, and one that only one of them has, though somebody leads it
/// to both.
const GO_SHARED: [&str; 2] = ["203.0.113.5", "2001:db8:f::5"];
const GO_ALONE: [&str; 2] = ["203.0.113.6", "2001:db8:f::6"];
const GO_FOREIGN: &str = "203.0.113.7";
const GO_FIXED: &str = "203.0.113.9";

#[test]
fn shared_and_fixed_addresses_of_the_go_flocks_pods_are_taken_over_without_a_lost_packet() {
    let host = Host::new();
    let [(_, one), (_, two), _] = [("go1", 2), ("go2", 3), ("client", 4)].map(|(id, n)| go_pod(&host, id, n));
    let mut entries = [("go1", 2), ("go2", 3), ("client", 4)].map(|(id, n)| go_entry(id, n, "committed"));
    entries[0]["anycast"] = json!([GO_SHARED[0], GO_SHARED[1], GO_ALONE[0], GO_ALONE[1], GO_FOREIGN]);
    entries[0]["addresses"] = json!(["2001:db8:1:f001::2", "10.25.214.2", GO_FIXED]);
    entries[1]["anycast"] = json!(GO_SHARED);
    write_go_file(&host, &entries);
    let ways = [("10.25.214.2", "10.25.214.3"), ("2001:db8:1:f001::2", "2001:db8:1:f001::3")];
    for (at, (via_one, via_two)) in ways.into_iter().enumerate() {
        let both = format!("nexthop via {via_one} dev {one} nexthop via {via_two} dev {two}");
        host.run(&format!("ip route add {} {both}", GO_SHARED[at]));
        host.run(&format!("ip route add {} via {via_one} dev {one}", GO_ALONE[at]));
        if at == 0 {
            host.run(&format!("ip route add {GO_FOREIGN} {both}"));
            host.run(&format!("ip route add {GO_FIXED} via {via_one} dev {one}"));
        }
        let nodad = if at == 1 { "nodad" } else { "" };
        for (pod, ip) in [("go1", GO_SHARED[at]), ("go2", GO_SHARED[at]), ("go1", GO_ALONE[at])] {
            host.run(&format!("ip -n {pod} addr add {ip} dev lo {nodad}"));
        }
    }
    host.run(&format!("ip -n go1 addr add {GO_FIXED} dev eth0"));
    // The Go flock's hosts answer for any gateway of a pod, as long as they have a way out.
    for line in [
        "ip link add uplink type veth peer name uplink2",
        "ip link set uplink up",
        "ip link set uplink2 up",
        "ip route add default dev uplink",
    ] {
        host.run(line);
    }
    ["go1", "go2"].iter().for_each(|pod| drop(host.run(&format!("ip -n {pod} link set lo up"))));
    let pod = |name: &str| Pod { host: &host, name: name.into() };
    let addresses = |texts: &[&str]| texts.iter().map(|ip| ip.parse().expect("literal")).collect::<Vec<IpAddr>>();
    let of_one = addresses(&[&GO_SHARED[..], &GO_ALONE, &[GO_FIXED]].concat());
    let bound = |pod: &Pod<'_>, ips: &[IpAddr]| {
        wait_for("the addresses", || ips.iter().all(|ip| pod.pings(*ip)).then_some(()));
        Echo::start(&pod.netns(), &pod.name, ips)
    };
    let _echoes = [bound(&pod("go1"), &of_one), bound(&pod("go2"), &addresses(&GO_SHARED))];
    wait_for("the client to reach them all", || of_one.iter().all(|ip| pod("client").pings(*ip)).then_some(()));
    let probe = Probe::start(&pod("client").netns(), &of_one, 4, Duration::from_millis(1));
    probe.wait_answers(50);

    let config =
        json!({"cidr6": CIDR6, "cidr4": "10.25.214.0/24", "extraPrefixes": ["203.0.113.0/28", "2001:db8:f::/48"]});
    let agent = host.agent().config(Some(&node_config_spec(config))).start();
    let family = |ip: &str| if ip.contains(':') { "-6" } else { "-4" };
    let proto = |ip: &str| host.run(&format!("ip {} route show {ip}", family(ip)));
    for ip in GO_SHARED.iter().chain(&GO_ALONE) {
        wait_for(&format!("{ip} to be led to by flock alone"), || {
            let shown = proto(ip);
            (shown.matches(ip).count() == 1 && shown.contains("proto 102")).then_some(())
        });
    }
    for ip in GO_SHARED.iter().chain(&GO_ALONE).chain(&[GO_FIXED]) {
        wait_for(&format!("{ip} to be announced"), || {
            host.run(&format!("ip {} route show table 102", family(ip)))
                .contains(&format!("{ip} dev {one}"))
                .then_some(())
        });
    }
    probe.wait_answers(100);
    let tally = probe.finish();
    assert_eq!((tally.lost.as_slice(), tally.names().len()), (&[][..], 2), "{tally:?}");
    let foreign = proto(GO_FOREIGN);
    assert!(!foreign.contains("proto 102") && foreign.contains(&two), "nobody else's is touched: {foreign}");
    agent.wait_log("routes cannot be set");
    host.run(&format!("ip route del {GO_FOREIGN}"));
    agent.signal("HUP");
    wait_for("what was in the way to be led to", || proto(GO_FOREIGN).contains("proto 102").then_some(()));
    for pod in ["go1", "go2", "client"].map(pod) {
        host.del(&pod).done();
    }
    wait_for("nothing to be left", || host.run("ip nexthop show proto 102").is_empty().then_some(()));
    assert_eq!(host.run("ip route show 203.0.113.0/28"), "");
    host.assert_empty();
}

#[test]
fn an_allocations_file_that_is_not_understood_is_reported_and_left() {
    let host = Host::new();
    fs::write(host.path("/run/allocations.json"), r#"{"version": 2}"#).expect("writable");
    let agent = host.agent().start();
    let line = agent.wait_log("allocations cannot be imported");
    assert!(line.contains("version 2") && line.contains("/run/allocations.json"), "{line}");
    host.add(&host.pod("p")).result();
}

// covers: FM-B08
#[test]
fn a_lost_route_or_alias_is_put_back_at_the_next_start() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 2));
    agent.kill();
    let link = pods[0].1.host_link();
    host.run(&format!("ip route del {}", pods[0].1.ipv4().expect("IPv4")));
    host.run(&format!("ip link set {} down", pods[1].1.host_link()));
    succeed(host.command("ip").args(["link", "set", &link, "alias", ""]));
    let agent = host.agent().start();
    agent.wait_log_times("host end of a link repaired", 2);
    wait_for("the repaired links to work", || {
        pods.iter().all(|(pod, _)| host_addresses().into_iter().all(|ip| pod.pings(ip))).then_some(())
    });
    assert!(host.run(&format!("ip link show {link}")).contains("alias flock:p0/eth0"));
    assert_all_work(&pods);
}

/// The one story that waits for a round: they come every twenty seconds, and a link has to be missed twice.
// covers: FM-A07
#[test]
fn pods_whose_namespaces_vanished_give_their_addresses_back_without_a_delete() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(names("p", 4));
    for (pod, _) in &pods[..2] {
        pod.vanish();
    }
    // Meanwhile somebody removes a route of a pod that lives.
    host.run(&format!("ip route del {}", pods[2].1.ipv4().expect("IPv4")));
    wait_for("the links to go", || (host.flock_links().len() == 2).then_some(()));
    // The first round is asked for, and the second comes by itself.
    agent.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(70);
    while host.leases().len() > 2 {
        assert!(Instant::now() < deadline, "never given back:\n{}", agent.log());
        thread::park_timeout(Duration::from_millis(100));
    }
    let left: Vec<String> = host.leases().iter().map(|lease| lease.attachment.to_string()).collect();
    assert_eq!(left, ["p2/eth0", "p3/eth0"]);
    agent.wait_log_times("lease of a vanished pod ended", 2);
    assert_eq!(agent.log().matches("host end of a link repaired").count(), 1, "{}", agent.log());
    assert_all_work(&pods.into_iter().skip(2).collect::<Vec<_>>());
}
