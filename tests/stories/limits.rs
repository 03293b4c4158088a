//! Stories of a node under callers that flood, break off, or are killed: the agent keeps serving, and what it takes for
//! them (threads, descriptors, memory, lines of the log, addresses) comes back.
//!
//! `FLOCK_ROUNDS=10000 cargo test --features failpoints --test stories -- limits::` makes the stories that repeat something as long
//! as one likes.

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cni::verb::Verb;
use flock::rpc::server::MAX_CONNECTIONS;
use flock::rpc::{connect_limit, plugin_limit};
use model::lease::Phase;
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::dice::Dice;
use crate::support::host::{Host, host_addresses, one_user_only};
use crate::support::pod::Pod;
use crate::support::programs::succeed;
use crate::support::scripted::{ask, line, socket_of};
use crate::support::share::share_of;
use crate::support::waiting::{PATIENCE, wait_for};

/// How often a story repeats itself.
fn repeats(usual: usize) -> usize {
    std::env::var("FLOCK_ROUNDS")
        .map_or_else(|_| share_of(usual), |text| text.parse().expect("FLOCK_ROUNDS is a number"))
}

/// A line of `/proc/PID/status`, in MiB.
fn memory(agent: &Agent<'_>, key: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of that name");
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

/// One hostile connection, and what is left open of it.
fn attack(socket: &Path, number: usize, random: &mut Dice) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(socket).ok()?;
    // What the agent does not want, it does not take.
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    match number % 8 {
        // Says nothing, and stays.
        0 | 1 => {}
        // A byte now, and never the rest.
        2 => drop(stream.write_all(b"{")),
        // 64 MiB without an end; now and then, since it takes its time.
        3 if number % 200 == 3 => {
            let piece = vec![b'x'; 1 << 16];
            (0..1024).take_while(|_| stream.write_all(&piece).is_ok()).for_each(drop);
        }
        3 => drop(stream.write_all(br#"{"op":"ADD","container_id":"x""#)),
        4 => {
            let bytes: Vec<u8> = (0..64).flat_map(|_| random.next().to_le_bytes()).collect();
            stream.write_all(&bytes).and_then(|()| stream.write_all(b"\n")).ok();
        }
        // Half closed, before and behind a request.
        5 => drop(stream.shutdown(Shutdown::Write)),
        6 => {
            stream.write_all(&line(&json!({"op": "STATUS"}))).ok();
            stream.shutdown(Shutdown::Write).ok();
        }
        // Never reads its answer.
        _ => drop(stream.write_all(&line(&json!({"op": "STATUS"})))),
    }
    Some(stream)
}

// covers: P-01 T-06 FM-E08 FM-F03
#[test]
fn ten_thousand_hostile_connections_keep_nobody_out_and_leave_nothing_behind() {
    let all = repeats(10_000);
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("a");
    // What is made once, at the first call.
    host.add(&pod).result();
    host.del(&pod).done();
    let (before, log_before) = (agent.holds(), agent.log().lines().count());
    let began = Instant::now();
    let socket = socket_of(&host);
    let next = AtomicUsize::new(0);
    let most = thread::scope(|scope| {
        let mut attackers = Vec::new();
        for seed in 1..=8u64 {
            let (next, socket) = (&next, &socket);
            attackers.push(scope.spawn(move || {
                let mut random = Dice::new(seed, 1);
                // Slow ones send a byte when this thread comes by; the oldest are let go.
                let mut open = VecDeque::new();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= all {
                        break;
                    }
                    open.extend(attack(socket, number, &mut random));
                    if open.len() > 100 {
                        open.pop_front();
                    }
                    let chosen = random.below(open.len().max(1));
                    if let Some(slow) = open.get_mut(chosen) {
                        slow.set_nonblocking(true).ok();
                        slow.write_all(b" ").ok();
                    }
                }
            }));
        }
        let mut most = before;
        while !attackers.iter().all(|attacker| attacker.is_finished()) {
            host.cni("STATUS").done();
            let outcome = host.add(&pod).run();
            assert!(outcome.elapsed < plugin_limit(Verb::Add), "{:?}", outcome.elapsed);
            outcome.succeeded();
            host.del(&pod).done();
            let now = agent.holds();
            most.descriptors = most.descriptors.max(now.descriptors);
            most.threads = most.threads.max(now.threads);
        }
        most
    });
    let (took, peak) = (began.elapsed(), memory(&agent, "VmHWM:"));
    // A thread that has answered is on its way out for a moment, while its place is taken by the next.
    assert!(most.threads <= before.threads + 2 * MAX_CONNECTIONS, "{most:?}");
    assert!(most.descriptors <= before.descriptors + 2 * MAX_CONNECTIONS, "{most:?}");
    assert!(peak < 64, "{peak} MiB at the peak");
    agent.comes_back_to(before);
    let rest = memory(&agent, "VmRSS:");
    assert!(rest < 32, "{rest} MiB are kept");
    // Ten lines of each kind in ten seconds, and there are a handful of kinds; what was served has its own line each.
    let log = agent.log();
    let lines = log.lines().skip(log_before).filter(|line| !line.contains("request served")).count();
    let bound = 10 * 5 * (took.as_secs() as usize / 10 + 2);
    assert!(lines <= bound, "{lines} lines in {took:?}, {bound} are allowed");
    eprintln!("{all} connections in {took:?}: {most:?}, peak {peak} MiB, kept {rest} MiB, {lines} lines");
    host.cni("STATUS").done();
    host.assert_empty();
}

fn request(op: &str, pod: &Pod<'_>) -> Value {
    json!({"op": op, "container_id": pod.name, "netns": pod.path(), "ifname": "eth0", "args": "", "path": "",
        // {"cniVersion":"1.1.0","name":"flock"}
        "stdin_data": "eyJjbmlWZXJzaW9uIjoiMS4xLjAiLCJuYW1lIjoiZmxvY2sifQ=="})
}

// covers: P-05 FM-E01
#[test]
fn calls_that_fail_in_every_way_leave_neither_descriptors_nor_threads() {
    let host = Host::new();
    let agent = host.agent().start();
    let socket = socket_of(&host);
    let (good, taken) = (host.pod("good"), host.pod("taken"));
    taken.run("ip link add eth0 type veth peer name other");
    std::fs::write(host.path("/run/file"), "x").unwrap();
    host.run("mkfifo /run/fifo");
    let ok = json!({});
    let add = |pod: &Pod<'_>| ask(&socket, &request("ADD", pod)).unwrap();
    let with = |key: &str, value: Value| {
        let mut request = request("ADD", &good);
        request[key] = value;
        ask(&socket, &request)
    };
    // {"cniVersion":"1.1.0","name":"flock","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"flock.fritzlab.net/ipv6":"x"}}}
    let bad_annotation = "eyJjbmlWZXJzaW9uIjoiMS4xLjAiLCJuYW1lIjoiZmxvY2siLCJydW50aW1lQ29uZmlnIjp7ImlvLmt1YmVybmV0ZXMuY3JpLnBvZC1hbm5vdGF0aW9ucyI6eyJmbG9jay5mcml0emxhYi5uZXQvaXB2NiI6IngifX19";
    let round = |number: usize| {
        let failed = match number % 8 {
            0 => with("netns", json!("/run/nowhere")),
            1 => with("netns", json!("/run/fifo")),
            2 => with("netns", json!("/proc/self/ns/mnt")),
            3 => with("netns", json!("/proc/self/ns/net")),
            4 => with("stdin_data", json!(bad_annotation)),
            5 => Some(add(&taken)),
            6 => with("container_id", json!("../x")),
            _ => {
                // Gone before, while, or after.
                let mut stream = UnixStream::connect(&socket).unwrap();
                stream.write_all(&line(&request("ADD", &taken))).unwrap();
                None
            }
        };
        assert!(failed.is_none_or(|answer| answer["code"].is_u64()), "round {number}");
        let added = add(&good);
        assert!(added["result"].is_object(), "{added}");
        // As runtimes do it: where many links go at once, the kernel may take longer than one DEL has.
        wait_for("the DEL", || (ask(&socket, &request("DEL", &good)) == Some(ok.clone())).then_some(()));
    };
    (0..16).for_each(round);
    ask(&socket, &request("DEL", &taken));
    let mut before = agent.holds();
    // Whoever came last may still be there: the least of several looks counts.
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(2));
        let now = agent.holds();
        before.descriptors = before.descriptors.min(now.descriptors);
        before.threads = before.threads.min(now.threads);
    }
    (0..repeats(500)).for_each(round);
    ask(&socket, &request("DEL", &taken));
    agent.comes_back_to(before);
    host.assert_empty();
}

