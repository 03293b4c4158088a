//! Looks at everything while nobody calls: once all is well again, nothing may be lost, left or changed.

use std::net::IpAddr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use flock::record::boot_clock;
use model::addr::Attachment;

use crate::book::State;
use crate::caller::{Wants, pod};
use crate::keeper::Keeper;
use crate::samples::{Rest, Usage};
use crate::support::dice::Dice;
use crate::support::host::host_addresses;
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::trouble::Trouble;
use crate::walls;
use crate::world::World;
use crate::{CIDRS, MTU};

/// In how long everything has to be well again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Threads of the agent that stay once there was work for so many: 8 that serve connections, 8 that remove links, 4 that visit pods.
const STAY: usize = 20;

/// How many pods are asked to ping, beside the witness.
const SAMPLE: usize = 6;

/// The pods that live as long as the soak.
const WITNESSES: [&str; 3] = ["witness", walls::WALLED, walls::FRIEND];

/// Somebody else's things on the host, which flock must never touch.
const FOREIGN: &str = "ip link add foreign0 type veth peer name foreign1; ip link set foreign0 up; ip link set foreign1 up; \
    ip addr add 192.0.2.1/24 dev foreign0; ip addr add 2001:db8:ffff::1/64 dev foreign0 nodad; \
    ip route add 198.51.100.0/24 via 192.0.2.9 proto 77; ip -6 route add 2001:db8:eeee::/48 via 2001:db8:ffff::9 proto 77; \
    ip route add unreachable 203.0.113.0/24 proto 77; \
    ip neigh add 192.0.2.9 dev foreign0 lladdr 02:00:00:00:00:09 nud permanent; \
    ip -6 neigh add 2001:db8:ffff::9 dev foreign0 lladdr 02:00:00:00:00:09 nud permanent; \
    ip rule add from 192.0.2.0/24 lookup 77; \
    nft add table inet mine; nft add chain inet mine kept";

/// The judge.
pub struct Judge<'a> {
    world: &'a World<'a>,
    dice: Dice,
    foreign: String,
    /// What an agent uses that nobody calls.
    at_rest: Option<(usize, usize)>,
    probes: u64,
    /// How often somebody had changed the tables by the last round.
    damages: u64,
}

