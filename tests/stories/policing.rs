//! What pods may reach goes on when the agent does not: through kills, faults, lost files and others who write to the same tables.
//!
//! A denied flow never passes, whatever happens; what an earlier agent left filters until the next one knows all that counts.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use rustix::net::sockopt;
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::failpoints::{Passed, passes};
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::share::share;
use crate::support::waiting::wait_for;

/// Where the agent finds the cluster.
const DIRECTORY: &str = "/run/policies";

/// Three pods of a namespace, of which one lets only one of the others in.
const CLUSTER: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {team: a}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: closed, namespace: x, labels: {role: closed}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: friend, namespace: x, labels: {role: friend}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: stranger, namespace: x, labels: {role: stranger}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: late, namespace: x, labels: {role: closed}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: x}
spec:
  podSelector: {matchLabels: {role: closed}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]
";

fn put(host: &Host, documents: &str) {
    let (new, file) = (format!("{DIRECTORY}/.cluster.new"), format!("{DIRECTORY}/cluster.yaml"));
    host.write(&new, documents);
    fs::rename(host.path(&new), host.path(&file)).expect("renamed");
}

fn start(host: &Host) -> Agent<'_> {
    host.agent().keep_config().args(&["--policy-dir", DIRECTORY]).start()
}

/// The directory, out of the agent's sight.
fn hide(host: &Host) {
    fs::rename(host.path(DIRECTORY), host.path("/run/aside")).expect("renamed");
}

fn show(host: &Host) {
    fs::rename(host.path("/run/aside"), host.path(DIRECTORY)).expect("renamed");
}