// covers: FM-E01
#[test]
fn an_agent_without_descriptors_to_spare_says_try_again_later_and_is_well_when_it_has_some() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("a");
    let limit = |most: usize| {
        let (pid, most) = (agent.pid().to_string(), format!("--nofile={most}:"));
        succeed(std::process::Command::new("prlimit").args(["--pid", &pid, &most]));
    };
    // All threads have by then what they keep.
    let first = host.pod("first");
    host.add(&first).result();
    host.del(&first).done();
    // Enough for the connection and no more. The limit is one of numbers, and what the agent has inherited may leave gaps. What is
    // open for a moment only does not count.
    let held = || {
        let held = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("it runs");
        held.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect::<BTreeSet<usize>>()
    };
    let held = (0..50).fold(held(), |kept, _| {
        thread::sleep(Duration::from_millis(2));
        &kept & &held()
    });
    limit((0..).find(|number| !held.contains(number)).expect("a free number") + 1);
    let error = host.add(&pod).error();
    assert_eq!((error.code, error.msg.as_str()), (11, "flock-agent has run out of a resource"), "{error:?}");
    host.cni("STATUS").done();
    let error = host.del(&pod).error();
    assert_eq!(error.code, 11, "{error:?}");
    assert!(error.details.contains("Too many open files"), "{error:?}");
    limit(1000);
    host.del(&pod).done();
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
    host.del(&pod).done();
    host.assert_empty();
}