impl<'a> Judge<'a> {
    pub fn new(world: &'a World<'a>, seed: u64) -> Judge<'a> {
        crate::support::programs::succeed(world.host.command("sh").args(["-ec", FOREIGN]));
        world.host.run("ip netns add probe");
        walls::put(world.host, false);
        let mut judge =
            Judge { world, dice: Dice::new(seed, 3), foreign: String::new(), at_rest: None, probes: 0, damages: 0 };
        judge.foreign = judge.foreign_now();
        judge
    }

    fn foreign_now(&self) -> String {
        let lines = [
            "ip -d -j link show dev foreign0",
            "ip -d -j link show dev foreign1",
            "ip -j addr show dev foreign0 scope global",
            "ip -j -4 route show proto 77",
            "ip -j -6 route show proto 77",
            "ip -j neigh show dev foreign0 nud permanent",
            "ip -j rule",
            "ip -j -6 rule",
            "nft list table inet mine",
        ];
        let texts: Vec<String> = lines.into_iter().map(|line| self.world.host.run(line)).collect();
        texts.concat()
    }

    /// Pods that live as long as the soak.
    pub fn witnesses(&mut self) -> Result<(), String> {
        for name in WITNESSES {
            self.world.host.run(&format!("ip netns add {name}"));
            self.attach(name, name)?;
        }
        Ok(())
    }

    /// Pauses the callers, lets all become well, and compares. `all`: every pod is asked to ping.
    pub fn round(&mut self, keeper: &mut Keeper<'a>, trouble: &mut Trouble<'a>, all: bool) -> Result<(), String> {
        self.world.gate.open_for(0);
        trouble.relent(keeper)?;
        if !self.world.gate.close(Duration::from_secs(120)) {
            self.world.sound()?;
            return Err("a caller does not come back".into());
        }
        self.world.sound()?;
        keeper.watch()?;
        let agent = keeper.agent().ok_or("the agent has ended though nothing was wrong")?;
        agent.signal("HUP");
        self.probe()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            agent.signal("HUP");
            let mut found = self.world.host.differences();
            found.extend(self.world.book.lock().expect("unpoisoned").differences(&self.world.host.leases()));
            found.extend(self.host_differences());
            found.extend(self.wall_differences()?);
            if found.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("{} differences are left after {PATIENCE:?}:\n{}", found.len(), found.join("\n")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        agent.assert_all_threads_at_home();
        self.pings(all)?;
        let usage = self.rest(agent.pid())?;
        let pods = self.world.book.lock().expect("unpoisoned").standing().count();
        let mut samples = self.world.samples.lock().expect("unpoisoned");
        let rest = Rest {
            life: keeper.life,
            age: keeper.age().as_secs_f64(),
            rss: usage.rss,
            descriptors: usage.descriptors,
            threads: usage.threads,
            pods,
        };
        samples.rest(rest);
        drop(samples);
        trouble.forget();
        self.damages = self.damages();
        self.world.book.lock().expect("unpoisoned").turn_page(boot_clock::now_ms());
        self.world.count("rounds of the oracle");
        Ok(())
    }

    /// Who may does reach the walled pod once all is well. Who may not never does, and that is a finding at once, unless somebody
    /// has taken the table away since the last round.
    fn wall_differences(&self) -> Result<Vec<String>, String> {
        let walled = key(walls::WALLED);
        let ips = self.world.book.lock().expect("unpoisoned").get(&walled).map(|entry| entry.ips.clone());
        let mut found = Vec::new();
        for ip in ips.unwrap_or_default() {
            if pod(self.world, "witness").pings(ip) {
                let table = self.world.host.run("nft list ruleset");
                let finding = format!("a pod reaches {ip}, which a policy forbids:\n{table}");
                if self.damages() == self.damages {
                    return Err(finding);
                }
                found.push(finding);
            }
            if !pod(self.world, walls::FRIEND).pings(ip) {
                found.push(format!("a pod does not reach {ip}, which a policy lets it"));
            }
        }
        self.world.count("walls looked at");
        Ok(found)
    }

    fn damages(&self) -> u64 {
        self.world.tally().get("damage: tables").copied().unwrap_or_default()
    }

    /// What concerns no single pod.
    fn host_differences(&self) -> Vec<String> {
        let host = self.world.host;
        let mut found = Vec::new();
        if self.foreign_now() != self.foreign {
            found.push(format!("somebody else's things were changed:\n{}\nwas:\n{}", self.foreign_now(), self.foreign));
        }
        for (family, cidr) in [("-6", CIDRS[0]), ("-4", CIDRS[1])] {
            let routes = host.run(&format!("ip {family} route show type unreachable proto 102"));
            let prefixes: Vec<&str> = routes.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
            if prefixes != [cidr] {
                found.push(format!("unreachable routes of flock: {prefixes:?} instead of {cidr}"));
            }
        }
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            if host.run(&format!("cat /proc/sys/net/{key}")).trim() != "1" {
                found.push(format!("{key} is not 1"));
            }
        }
        found
    }

    /// Adds and deletes until the usual NodeConfig is in force.
    fn probe(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.probes += 1;
            let name = format!("probe{}", self.probes);
            self.attach(&name, "probe")?;
            let attachment = key(&name);
            let mut book = self.world.book.lock().expect("unpoisoned");
            let result = book.get(&attachment).map(|entry| entry.result.clone()).unwrap_or_default();
            book.leaves(&attachment, State::Unclear, boot_clock::now_ms());
            drop(book);
            self.call("DEL", &name, "probe").done();
            self.world.book.lock().expect("unpoisoned").gone(&attachment);
            let got = Attached { result };
            if Wants::Both.has(&got) && got.result["interfaces"][0]["mtu"] == MTU {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the NodeConfig is not in force {PATIENCE:?} after the edit: {}", got.result));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn call(&self, verb: &str, id: &str, netns: &str) -> crate::support::plugin::Cni<'a> {
        let namespace = if [walls::WALLED, walls::FRIEND].contains(&id) { walls::NAMESPACE } else { "default" };
        let call = self.world.host.cni(verb).container(id).ifname("eth0").kubernetes(namespace, id);
        call.netns(&format!("/run/netns/{netns}"))
    }

    fn attach(&mut self, id: &str, netns: &str) -> Result<(), String> {
        let attachment = key(id);
        self.world.book.lock().expect("unpoisoned").expect(&attachment, netns);
        let outcome = self.call("ADD", id, netns).run();
        if !outcome.output.status.success() {
            return Err(format!("ADD of {id} failed though all is well: {:?}", outcome.failed()));
        }
        let result = serde_json::from_str(&outcome.succeeded()).map_err(|error| error.to_string())?;
        self.world.book.lock().expect("unpoisoned").attached(&attachment, &Attached { result }, boot_clock::now_ms())
    }

    /// Some pods, or all, reach the host and a neighbour, by each address.
    fn pings(&mut self, all: bool) -> Result<(), String> {
        let standing: Vec<(String, Vec<IpAddr>)> = {
            let book = self.world.book.lock().expect("unpoisoned");
            book.standing()
                .map(|(attachment, entry)| (entry.pod.clone(), attachment, entry.ips.clone()))
                .filter(|(pod, attachment, _)| attachment.ifname.as_str() == "eth0" && pod != walls::WALLED)
                .map(|(pod, _, ips)| (pod, ips))
                .collect()
        };
        let mut chosen: Vec<usize> = (0..standing.len()).collect();
        self.dice.shuffle(&mut chosen);
        chosen.truncate(if all { standing.len() } else { SAMPLE });
        chosen.extend(standing.iter().position(|(name, _)| name == "witness"));
        for place in chosen {
            let (name, ips) = &standing[place];
            let neighbour = &standing[self.dice.below(standing.len())].1;
            // By a family that it has; and not itself, as its loopback interface may be down.
            let reachable = |to: &&IpAddr| !ips.contains(to) && ips.iter().any(|ip| ip.is_ipv6() == to.is_ipv6());
            for to in host_addresses().iter().chain(neighbour).filter(reachable) {
                // A packet may get lost on a machine that is busy with other things.
                if !(0..3).any(|_| pod(self.world, name).pings(*to)) {
                    return Err(format!(
                        "{name} {ips:?} does not reach {to}: {}",
                        self.autopsy(&pod(self.world, name), *to)
                    ));
                }
                self.world.count("pings");
            }
        }
        Ok(())
    }

    /// What the pod and the host know of a packet that does not arrive.
    fn autopsy(&self, pod: &Pod<'_>, to: IpAddr) -> String {
        let script = format!(
            "ip netns exec {name} ip addr; ip netns exec {name} ip route; ip netns exec {name} ip -6 route; \
             ip netns exec {name} ip neigh; ip route get {to}",
            name = pod.name
        );
        let output = self.world.host.command("sh").args(["-c", &script]).stdin(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    /// Descriptors and threads come back to what they are when nothing happens, but for threads that stay.
    fn rest(&mut self, pid: u32) -> Result<Usage, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let usage = Usage::of(pid).ok_or("the agent has ended though nothing was wrong")?;
            let (descriptors, threads) = *self.at_rest.get_or_insert((usage.descriptors, usage.threads));
            if usage.descriptors <= descriptors && usage.threads <= threads + STAY {
                return Ok(usage);
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the agent has {} descriptors and {} threads {PATIENCE:?} after the last call, and had {descriptors} and \
                     {threads} at first, and {STAY} threads may have stayed since",
                    usage.descriptors, usage.threads
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Nothing is left when all have gone.
    pub fn end(&mut self, keeper: &mut Keeper<'a>, trouble: &mut Trouble<'a>) -> Result<(), String> {
        self.round(keeper, trouble, false)?;
        for name in WITNESSES {
            self.call("DEL", name, name).done();
            self.world.book.lock().expect("unpoisoned").gone(&key(name));
        }
        for name in WITNESSES.into_iter().chain(["probe"]) {
            self.world.host.run(&format!("ip netns del {name}"));
        }
        self.world.host.assert_empty();
        Ok(())
    }
}

fn key(id: &str) -> Attachment {
    format!("{id}/eth0").parse().expect("a key")
}