/// The pods.
struct Trio<'a> {
    host: &'a Host,
    closed: (Pod<'a>, Attached),
    friend: (Pod<'a>, Attached),
    stranger: (Pod<'a>, Attached),
}

impl<'a> Trio<'a> {
    /// With an agent that has their policies in force.
    fn new(host: &'a Host) -> (Trio<'a>, Agent<'a>) {
        put(host, CLUSTER);
        let agent = host.agent().args(&["--policy-dir", DIRECTORY]).start();
        // Who is listed is known before the first pod, which is no quarantine's then.
        agent.rounds_of("policing/tables.compare", 1);
        let attach = |name: &str| {
            let pod = host.pod(name);
            let attached = host.add(&pod).kubernetes("x", name).result();
            (pod, attached)
        };
        let trio = Trio { host, closed: attach("closed"), friend: attach("friend"), stranger: attach("stranger") };
        trio.assert_friends("at first");
        trio.assert_closed("at first");
        (trio, agent)
    }

    fn ips(&self) -> Vec<IpAddr> {
        self.closed.1.ips()
    }

    /// What is allowed passes.
    #[track_caller]
    fn assert_friends(&self, when: &str) {
        for ip in self.ips() {
            assert!(self.friend.0.pings(ip), "{when}: a friend does not reach {ip}\n{}", self.table());
        }
    }

    /// What is denied does not.
    #[track_caller]
    fn assert_closed(&self, when: &str) {
        for ip in self.ips() {
            assert!(!self.stranger.0.pings(ip), "{when}: a stranger reaches {ip}\n{}", self.table());
        }
    }

    /// The table with its handles, without what packets have counted.
    fn table(&self) -> String {
        self.host.script("nft -s -a list table inet flock 2>&1 || true")
    }
}

#[test]
fn what_an_earlier_agent_left_goes_on_through_every_round_until_policies_can_be_read() {
    let host = Host::new();
    let (trio, agent) = Trio::new(&host);
    let before = trio.table();
    agent.kill();
    hide(&host);
    let agent = start(&host);
    agent.wait_log("directory of policies cannot be used");
    agent.rounds_of("policing/tables.compare", 3);
    assert_eq!(trio.table(), before, "not one rule is made anew");
    assert!(!agent.log().contains("somebody has changed"), "{}", agent.log());
    trio.assert_friends("after rounds");
    trio.assert_closed("after rounds");
    // A pod that comes and goes meanwhile changes nothing for the others.
    let pod = host.pod("new");
    let new = host.add(&pod).kubernetes("x", "new").result();
    agent.rounds_of("policing/tables.compare", 2);
    assert!(!pod.pings(trio.friend.1.ips()[0]) && !trio.friend.0.pings(new.ips()[0]), "a new one is in quarantine");
    trio.assert_friends("beside a new pod");
    trio.assert_closed("beside a new pod");
    host.del(&pod).done();
    agent.rounds_of("policing/tables.compare", 2);
    trio.assert_friends("after its DEL");
    trio.assert_closed("after its DEL");
    // One that is made anew is a new one, though its link has the name of one that was open.
    host.del(&trio.stranger.0).done();
    let anew = host.add(&trio.stranger.0).kubernetes("x", "stranger").result();
    assert!(!trio.friend.0.pings(anew.ips()[0]), "one that is made anew is in quarantine");
    show(&host);
    wait_for("policies to be known", || trio.friend.0.pings(anew.ips()[0]).then_some(()));
    trio.assert_friends("when they are known");
    trio.assert_closed("when they are known");
    host.assert_sound("known");
}

/// Room for what a flow has not received yet, in bytes.
const ROOM: usize = 8 << 20;

/// Numbers by UDP from one pod to another, one after the other without end, and those that arrive.
struct Flow {
    told: Arc<Told>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    sent: AtomicU64,
    arrived: Mutex<Arrived>,
    ended: AtomicBool,
}

#[derive(Default)]
struct Arrived {
    last: Option<u64>,
    /// The first two that arrived one behind the other and are not neighbours.
    gap: Option<(u64, u64)>,
}

impl Arrived {
    fn take(&mut self, number: u64) {
        if let Some(last) = self.last.replace(number).filter(|last| number != last + 1) {
            self.gap.get_or_insert((last, number));
        }
    }
}

impl Flow {
    fn start(from: &Pod<'_>, to: &Pod<'_>, at: SocketAddr) -> Flow {
        let within = |pod: &Pod<'_>, at: SocketAddr| {
            let bound = || UdpSocket::bind(at).expect("an own address");
            Netns::open(&pod.netns()).expect("a namespace").run(bound).expect("entered")
        };
        let any: IpAddr = if at.is_ipv6() { "::" } else { "0.0.0.0" }.parse().expect("literal");
        let (sender, receiver) = (within(from, SocketAddr::new(any, 0)), within(to, at));
        sender.connect(at).expect("a route");
        receiver.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        // A machine that is busy may leave the receiver without a turn for a second.
        sockopt::set_socket_recv_buffer_size_force(&receiver, ROOM)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&receiver, ROOM))
            .expect("set");
        let told = Arc::new(Told::default());
        let (sending, receiving) = (told.clone(), told.clone());
        let send = move || {
            let mut number: u64 = 0;
            while !sending.ended.load(Ordering::Relaxed) {
                if sender.send(&number.to_be_bytes()).is_ok() {
                    number += 1;
                    sending.sent.store(number, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(1));
            }
        };
        let receive = move || {
            let mut number = [0; 8];
            while !receiving.ended.load(Ordering::Relaxed) {
                if receiver.recv(&mut number).is_ok() {
                    receiving.arrived.lock().expect("unpoisoned").take(u64::from_be_bytes(number));
                }
            }
        };
        Flow { told, threads: vec![thread::spawn(send), thread::spawn(receive)] }
    }

    fn sent(&self) -> u64 {
        self.told.sent.load(Ordering::Relaxed)
    }

    fn last(&self) -> Option<u64> {
        self.told.arrived.lock().expect("unpoisoned").last
    }

    /// What is sent from now on arrives.
    #[track_caller]
    fn wait_open(&self, when: &str) {
        let next = self.sent();
        wait_for(&format!("{when}: a number to arrive"), || self.last().filter(|last| *last >= next).map(drop));
    }

    /// Nothing arrives of what is sent from now on.
    #[track_caller]
    fn assert_shut(&self, when: &str) {
        // One may be on its way.
        let next = self.sent() + 2;
        wait_for("numbers to be sent", || (self.sent() > next + 30).then_some(()));
        assert!(self.last().is_none_or(|last| last < next), "{when}: {:?} arrived behind {next}", self.last());
    }

    /// No number was lost on the way.
    #[track_caller]
    fn assert_whole(&self, when: &str) {
        let gap = self.told.arrived.lock().expect("unpoisoned").gap;
        assert!(self.last().is_some() && gap.is_none(), "{when}: lost between {gap:?}");
    }

    /// No number has ever arrived.
    #[track_caller]
    fn assert_never(&self, when: &str) {
        assert_eq!(self.last(), None, "{when}: what is denied has arrived");
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.told.ended.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Flows to the closed pod by both families: of its friend, of a stranger, and of a pod that may and may not by turns.
struct Flows {
    friend: Vec<Flow>,
    stranger: Vec<Flow>,
    guest: Vec<Flow>,
}

impl Flows {
    fn start(trio: &Trio<'_>, guest: &Pod<'_>) -> Flows {
        let to = |from: &Pod<'_>, port: u16| -> Vec<Flow> {
            trio.ips().into_iter().map(|ip| Flow::start(from, &trio.closed.0, SocketAddr::new(ip, port))).collect()
        };
        Flows { friend: to(&trio.friend.0, 9001), stranger: to(&trio.stranger.0, 9002), guest: to(guest, 9003) }
    }

    /// Nothing that is allowed was lost, and nothing that is denied arrived, from the beginning until now.
    #[track_caller]
    fn assert_kept(&self, when: &str) {
        for flow in &self.friend {
            flow.wait_open(when);
            flow.assert_whole(when);
        }
        self.stranger.iter().for_each(|flow| flow.assert_never(when));
    }

    #[track_caller]
    fn assert_guest(&self, may: bool, when: &str) {
        self.guest.iter().for_each(|flow| if may { flow.wait_open(when) } else { flow.assert_shut(when) });
    }
}

/// The cluster in which another namespace is let in, too.
fn with_guest() -> String {
    CLUSTER.replace("ingress: [{from: [", "ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}, ")
        + "---\n{apiVersion: v1, kind: Namespace, metadata: {name: y, labels: {team: b}}}\n\
           ---\n{apiVersion: v1, kind: Pod, metadata: {name: guest, namespace: y}}\n"
}

/// The pods with their flows, and a guest that is let in.
struct Scene<'a> {
    trio: Trio<'a>,
    flows: Flows,
    guest: (Pod<'a>, Attached),
}

impl<'a> Scene<'a> {
    fn new(host: &'a Host) -> (Scene<'a>, Agent<'a>) {
        let (trio, agent) = Trio::new(host);
        let pod = host.pod("guest");
        let guest = host.add(&pod).kubernetes("y", "guest").result();
        let flows = Flows::start(&trio, &pod);
        let scene = Scene { trio, flows, guest: (pod, guest) };
        put(host, &with_guest());
        scene.wait_let_in(true, "at first");
        scene.flows.assert_kept("at first");
        scene.flows.assert_guest(true, "at first");
        (scene, agent)
    }

    fn is_let_in(&self) -> bool {
        let ip = self.guest.1.ipv4().expect("IPv4").to_string();
        // Beside the pair of its link and its address, which it may send with.
        let table = self.trio.table();
        let alone = table.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|word| *word == ip).count();
        assert!((1..=2).contains(&alone), "{table}");
        alone == 2
    }

    #[track_caller]
    fn wait_let_in(&self, may: bool, when: &str) {
        wait_for(&format!("{when}: the policy to be in force"), || (self.is_let_in() == may).then_some(()));
    }
}