// covers: FM-F04
#[test]
fn what_somebody_else_has_put_in_the_place_of_flocks_directories_and_files_is_not_followed() {
    let host = Host::new();
    std::fs::create_dir(host.path("/run/elsewhere")).unwrap();
    std::fs::write(host.path("/run/precious"), "precious").unwrap();
    let shell = |script: &str| drop(succeed(host.command("sh").args(["-ec", script])));
    let refused = |plant: &str, path: &str, why: &str| {
        shell(&format!("rm -rf /run/flock; {plant}"));
        let mut agent = host.agent().no_wait().start();
        assert!(!agent.wait().success(), "{plant}");
        let line = agent.wait_log("flock-agent cannot run");
        assert!(line.contains(path) && line.contains(why), "{plant}: {line}");
        assert_eq!(std::fs::read_dir(host.path("/run/elsewhere")).unwrap().count(), 0, "{plant}");
    };
    refused("ln -s /run/elsewhere /run/flock", "/run/flock", "a symbolic link");
    refused("mkdir -m 0777 /run/flock", "/run/flock", "chmod go-w");
    let place = "/run/flock/state";
    let plant = |what: &str| format!("mkdir -m 0700 /run/flock; {what} {place}");
    refused(&plant("ln -s /run/elsewhere"), place, "a symbolic link");
    refused(&plant("mkfifo"), place, "something else");
    refused(&plant("mkdir -m 0770"), place, "chmod go-w");
    if !one_user_only() {
        refused(&format!("{}; chown 65534 {place}", plant("mkdir -m 0700")), place, "belongs to user 65534");
    }
    refused("mkdir -m 0700 /run/flock; mkfifo /run/flock/flock.sock", "/run/flock/flock.sock", "is not a socket");

    // An agent does without notes, and says so.
    shell("rm -rf /run/flock; mkdir -m 0700 /run/flock; ln -s /run/elsewhere /run/flock/deletes");
    let agent = host.agent().start();
    assert!(agent.wait_log("delete notes cannot be read").contains("a symbolic link"));
    assert_eq!(std::fs::read_dir(host.path("/run/elsewhere")).unwrap().count(), 0);
    agent.kill();

    // Links under the names of files that flock makes: what they lead to stays as it is.
    shell("rm -rf /run/flock; cd /run; mkdir -m 0700 flock flock/state flock/deletes");
    for name in ["flock.new", "state/leases.new", "state/leases.log", "deletes/spare-0", "deletes/x.delete"] {
        shell(&format!("ln -s /run/precious /run/flock/{name}"));
    }
    let agent = host.agent().start();
    let pod = host.pod("a");
    host.add(&pod).result();
    agent.kill();
    host.del(&pod).done();
    host.agent().start().stop();
    assert_eq!(std::fs::read_to_string(host.path("/run/precious")).unwrap(), "precious");
    assert_eq!(host.leases().len() + host.flock_links().len(), 0);
}

