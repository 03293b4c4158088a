//! How long ADD and DEL take, beside the reference plugin `ptp` with `host-local` in the same run, and how long a restart
//! of the agent takes with 250 pods. Run by `make bench`.
//!
//! Absolute numbers mean little on another machine, or in another hour: read the ratios. `ptp` is given what favours it: no
//! duplicate address detection, an empty range, a tmpfs for its files. Both plugins are executed directly, in one private
//! host namespace, one pod after the other and then several at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Pods one after the other, per plugin.
const ROUNDS: usize = 120;
/// Pods of one burst.
const BURST: usize = 128;
/// Pods that stand while the agent is restarted.
const PODS: usize = 250;
/// Between two calls, so that the machine is as calm as a node.
const PAUSE: Duration = Duration::from_millis(10);

const FLOCK: &str =
    r#"{"cniVersion":"1.0.0","name":"flock","type":"flock","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{}}}"#;
const PTP: &str = r#"{"cniVersion":"1.0.0","name":"ptp","type":"ptp","ipam":{"type":"host-local","dataDir":"/run/host-local",
    "ranges":[[{"subnet":"2001:db8:9::/64"}],[{"subnet":"10.9.0.0/20"}]],"routes":[{"dst":"::/0"},{"dst":"0.0.0.0/0"}]}}"#;

struct Plugin {
    name: &'static str,
    binary: PathBuf,
    config: &'static str,
}

fn main() {
    if std::env::var_os("FLOCK_BENCH_INSIDE").is_none() {
        let error = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--"])
            .arg(std::env::current_exe().expect("a path"))
            .env("FLOCK_BENCH_INSIDE", "1")
            .exec();
        panic!("unshare (util-linux) cannot be started: {error}");
    }
    run("mount -t tmpfs tmpfs /run");
    fs::create_dir_all("/run/netns").expect("writable");
    run("ip link set lo up");
    let config = "{apiVersion: flock.fritzlab.net/v1alpha1, kind: NodeConfig, metadata: {name: n}, \
                  spec: {cidr6: '2001:db8:1::/64', cidr4: 10.25.0.0/20}}";
    fs::write("/run/node.yaml", config).expect("writable");
    let agent = start_agent();
    let reference = PathBuf::from(std::env::var_os("REFERENCE_PLUGINS").expect("REFERENCE_PLUGINS: run `make bench`"));
    let flock = Plugin { name: "flock", binary: env!("CARGO_BIN_EXE_flock").into(), config: FLOCK };
    let ptp = Plugin { name: "ptp", binary: reference.join("ptp"), config: PTP };

    one_by_one(&[&flock, &ptp]);
    for callers in [8, 32] {
        burst(&[&flock, &ptp], callers);
    }
    println!("agent: {} KiB resident after {} attachments", resident(&agent), ROUNDS + 6 * BURST);
    restart(agent, &flock);
}

fn run(line: &str) {
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().expect("a program")).args(words).status().expect("starts");
    assert!(status.success(), "{line}");
}