/// The points that the thread of policies passes.
fn passed_by_policing(host: &Host, work: impl FnOnce()) -> Vec<Passed> {
    host.start_trace();
    work();
    let trace = host.end_trace();
    passes(trace.lines().filter(|point| point.starts_with("policing/")))
}

/// What takes the guest's right away, and gives it back.
fn turns() -> Vec<(&'static str, bool, String)> {
    let relabelled = with_guest().replace("labels: {team: b}}}\n", "labels: {team: c}}}\n");
    assert_ne!(relabelled, with_guest());
    vec![
        ("the policy names the guest no more", false, CLUSTER.to_owned()),
        ("the policy names the guest again", true, with_guest()),
        ("the guest's namespace has another label", false, relabelled),
        ("the guest's namespace has its label again", true, with_guest()),
    ]
}

// covers: FM-A04
#[test]
fn an_agent_killed_at_any_point_of_a_change_of_policies_opens_nothing_and_the_next_one_ends_the_change() {
    let host = Host::new();
    let (scene, mut agent) = Scene::new(&host);
    let mut points = Vec::new();
    for (turn, (what, may, cluster)) in turns().iter().enumerate() {
        let passed = passed_by_policing(&host, || {
            put(&host, cluster);
            scene.wait_let_in(*may, what);
            host.wait_point("policing/tables.changed", 1);
        });
        // A change is one batch, and what is taken away has an epoch written before.
        assert!(passed.len() >= if *may { 4 } else { 10 }, "{passed:?}");
        points.extend(passed.into_iter().map(|point| (turn, point)));
    }
    for (killed, point) in share("killed while policies change", points) {
        for (turn, (what, may, cluster)) in turns().iter().enumerate() {
            let when = format!("{what}, killed at {point:?} of turn {killed}");
            if turn == killed {
                host.arm(&format!("{} {} kill\n", point.0, point.1));
            }
            put(&host, cluster);
            if turn == killed {
                wait_for(&when, || (!host.is_armed() || scene.is_let_in() == *may).then_some(()));
                match host.disarmed() {
                    true => agent.kill(),
                    false => drop(agent.wait()),
                }
                // It is as it was or as it is to be.
                scene.flows.assert_kept(&format!("{when}, dead"));
                agent = start(&host);
            }
            scene.wait_let_in(*may, &when);
            scene.flows.assert_guest(*may, &when);
            scene.flows.assert_kept(&when);
        }
        host.assert_sound(&format!("killed at {point:?} of turn {killed}"));
    }
    agent.stop();
}