/// Has rounds made until the leases of pods that have vanished without a DEL are ended, which takes two of them.
fn wait_until_empty(host: &Host, agent: &Agent<'_>) {
    wait_for("the rounds to end what has vanished", || {
        agent.signal("HUP");
        (host.leases().is_empty() && host.flock_links().is_empty()).then_some(())
    });
    host.assert_empty();
}

// covers: P-05 A-12 FM-A13
#[test]
fn plugins_killed_at_any_moment_of_add_cost_no_address() {
    let host = Host::new();
    let agent = host.agent().start();
    let warm = host.pod("warm");
    host.add(&warm).result();
    host.del(&warm).done();
    let before = agent.holds();
    let all = repeats(200);
    let next = AtomicUsize::new(0);
    let (finished, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for seed in 1..=4u64 {
            let (host, next, finished, killed) = (&host, &next, &finished, &killed);
            scope.spawn(move || {
                let mut random = Dice::new(seed, 1);
                // Moves to where about half of the plugins are killed before their end.
                let mut longest = 20_000;
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= all {
                        return;
                    }
                    let pod = host.pod(&format!("p{number}"));
                    let call = host.add(&pod);
                    let mut plugin = call.launch();
                    // Not a wait for a fact: the moment is what is tried.
                    thread::sleep(Duration::from_micros(random.below(longest) as u64));
                    if plugin.try_wait().unwrap().is_some() {
                        finished.fetch_add(1, Ordering::SeqCst);
                        longest = (longest * 9 / 10).max(1_000);
                    } else {
                        killed.fetch_add(1, Ordering::SeqCst);
                        longest = (longest * 11 / 10).min(200_000);
                    }
                    plugin.kill().unwrap();
                    plugin.wait().unwrap();
                    // The runtime's DEL comes, or never does; the namespace goes in each case.
                    match number % 4 {
                        0 => host.del(&pod).done(),
                        1 => {
                            pod.vanish();
                            host.cni("DEL").container(&pod.name).ifname("eth0").done();
                            continue;
                        }
                        _ => {}
                    }
                    pod.vanish();
                }
            });
        }
    });
    eprintln!("{finished:?} plugins had ended by themselves, {killed:?} were killed");
    wait_until_empty(&host, &agent);
    agent.comes_back_to(before);
}

// covers: P-05 FM-A05
#[test]
fn a_plugin_killed_between_the_answer_and_its_own_output_costs_no_address() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods: Vec<Pod<'_>> = (0..8).map(|number| host.pod(&format!("p{number}"))).collect();
    for (number, pod) in pods.iter().enumerate() {
        let mut stream = UnixStream::connect(socket_of(&host)).unwrap();
        stream.write_all(&line(&request("ADD", pod))).unwrap();
        // The answer has been written: with the first byte all of it is there. Read in full, or hardly looked at.
        let mut answer = vec![0; if number % 2 == 0 { 1 } else { 64 * 1024 }];
        assert!(stream.read(&mut answer).unwrap() > 0);
    }
    // As far as the agent can know, these pods run.
    assert!(host.leases().iter().all(|lease| lease.phase == Phase::Committed));
    for (number, pod) in pods.iter().enumerate() {
        if number < 4 {
            host.del(pod).done();
        }
        pod.vanish();
    }
    wait_until_empty(&host, &agent);
}

// covers: P-05 T-06 FM-A13
#[test]
fn calls_that_nobody_waits_for_any_more_are_not_carried_out_when_the_agent_comes_to_them() {
    let host = Host::new();
    let agent = host.agent().start();
    let (gone, there) = (host.pod("gone"), host.pod("there"));
    host.add(&there).result();
    agent.signal("STOP");
    let mut plugin = host.add(&gone).launch();
    // It has read its input once it has a socket, and sent its request once it then waits in ppoll(2).
    wait_for("the plugin's request", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", plugin.id())).unwrap();
        let connected = files.flatten().any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
        });
        let waits = || std::fs::read_to_string(format!("/proc/{}/syscall", plugin.id())).unwrap().starts_with("271 ");
        (connected && waits()).then_some(())
    });
    plugin.kill().unwrap();
    plugin.wait().unwrap();
    // The other one gives up by itself.
    let status = host.cni("STATUS").run();
    assert_eq!(status.failed().code, 50);
    agent.signal("CONT");
    assert!(agent.wait_log("request not carried out").contains("gone"));
    host.cni("STATUS").done();
    assert_eq!(host.leases().len(), 1);
    assert_eq!(host.flock_links().len(), 1);
    assert!(!agent.log().contains("pod=default/gone"), "{}", agent.log());
    host.del(&there).done();
    host.assert_empty();
}