fn start_agent() -> Child {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_flock-agent"))
        .args(["--node-config", "/run/node.yaml", "--node-name", "n", "--import", "/run/none"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("flock-agent starts");
    let mut log = BufReader::new(agent.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("flock-agent listens") {
        line.clear();
        assert!(log.read_line(&mut line).expect("readable") > 0, "the agent ended");
    }
    thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
    agent
}

/// From the start of the process to its first answer, after `kill -9`, with its record and without.
fn restart(mut agent: Child, flock: &Plugin) {
    let pods: Vec<String> = (0..PODS).map(|n| format!("r{n}")).collect();
    for pod in &pods {
        run(&format!("ip netns add {pod}"));
        call(flock, "ADD", pod);
    }
    println!("restart with {PODS} pods, milliseconds until it serves, 5 times");
    for (what, with_record) in [("with its record", true), ("from the kernel alone", false)] {
        let mut times = Vec::new();
        for _ in 0..5 {
            agent.kill().expect("killable");
            agent.wait().expect("waitable");
            if !with_record {
                fs::remove_dir_all("/run/flock/state").expect("removable");
            }
            let began = Instant::now();
            agent = start_agent();
            times.push(began.elapsed().as_millis().to_string());
        }
        println!("  {what:<40} {}", times.join(" "));
    }
    stop(agent);
}

fn stop(mut agent: Child) {
    run(&format!("kill {}", agent.id()));
    agent.wait().expect("waitable");
}

fn resident(agent: &Child) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").to_owned()
}

fn make_pod(name: &str) {
    run(&format!("ip netns add {name}"));
    for scope in ["all", "default"] {
        run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.{scope}.accept_dad=0"));
    }
}

fn call(plugin: &Plugin, verb: &str, pod: &str) -> Duration {
    let began = Instant::now();
    let mut child = Command::new(&plugin.binary)
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", format!("{}-{pod}", plugin.name))
        .env("CNI_NETNS", format!("/run/netns/{pod}"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", plugin.binary.parent().expect("a directory"))
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    child.stdin.take().expect("piped").write_all(plugin.config.as_bytes()).expect("writable");
    let output = child.wait_with_output().expect("waitable");
    let took = began.elapsed();
    assert!(output.status.success(), "{} {verb}: {}", plugin.name, String::from_utf8_lossy(&output.stdout));
    took
}

fn one_by_one(plugins: &[&Plugin]) {
    let mut times: BTreeMap<(&str, &str), Vec<Duration>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for plugin in plugins {
            let pod = format!("{}{round}", plugin.name);
            make_pod(&pod);
            thread::sleep(PAUSE);
            times.entry(("ADD", plugin.name)).or_default().push(call(plugin, "ADD", &pod));
            thread::sleep(PAUSE);
            times.entry(("DEL", plugin.name)).or_default().push(call(plugin, "DEL", &pod));
            run(&format!("ip netns del {pod}"));
        }
    }
    println!("one by one, {ROUNDS} pods each, microseconds        p50      p90      p99");
    for verb in ["ADD", "DEL"] {
        let mut medians = Vec::new();
        for plugin in plugins {
            let times = times.get_mut(&(verb, plugin.name)).expect("measured");
            times.sort();
            let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_micros();
            println!("  {verb} {:<36} {:>9} {:>8} {:>8}", plugin.name, at(50), at(90), at(99));
            medians.push(at(50) as f64);
        }
        println!("  {verb} ratio of p50 {:>33.3}", medians[0] / medians[1]);
    }
}

fn burst(plugins: &[&Plugin], callers: usize) {
    let mut rates: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..3 {
        for plugin in plugins {
            let pods: Vec<String> = (0..BURST).map(|n| format!("{}b{round}x{n}", plugin.name)).collect();
            pods.iter().for_each(|pod| make_pod(pod));
            for verb in ["ADD", "DEL"] {
                let next = AtomicUsize::new(0);
                let began = Instant::now();
                thread::scope(|scope| {
                    for _ in 0..callers {
                        scope.spawn(|| {
                            while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                                call(plugin, verb, pod);
                            }
                        });
                    }
                });
                rates.entry((verb, plugin.name)).or_default().push(BURST as f64 / began.elapsed().as_secs_f64());
            }
            pods.iter().for_each(|pod| run(&format!("ip netns del {pod}")));
        }
    }
    println!("{callers} callers, {BURST} pods at once, median of 3, calls per second");
    for verb in ["ADD", "DEL"] {
        let mut medians = Vec::new();
        for plugin in plugins {
            let rates = rates.get_mut(&(verb, plugin.name)).expect("measured");
            rates.sort_by(f64::total_cmp);
            println!("  {verb} {:<36} {:>9.0}", plugin.name, rates[1]);
            medians.push(rates[1]);
        }
        println!("  {verb} ratio {:>40.1}", medians[0] / medians[1]);
    }
}