// covers: FM-A04 FM-C14
#[test]
fn an_agent_killed_at_any_point_of_its_start_opens_nothing_and_the_next_one_knows_what_changed_meanwhile() {
    let host = Host::new();
    let (scene, agent) = Scene::new(&host);
    agent.kill();
    let mut turn = (0..).map(|n| if n % 2 == 0 { (false, CLUSTER.to_owned()) } else { (true, with_guest()) });
    let mut next = || {
        let (may, cluster) = turn.next().expect("endless");
        put(&host, &cluster);
        may
    };
    let mut points = Vec::new();
    for _ in 0..2 {
        let may = next();
        points.push(passed_by_policing(&host, || {
            let agent = start(&host);
            scene.wait_let_in(may, "the first start");
            agent.kill();
        }));
    }
    assert!(points.iter().all(|passed| passed.len() > 20), "{points:?}");
    let pairs =
        points[0].iter().enumerate().map(|(n, point)| (point.clone(), points[1].get(n).unwrap_or(point).clone()));
    for (taken, given) in share("killed while it starts with policies", pairs) {
        for point in [taken, given] {
            let may = next();
            let when = format!("killed in its start at {point:?}, the guest may: {may}");
            host.arm(&format!("{} {} kill\n", point.0, point.1));
            let mut dying = host.agent().keep_config().args(&["--policy-dir", DIRECTORY]).no_wait().start();
            wait_for(&when, || (!host.is_armed() || scene.is_let_in() == may).then_some(()));
            match host.disarmed() {
                true => dying.kill(),
                false => drop(dying.wait()),
            }
            scene.flows.assert_kept(&format!("{when}, dead"));
            let agent = start(&host);
            scene.wait_let_in(may, &when);
            scene.flows.assert_guest(may, &when);
            scene.flows.assert_kept(&when);
            host.assert_sound(&when);
            agent.kill();
        }
    }
}