/// An operator, or a configuration tool in a loop.
// covers: FM-Q14
#[test]
fn as_many_signals_as_one_likes_make_one_round_that_is_still_to_come() {
    let host = Host::new();
    let agent = host.agent().start();
    host.start_trace();
    host.arm("reconcile/note.refill 1 hang 60000\n");
    agent.signal("HUP");
    host.wait_point("reconcile/note.refill", 1);
    let pid = agent.pid();
    succeed(host.command("sh").args(["-c", &format!("for i in $(seq 500); do kill -s HUP {pid}; done")]));
    host.disarm();
    agent.wait_log("looking again");
    let log = agent.stop();
    let rounds = host.end_trace().lines().filter(|point| *point == "reconcile/note.refill").count();
    assert!((1..=4).contains(&rounds), "{rounds} rounds");
    assert!(log.matches("looking again").count() < 50, "{log}");
}

// covers: FM-Q10
#[test]
fn an_allocations_file_that_is_far_too_long_is_refused_without_being_read() {
    let host = Host::new();
    host.run("truncate -s 8G /run/allocations.json");
    let agent = host.agent().start();
    let line = agent.wait_log("allocations cannot be imported");
    assert!(line.contains("longer than 16 MiB") && line.contains("/run/allocations.json"), "{line}");
    assert!(memory(&agent, "VmHWM:") < 64, "{} MiB", memory(&agent, "VmHWM:"));
    host.add(&host.pod("p")).result();
}

// ---------------------------------------------------------------------------------------------------------------------
// The log.

/// What no call below may take: far more than each needs, and far less than any limit that would hide a wait.
const PROMPT: Duration = Duration::from_secs(10);

/// A pipe that takes not one byte more.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while (&writer).write(&[b'#'; 4096]).is_ok() {}
    while (&writer).write(b"#").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Every verb, each in time, and many more calls that each leave a line.
fn calls_go_on(host: &Host, many: usize) {
    let pod = host.pod("a");
    wait_for("the agent", || host.cni("STATUS").run().output.status.success().then_some(()));
    for call in [host.add(&pod), host.cni("STATUS"), host.del(&pod), host.add(&pod)] {
        let outcome = call.run();
        outcome.succeeded();
        assert!(outcome.elapsed < PROMPT, "{:?}", outcome.elapsed);
    }
    for _ in 0..many {
        let began = Instant::now();
        let gone = json!({"op": "DEL", "container_id": "nobody", "ifname": "eth0", "netns": "", "stdin_data": conf()});
        assert_eq!(ask(&socket_of(host), &gone), Some(json!({})));
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    }
    for call in [host.cni("STATUS"), host.del(&pod)] {
        let outcome = call.run();
        outcome.succeeded();
        assert!(outcome.elapsed < PROMPT, "{:?}", outcome.elapsed);
    }
    pod.vanish();
}

/// A configuration as it stands in a request.
fn conf() -> Value {
    let pod_independent = serde_json::to_value(flock::rpc::message::Request {
        op: Verb::Del,
        container_id: String::new(),
        netns: String::new(),
        ifname: String::new(),
        args: String::new(),
        path: String::new(),
        stdin_data: br#"{"cniVersion":"1.1.0","name":"flock","type":"flock"}"#.to_vec(),
        call: None,
        left_ms: None,
        sent_ms: None,
    });
    pod_independent.unwrap()["stdin_data"].clone()
}

/// How many lines are said to be missing; every other one has to be whole.
fn missing(log: &str) -> usize {
    let lines = log.lines().inspect(|line| {
        let whole = line.starts_with("20") && line.as_bytes().get(23) == Some(&b'Z');
        assert!(whole, "{line}");
    });
    let said = lines.filter_map(|line| line.split("lines_dropped=").nth(1));
    said.map(|number| number.trim().parse::<usize>().unwrap()).sum()
}