// covers: FM-A04
#[test]
fn an_agent_killed_at_any_point_of_policing_an_add_or_del_of_an_isolated_pod_leaves_none_of_it() {
    let host = Host::new();
    let (scene, mut agent) = Scene::new(&host);
    let pod = host.pod("late");
    let add = host.add(&pod).kubernetes("x", "late");
    let (mut points, mut link) = (Vec::new(), String::new());
    for turn in 0..2 {
        let passed = passed_by_policing(&host, || {
            if turn == 0 {
                link = add.result().host_link();
            } else {
                host.del(&pod).kubernetes("x", "late").done();
                wait_for("its part to go", || (!scene.trio.table().contains(&link)).then_some(()));
            }
        });
        points.extend(passed.into_iter().map(|point| (turn, point)));
    }
    assert!(points.len() > 5, "{points:?}");
    let is_as_ever = |when: &str| {
        scene.flows.assert_kept(when);
        scene.flows.assert_guest(true, when);
        host.assert_sound(when);
    };
    for (turn, point) in share("killed while an isolated pod comes or goes", points) {
        let when = format!("killed at {point:?} of {}", if turn == 0 { "ADD" } else { "DEL" });
        if turn == 1 {
            add.result();
        }
        host.arm(&format!("{} {} kill\n", point.0, point.1));
        let operation = if turn == 0 { host.add(&pod) } else { host.del(&pod) };
        let mut caller = operation.kubernetes("x", "late").launch();
        wait_for(&when, || (!host.is_armed() || caller.try_wait().expect("waitable").is_some()).then_some(()));
        if host.disarmed() {
            agent.kill();
        } else {
            agent.wait();
        }
        scene.flows.assert_kept(&format!("{when}, dead"));
        agent = start(&host);
        caller.wait().expect("waitable");
        host.del(&pod).kubernetes("x", "late").done();
        is_as_ever(&when);
        let late = add.result();
        for ip in late.ips() {
            assert!(scene.trio.friend.0.pings(ip), "{when}: a friend does not reach {ip}");
            assert!(!scene.trio.stranger.0.pings(ip), "{when}: a stranger reaches {ip}");
        }
        host.del(&pod).kubernetes("x", "late").done();
    }
    agent.stop();
}

/// What somebody does to the table while no agent is there that knows the policies, and whether it is noticed as a change of them.
const MEDDLING: [(&str, bool); 6] = [
    ("flush set inet flock src4", false),
    ("insert rule inet flock source accept", false),
    ("insert rule inet flock ingress accept", true),
    ("flush chain inet flock policy/x/closed/in", true),
    ("flush map inet flock in", true),
    ("flush ruleset", true),
];

#[test]
fn what_somebody_changes_of_what_an_earlier_agent_left_closes_what_it_was_about_and_opens_nothing() {
    for (what, closes) in MEDDLING {
        let host = Host::new();
        let (trio, agent) = Trio::new(&host);
        agent.kill();
        hide(&host);
        let agent = start(&host);
        agent.rounds_of("policing/tables.compare", 1);
        host.run_nft(what);
        agent.wait_log("somebody has changed flock's tables, they are put back");
        agent.rounds_of("policing/tables.compare", 2);
        trio.assert_closed(what);
        let friends = trio.ips().iter().all(|ip| trio.friend.0.pings(*ip));
        assert_eq!(friends, !closes, "{what}: what is not known any more is closed\n{}", trio.table());
        assert_eq!(
            agent.log().contains("somebody has changed what an earlier agent left of policies"),
            closes,
            "{what}"
        );
        show(&host);
        wait_for("policies to be known", || trio.ips().iter().all(|ip| trio.friend.0.pings(*ip)).then_some(()));
        trio.assert_closed(what);
        host.assert_sound(what);
    }
}

/// What another flock, or somebody, has made of the table.
const OTHER_FORMS: [&str; 4] = [
    "add map inet flock more { type ifname : mark; }",
    "add set inet flock more { type inet_service; }",
    "delete rule inet flock ingress handle HANDLE",
    "add element inet flock in { \"flock99\" : continue }",
];

#[test]
fn a_table_of_another_form_stays_as_it_is_until_policies_are_known_and_no_pod_is_made_meanwhile() {
    for what in OTHER_FORMS {
        let host = Host::new();
        let (trio, agent) = Trio::new(&host);
        agent.kill();
        hide(&host);
        let rules = host.run("nft -a list chain inet flock ingress");
        let errors =
            rules.lines().find(|line| line.contains("related accept")).and_then(|line| line.rsplit(' ').next());
        host.run_nft(&what.replace("HANDLE", errors.expect("a handle")));
        let before = trio.table();
        let agent = start(&host);
        agent.rounds_of("policing/tables.compare", 2);
        let pod = host.pod("new");
        let refused = host.add(&pod).kubernetes("x", "new").error();
        assert!(refused.text().contains("go on with table inet flock"), "{what}: {refused:?}");
        assert_eq!(trio.table(), before, "{what}");
        trio.assert_friends(what);
        trio.assert_closed(what);
        show(&host);
        wait_for("policies to be in force", || {
            agent.signal("HUP");
            host.differences().is_empty().then_some(()).filter(|()| trio.table() != before)
        });
        host.add(&pod).kubernetes("x", "new").result();
        trio.assert_friends(what);
        trio.assert_closed(what);
    }
}