fn deletes(log: &str) -> usize {
    log.lines().filter(|line| line.contains("op=DEL cid=nobody")).count()
}

// covers: FM-Q02
#[test]
fn a_log_that_nobody_reads_holds_up_no_call_and_what_it_lacks_is_said_when_it_is_read() {
    let host = Host::new();
    let (mut reader, writer) = full_pipe();
    let agent = host.agent().stderr(writer).start();
    let many = flock::process::log::queue::QUEUE_LINES + 1000;
    calls_go_on(&host, many);
    assert!(memory(&agent, "VmRSS:") < 64, "{} MiB", memory(&agent, "VmRSS:"));
    // Somebody begins to read, and there is room again when he has come to the gap.
    let (tell, told) = std::sync::mpsc::channel();
    let reading = thread::spawn(move || {
        let (mut text, mut piece) = (Vec::new(), [0; 4096]);
        while let Some(length) = reader.read(&mut piece).ok().filter(|length| *length > 0) {
            text.extend_from_slice(&piece[..length]);
            if text.windows(14).any(|word| word == b"lines_dropped=") {
                tell.send(()).ok();
            }
        }
        String::from_utf8(text).unwrap()
    });
    told.recv_timeout(PATIENCE).expect("the gap is said");
    agent.stop();
    let text = reading.join().unwrap();
    let log = text.trim_start_matches('#');
    assert!(log.contains("flock-agent listens"), "the first lines are the ones that were kept: {log}");
    assert!(log.lines().last().unwrap().contains("flock-agent stops"), "{log}");
    let (there, gone) = (deletes(log), missing(log));
    assert!(there < many && there + gone >= many, "{there} and {gone} of {many}");
    let times: Vec<&str> = log.lines().filter(|line| !line.contains("lines_dropped")).map(|line| &line[..24]).collect();
    assert!(times.is_sorted(), "{log}");
    host.assert_empty();
}

#[test]
fn a_log_whose_reader_has_gone_is_no_reason_to_stop() {
    let host = Host::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let agent = host.agent().stderr(writer).start();
    drop(reader);
    calls_go_on(&host, 100);
    agent.stop();
    host.assert_empty();
}

#[test]
fn a_log_whose_reader_is_slow_gets_every_line_in_order() {
    let host = Host::new();
    let (mut reader, writer) = full_pipe();
    // Shared with somebody who does not want to wait when he writes.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let agent = host.agent().stderr(writer).start();
    calls_go_on(&host, 300);
    let reading = thread::spawn(move || {
        let (mut text, mut piece) = (Vec::new(), [0; 777]);
        while let Some(length) = reader.read(&mut piece).ok().filter(|length| *length > 0) {
            text.extend_from_slice(&piece[..length]);
            // Slowness is what is tried.
            thread::sleep(Duration::from_micros(500));
        }
        String::from_utf8(text).unwrap()
    });
    agent.stop();
    let text = reading.join().unwrap();
    let log = text.trim_start_matches('#');
    assert_eq!((deletes(log), missing(log)), (300, 0), "{log}");
}

#[test]
fn a_log_on_a_full_disk_goes_on_when_there_is_room() {
    let host = Host::new();
    host.run("mkdir /run/log");
    host.run("mount -t tmpfs -o size=64k tmpfs /run/log");
    let file = host.path("/run/log/agent");
    let log = || std::fs::read_to_string(&file).unwrap();
    host.write("/run/log/ballast", &"x".repeat(40_000));
    let agent = host.agent().stderr(std::fs::File::create(&file).unwrap()).start();
    calls_go_on(&host, 500);
    host.run("rm /run/log/ballast");
    agent.signal("HUP");
    wait_for("the gap to be said", || log().contains("lines_dropped=").then_some(()));
    agent.stop();
    let text = log();
    assert!(deletes(&text) + missing(&text) >= 500, "{text}");
    assert!(text.lines().last().unwrap().contains("flock-agent stops"), "{text}");
}

/// The ways in which the agent ends by itself: a command line that is wrong, a start that fails, a defect.
#[test]
fn why_the_agent_ended_is_read_by_whoever_reads_and_holds_up_nothing_when_nobody_does() {
    let host = Host::new();
    std::fs::write(host.path("/run/file"), "").unwrap();
    let defect = |host: &Host| {
        host.arm("");
        wait_for("the agent", || host.cni("STATUS").run().output.status.success().then_some(()));
        host.arm("conn/rpc.read 1 panic\n");
        // Nobody answers any more.
        host.cni("STATUS").error();
    };
    let nothing = |_: &Host| {};
    type Then<'a> = &'a dyn Fn(&Host);
    let ends: [(&[&str], Then<'_>, Option<i32>, &str); 3] = [
        (&["--nonsense"], &nothing, Some(2), "unknown flag"),
        (&["--state-dir", "/run/file"], &nothing, Some(1), "flock-agent cannot run"),
        (&[], &defect, None, "flock-agent has a defect, please report it"),
    ];
    for (arguments, then, code, why) in ends {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut agent = host.agent().args(arguments).stderr(writer).start();
        then(&host);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains(why), "{arguments:?}: {text}");
        assert_eq!(agent.wait().code(), code, "{text}");

        let (_reader, writer) = full_pipe();
        let mut agent = host.agent().args(arguments).stderr(writer).start();
        then(&host);
        let began = Instant::now();
        assert_eq!(agent.wait().code(), code, "{arguments:?}");
        assert!(began.elapsed() < PROMPT, "{arguments:?}: {:?}", began.elapsed());
    }
}

/// Each limit of docs/design.md is the one in force.
#[test]
fn the_limits_are_written_down_as_they_are() {
    use flock::agent::events::pace;
    use flock::rpc::gate::LARGE_REQUESTS;
    use flock::rpc::server::SMALL_REQUEST;
    use flock::rpc::{FRAME_MAX, REQUEST_ARRIVAL};
    let design = include_str!("../../docs/design.md");
    let seconds = |limit: fn(Verb) -> Duration| {
        [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status]
            .map(|op| limit(op).as_secs_f64().to_string())
            .join(", ")
    };
    for (what, limit) in [
        ("requests in service at once", MAX_CONNECTIONS.to_string()),
        ("time for a request to arrive", format!("{} s", REQUEST_ARRIVAL.as_secs())),
        ("one message", format!("{} KiB", FRAME_MAX / 1024)),
        ("requests that count as small", format!("{} KiB", SMALL_REQUEST / 1024)),
        ("larger requests in memory at once", LARGE_REQUESTS.to_string()),
        ("a call of the plugin: ADD, DEL, CHECK, GC, STATUS", format!("{} s", seconds(plugin_limit))),
        ("of it, waiting for an agent that does not listen", format!("{} s", seconds(connect_limit))),
        ("connections of one call", flock::rpc::client::MAX_LOST.to_string()),
        ("delete notes that wait", flock::record::notes::MAX_NOTES.to_string()),
        ("network configuration", format!("{} KiB", cni::netconf::STDIN_MAX / 1024)),
        ("`CNI_ARGS`", format!("{} KiB", cni::env::ARGS_MAX / 1024)),
        ("`CNI_NETNS`", format!("{} bytes", cni::env::NETNS_MAX)),
        ("`CNI_CONTAINERID`", format!("{} bytes", model::addr::CONTAINER_ID_MAX)),
        ("text of an error", format!("{} bytes", cni::error::TEXT_MAX)),
        ("a NodeConfig", format!("{} KiB", model::configerror::TEXT_MAX / 1024)),
        (
            "lines of the log that wait for its reader",
            format!(
                "{}, {} KiB",
                flock::process::log::queue::QUEUE_LINES,
                flock::process::log::queue::QUEUE_BYTES / 1024
            ),
        ),
        (
            "lines of the log of one kind",
            format!("{} in {} s", flock::process::log::storms::LIMIT, flock::process::log::storms::WINDOW.as_secs()),
        ),
        ("Events: requests in a minute", pace::REQUESTS_MAX.to_string()),
        (&*format!("Events of one reason of the Node in {} s", pace::SERIES_MS / 1000), pace::NODE_MAX.to_string()),
        (&*format!("Events of pods in {} s", pace::SERIES_MS / 1000), pace::PODS_MAX.to_string()),
    ] {
        let row = format!("| {what} | {limit} |");
        assert!(design.lines().any(|line| line.starts_with(&row)), "docs/design.md lacks the row {row}");
    }
}