#[test]
fn a_table_that_somebody_has_put_to_sleep_keeps_those_closed_that_it_was_about() {
    let host = Host::new();
    let (trio, agent) = Trio::new(&host);
    agent.kill();
    hide(&host);
    host.run_nft("add table inet flock { flags dormant; }");
    assert!(trio.stranger.0.pings(trio.ips()[0]), "it is asleep");
    let agent = start(&host);
    agent.rounds_of("policing/tables.compare", 2);
    trio.assert_closed("asleep");
    show(&host);
    wait_for("policies to be known", || trio.ips().iter().all(|ip| trio.friend.0.pings(*ip)).then_some(()));
    trio.assert_closed("awake");
}

#[test]
fn a_table_that_was_taken_away_while_no_agent_ran_is_told_of_and_is_back_with_the_policies() {
    let host = Host::new();
    let (trio, agent) = Trio::new(&host);
    agent.kill();
    hide(&host);
    host.run("nft delete table inet flock");
    let agent = start(&host);
    agent.wait_log("flock's table is gone, or there was none before");
    let pod = host.pod("late");
    let late = host.add(&pod).kubernetes("x", "late").result();
    assert!(!trio.stranger.0.pings(late.ips()[0]), "a new one is in quarantine");
    show(&host);
    wait_for("policies to be known", || (!trio.stranger.0.pings(trio.ips()[0])).then_some(()));
    trio.assert_closed("known");
    trio.assert_friends("known");
}

#[test]
fn a_flow_to_a_shared_address_that_comes_to_another_pod_is_judged_anew() {
    let host = Host::new();
    let (trio, agent) = Trio::new(&host);
    let extra = ["2001:db8:f::/64", "203.0.113.0/24"];
    agent.edit_config(&node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": extra})));
    wait_for("the prefixes", || (agent.log().matches("NodeConfig in force").count() > 1).then_some(()));
    let shared: Vec<IpAddr> = ["2001:db8:f::53", "203.0.113.5"].map(|ip| ip.parse().expect("literal")).into();
    let attach = |name: &str, role: &str| {
        let pod = host.pod(name);
        host.add(&pod).kubernetes("x", role).annotations(&[("anycast", "2001:db8:f::53,203.0.113.5")]).result();
        pod
    };
    for stays in [false, true] {
        let open = attach("open", "open");
        let flows: Vec<Flow> =
            shared.iter().map(|ip| Flow::start(&trio.stranger.0, &open, SocketAddr::new(*ip, 9000))).collect();
        flows.iter().for_each(|flow| flow.wait_open("alone"));
        if !stays {
            host.del(&open).done();
        }
        let closed = attach("late", "late");
        let hears: Vec<UdpSocket> = shared
            .iter()
            .map(|ip| {
                let bound = || UdpSocket::bind((*ip, 9000)).expect("an own address");
                Netns::open(&closed.netns()).expect("a namespace").run(bound).expect("entered")
            })
            .collect();
        if stays {
            host.del(&open).done();
        }
        for (flow, socket) in flows.iter().zip(&hears) {
            let next = flow.sent() + 2;
            wait_for("numbers to be sent", || (flow.sent() > next + 30).then_some(()));
            socket.set_nonblocking(true).expect("set");
            let heard = std::iter::from_fn(|| {
                let mut number = [0; 8];
                socket.recv(&mut number).ok().map(|_| u64::from_be_bytes(number))
            });
            assert_eq!(heard.filter(|number| *number >= next).count(), 0, "one {stays}: was allowed to the other pod");
        }
        drop(flows);
        host.del(&closed).done();
        [open, closed].into_iter().for_each(|pod| pod.vanish());
    }
}

#[test]
fn isolation_outlives_a_lost_epoch() {
    let host = Host::new();
    let (scene, agent) = Scene::new(&host);
    put(&host, CLUSTER);
    scene.wait_let_in(false, "revoked");
    scene.flows.assert_guest(false, "revoked");
    agent.kill();
    fs::remove_file(host.path("/run/flock/state/epoch")).expect("there");
    hide(&host);
    let agent = start(&host);
    agent.rounds_of("policing/tables.compare", 2);
    scene.flows.assert_kept("lost");
    scene.flows.assert_guest(false, "lost");
    show(&host);
    put(&host, &with_guest());
    scene.wait_let_in(true, "known");
    scene.flows.assert_guest(true, "known");
    put(&host, CLUSTER);
    scene.wait_let_in(false, "revoked again");
    scene.flows.assert_guest(false, "revoked again");
    scene.flows.assert_kept("revoked again");
}

#[test]
fn a_revocation_holds_where_its_number_cannot_be_written_and_the_next_agent_remembers_connections_again() {
    for fault in ["replace.create", "replace.renamed"] {
        let host = Host::new();
        let (scene, agent) = Scene::new(&host);
        let remembers = || host.run("nft list chain inet flock epoch").contains("accept");
        assert!(remembers());
        host.arm(&format!("policing/{fault} * errno 28\n"));
        put(&host, CLUSTER);
        agent.wait_log("which connections policies have allowed cannot be remembered for some days");
        scene.wait_let_in(false, fault);
        scene.flows.assert_guest(false, fault);
        scene.flows.assert_kept(fault);
        assert!(!remembers(), "no number is used that the next agent would not know of");
        agent.kill();
        host.disarm();
        let _agent = start(&host);
        wait_for("connections to be remembered", || remembers().then_some(()));
        scene.flows.assert_guest(false, &format!("{fault}, the next agent"));
        scene.flows.assert_kept(&format!("{fault}, the next agent"));
        host.assert_sound(fault);
    }
}

/// Who a pod is stands in the record alone. One that had policies is closed until it is made anew.
#[test]
fn an_isolated_pod_whose_record_is_lost_is_never_opened() {
    let host = Host::new();
    let (scene, agent) = Scene::new(&host);
    put(&host, CLUSTER);
    scene.wait_let_in(false, "revoked");
    agent.kill();
    fs::remove_file(host.path("/run/flock/state/leases.log")).expect("there");
    hide(&host);
    let agent = start(&host);
    agent.rounds_of("policing/tables.compare", 2);
    scene.flows.assert_kept("policies unknown");
    scene.flows.assert_guest(false, "policies unknown");
    show(&host);
    agent.wait_log("pod of a link that had policies is not known, so nothing reaches it");
    agent.rounds_of("policing/tables.compare", 2);
    scene.flows.assert_guest(false, "policies known");
    scene.flows.stranger.iter().for_each(|flow| flow.assert_never("policies known"));
    assert!(scene.trio.friend.0.pings(scene.guest.1.ips()[0]), "others are as free as they were");
    let Scene { trio, flows, .. } = scene;
    drop(flows);
    host.del(&trio.closed.0).kubernetes("x", "closed").done();
    host.del(&trio.friend.0).kubernetes("x", "friend").done();
    let [closed, friend] = [&trio.closed.0, &trio.friend.0];
    let made = host.add(closed).kubernetes("x", "closed").result();
    host.add(friend).kubernetes("x", "friend").result();
    for ip in made.ips() {
        wait_for("the friend", || friend.pings(ip).then_some(()));
        assert!(!trio.stranger.0.pings(ip), "made anew");
    }
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENOMEM: i32 = 12;
const ENOBUFS: i32 = 105;

#[test]
fn an_add_under_any_fault_of_the_packet_filter_works_or_fails_cleanly_and_a_change_is_in_force_with_the_next_round() {
    let host = Host::new();
    let (scene, agent) = Scene::new(&host);
    let pod = host.pod("late");
    let [add, del] = [host.add(&pod), host.del(&pod)].map(|verb| verb.kubernetes("x", "late"));
    let of_filter =
        |passed: Vec<Passed>| passed.into_iter().filter(|(point, _)| point.contains("/nftables.")).collect();
    let in_add: Vec<Passed> = of_filter(passed_by_policing(&host, || drop(add.result())));
    assert!(!in_add.is_empty());
    del.done();
    let faults = |point: &str| {
        let errnos = if point.ends_with("send") { vec![EPERM, ENOMEM, ENOBUFS] } else { vec![ENOENT, ENOBUFS, ENOMEM] };
        errnos.into_iter().map(|errno| format!("errno {errno}")).chain(["late".to_owned()]).collect::<Vec<_>>()
    };
    let all = in_add.iter().flat_map(|point| faults(&point.0).into_iter().map(move |fault| (point, fault)));
    // One fault is often got over; all of them are not.
    let all =
        all.flat_map(|(point, fault)| [point.1.to_string(), "*".to_owned()].map(|nth| (&point.0, nth, fault.clone())));
    for (point, nth, fault) in share("faults of the packet filter in ADD", all) {
        let when = format!("{point} {nth} {fault}");
        host.arm(&format!("{when}\n"));
        let outcome = add.run();
        host.disarm();
        scene.flows.assert_kept(&when);
        let late = if outcome.output.status.success() {
            Attached { result: serde_json::from_str(&outcome.succeeded()).expect("a result") }
        } else {
            let error = outcome.failed();
            assert!(error.text().contains("cannot be set") && host.flock_links().len() == 4, "{when}: {error:?}");
            add.result()
        };
        assert!(!scene.trio.stranger.0.pings(late.ips()[0]), "{when}");
        assert!(scene.trio.friend.0.pings(late.ips()[0]), "{when}");
        del.done();
        host.assert_sound(&when);
    }
    for (what, may, cluster) in turns() {
        for fault in ["nftables.send * errno 12", "nftables.receive * errno 105", "nftables.receive * late"] {
            let when = format!("{what}, {fault}");
            host.arm(&format!("policing/{fault}\n"));
            put(&host, &cluster);
            agent.wait_log("what pods may send and receive cannot be set");
            host.disarm();
            scene.wait_let_in(may, &when);
            scene.flows.assert_guest(may, &when);
            scene.flows.assert_kept(&when);
            host.assert_sound(&when);
        }
    }
}

#[test]
fn somebody_who_changes_tables_all_the_time_is_answered_now_and_then_and_said_once() {
    let host = Host::new();
    let (trio, agent) = Trio::new(&host);
    host.write(
        "/run/race.nft",
        "add chain inet flock foreign\ndelete chain inet flock foreign\nadd chain inet flock foreign\n",
    );
    host.write("/run/own.nft", "add table inet theirs\ndelete table inet theirs\n");
    host.start_trace();
    let began = Instant::now();
    for _ in 0..100 {
        host.run("nft -f /run/race.nft");
        host.run("nft -f /run/own.nft");
    }
    let batches = host.end_trace().lines().filter(|point| *point == "policing/tables.changed").count();
    // Ten at once, and then one in 20 s.
    let most = 12 + usize::try_from(began.elapsed().as_secs() / 20).expect("few");
    assert!((1..=most).contains(&batches), "{batches} answers to 100 changes");
    let said = agent.log().matches("somebody keeps changing flock's tables").count();
    assert_eq!(said, 1, "{}", agent.log());
    trio.assert_closed("meanwhile");
    trio.assert_friends("meanwhile");
    // The last of it is put back as well, although nothing is announced any more and others have the agent look at other things.
    let look_until = |what: &str, is_so: &dyn Fn(&str) -> bool| {
        wait_for(what, || {
            agent.signal("HUP");
            is_so(&trio.table()).then_some(())
        });
    };
    look_until("all to be put back", &|table| !table.contains("foreign"));
    host.run("nft delete table inet flock");
    look_until("the table to be back", &|table| table.contains("chain policy/x/closed/in"));
    trio.assert_closed("put back");
    // A pod that is made meanwhile does not wait for that.
    let pod = host.pod("late");
    host.add(&pod).kubernetes("x", "late").result();
    host.del(&pod).kubernetes("x", "late").done();
}

#[test]
fn what_was_allowed_before_policies_were_switched_off_is_judged_anew_when_they_are_on_again() {
    let host = Host::new();
    let (scene, agent) = Scene::new(&host);
    let mode = |mode: &str| {
        agent.edit_config(&node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "policy": {"mode": mode}})));
    };
    mode("none");
    wait_for("policies to be off", || (!scene.trio.table().contains("chain epoch")).then_some(()));
    put(&host, CLUSTER);
    agent.rounds_of("policing/tables.compare", 2);
    scene.flows.assert_guest(true, "while they are off");
    mode("enforce");
    wait_for("policies to be on", || scene.trio.table().contains("chain epoch").then_some(()));
    scene.wait_let_in(false, "on again");
    scene.flows.assert_guest(false, "on again");
    for flow in &scene.flows.friend {
        flow.wait_open("on again");
        flow.assert_whole("on again");
    }
}
