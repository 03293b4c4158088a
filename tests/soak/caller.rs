//! One of several callers at once: a runtime that adds, checks and deletes pods of its own, in good and in bad manners.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use flock::record::boot_clock;
use model::addr::Attachment;
use serde_json::{Value, json};

use crate::book::State;
use crate::support::dice::Dice;
use crate::support::outcome::{Attached, Outcome};
use crate::support::plugin::Cni;
use crate::support::pod::Pod;
use crate::weather::{Mark, Promise};
use crate::world::World;

/// The most callers at once.
pub const CALLERS: usize = 8;

/// What a plugin takes at most for ADD, and for everything else, with room for a machine under load.
const LIMIT_ADD: Duration = Duration::from_secs(75);
const LIMIT: Duration = Duration::from_secs(40);

/// A pod of this caller.
#[derive(Clone)]
struct Sandbox {
    name: String,
    interfaces: Vec<&'static str>,
    /// Its namespace was deleted by hand.
    vanished: bool,
    /// A call has failed, so that DEL is due.
    spoilt: bool,
}

/// A caller.
pub struct Caller<'a> {
    world: &'a World<'a>,
    number: usize,
    dice: Dice,
    made: u64,
    pods: Vec<Sandbox>,
}

impl<'a> Caller<'a> {
    pub fn new(world: &'a World<'a>, number: usize, seed: u64) -> Caller<'a> {
        Caller { world, number, dice: Dice::new(seed, 100 + number as u64), made: 0, pods: Vec::new() }
    }

    /// Calls until the soak is over. Returns the error of the first broken promise.
    pub fn work(&mut self) -> Result<(), String> {
        let world = self.world;
        while !world.is_over() {
            let mut outcome = Ok(());
            world.gate.pass(self.number, || outcome = self.act());
            outcome?;
            // Some calls follow each other at once, others do not: a rhythm would hide what depends on time.
            if self.dice.chance(50) {
                thread::sleep(self.dice.millis(0, 40));
            }
        }
        Ok(())
    }

    /// Deletes all that is left.
    pub fn leave(&mut self) -> Result<(), String> {
        while let Some(pod) = self.pods.pop() {
            self.delete(&pod)?;
            self.remove_namespace(&pod);
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), String> {
        if let Some(place) = self.pods.iter().position(|pod| pod.spoilt)
            && self.dice.chance(60)
        {
            return self.remove(place);
        }
        let share = self.world.target.load(Ordering::Relaxed).div_ceil(CALLERS);
        let place = (!self.pods.is_empty()).then(|| self.dice.below(self.pods.len().max(1)));
        let sound = place.filter(|place| !self.pods[*place].vanished && !self.pods[*place].spoilt);
        match (self.dice.below(100), place, sound) {
            (0..70, ..) if self.pods.len() < share => self.create(),
            (0..70, Some(place), _) if self.pods.len() > share => self.remove(place),
            (0..35, ..) => self.create(),
            (35..70, Some(place), _) => self.remove(place),
            (70..82, _, Some(place)) => self.check(place),
            (82..86, _, Some(place)) => self.second_interface(place),
            (86..89, _, Some(place)) => self.add_again(place),
            (89..94, ..) => self.status(),
            (94..97, ..) => self.collect(),
            _ => Ok(()),
        }
    }

    // Making pods.

    fn create(&mut self) -> Result<(), String> {
        self.made += 1;
        let name = format!("c{}n{}", self.number, self.made);
        self.world.host.run(&format!("ip netns add {name}"));
        let mut pod = Sandbox { name, interfaces: vec!["eth0"], vanished: false, spoilt: false };
        let attached = match self.dice.below(100) {
            0..6 => self.add_interrupted(&pod),
            6..9 => self.add_twice_at_once(&pod),
            9..12 => self.add_and_delete_at_once(&pod),
            12..18 => self.add(&pod, "eth0", Wants::One("ipv6")),
            18..24 => self.add(&pod, "eth0", Wants::One("ipv4")),
            _ => self.add(&pod, "eth0", Wants::Both),
        };
        pod.spoilt = !attached?;
        self.pods.push(pod);
        Ok(())
    }

    fn second_interface(&mut self, place: usize) -> Result<(), String> {
        if self.pods[place].interfaces.len() > 1 {
            return Ok(());
        }
        self.world.count("ADD of a second interface");
        self.pods[place].interfaces.push("net1");
        let pod = self.pods[place].clone();
        self.pods[place].spoilt = !self.add(&pod, "net1", Wants::Both)?;
        Ok(())
    }

    /// An ordinary ADD. True if it succeeded.
    fn add(&mut self, pod: &Sandbox, ifname: &str, wants: Wants) -> Result<bool, String> {
        let attachment = attachment(pod, ifname);
        self.expect(&attachment, pod);
        let call = wants.told(self.call("ADD", pod, ifname));
        let mark = self.world.weather.now();
        let outcome = self.run(&call, "ADD", LIMIT_ADD)?;
        self.judge_add(&attachment, &outcome, wants, &mark)
    }

    /// The plugin is killed in the middle of an ADD.
    fn add_interrupted(&mut self, pod: &Sandbox) -> Result<bool, String> {
        self.world.count("ADD whose plugin is killed");
        self.expect(&attachment(pod, "eth0"), pod);
        self.interrupt(&self.call("ADD", pod, "eth0"));
        Ok(false)
    }

    fn add_twice_at_once(&mut self, pod: &Sandbox) -> Result<bool, String> {
        self.world.count("ADD twice at once");
        let attachment = attachment(pod, "eth0");
        self.expect(&attachment, pod);
        let call = self.call("ADD", pod, "eth0");
        let mark = self.world.weather.now();
        let outcomes = self.at_once(&call, &call);
        match outcomes.iter().filter(|outcome| outcome.output.status.success()).count() {
            2 => Err(format!("two ADDs of {attachment} at once have both succeeded")),
            1 => {
                let winner = outcomes.iter().find(|outcome| outcome.output.status.success()).expect("one");
                self.judge_add(&attachment, winner, Wants::Both, &mark)
            }
            _ => self.judge_add(&attachment, &outcomes[0], Wants::Both, &mark),
        }
    }

    fn add_and_delete_at_once(&mut self, pod: &Sandbox) -> Result<bool, String> {
        self.world.count("ADD and DEL at once");
        self.expect(&attachment(pod, "eth0"), pod);
        let mark = self.world.weather.now();
        let outcomes = self.at_once(&self.call("ADD", pod, "eth0"), &self.call("DEL", pod, "eth0"));
        self.judge_delete(&outcomes[1], &mark)?;
        Ok(false)
    }

    /// A second ADD of what stands is refused and changes nothing.
    fn add_again(&mut self, place: usize) -> Result<(), String> {
        let pod = self.pods[place].clone();
        let mark = self.world.weather.now();
        let outcome = self.run(&self.call("ADD", &pod, "eth0"), "ADD again", LIMIT_ADD)?;
        if outcome.output.status.success() {
            return Err(format!("a second ADD of {} has succeeded: {}", pod.name, outcome.stdout()));
        }
        let error = outcome.failed();
        if error.code != 4 && self.world.weather.was_calm(&mark, Promise::Add) {
            return Err(format!("a second ADD of {} failed in another way than it should: {error:?}", pod.name));
        }
        Ok(())
    }

    fn judge_add(&self, attachment: &Attachment, outcome: &Outcome, wants: Wants, mark: &Mark) -> Result<bool, String> {
        let weather = &self.world.weather;
        if !outcome.output.status.success() {
            let error = outcome.failed();
            if weather.was_calm(mark, Promise::Add) {
                return Err(format!("ADD of {attachment} failed in calm weather: {error:?}"));
            }
            self.world.count("ADD refused in bad weather");
            return Ok(false);
        }
        let got = Attached { result: serde_json::from_str(&outcome.succeeded()).map_err(|e| e.to_string())? };
        self.world.book.lock().expect("unpoisoned").attached(attachment, &got, boot_clock::now_ms())?;
        if weather.was_calm(mark, Promise::Addresses) && !wants.has(&got) {
            return Err(format!("ADD of {attachment} gave {:?} in calm weather", got.ips()));
        }
        self.world.samples.lock().expect("unpoisoned").add(outcome.elapsed);
        Ok(true)
    }

    // Unmaking them.

    fn remove(&mut self, place: usize) -> Result<(), String> {
        let mut pod = self.pods.swap_remove(place);
        if pod.vanished {
            self.world.count("DEL long after the namespace");
            return self.delete(&pod);
        }
        match self.dice.below(100) {
            0..8 => {
                self.world.count("DEL repeated");
                self.delete(&pod)?;
                self.delete(&pod)?;
            }
            8..16 => {
                self.world.count("DEL twice at once");
                for ifname in &pod.interfaces {
                    let attachment = attachment(&pod, ifname);
                    self.leaves(&attachment, State::Unclear);
                    let call = self.call("DEL", &pod, ifname);
                    let mark = self.world.weather.now();
                    let outcomes = self.at_once(&call, &call);
                    let done = [self.judge_delete(&outcomes[0], &mark)?, self.judge_delete(&outcomes[1], &mark)?];
                    if done.contains(&true) {
                        self.world.book.lock().expect("unpoisoned").gone(&attachment);
                    }
                }
                self.delete(&pod)?;
            }
            16..24 => {
                self.world.count("DEL without a namespace");
                self.delete_with(&pod, |call| call.no_env("CNI_NETNS"))?;
            }
            24..32 => {
                self.world.count("DEL with somebody else's namespace");
                let other = self.pods.first().map_or("witness", |other| &other.name);
                let path = format!("/run/netns/{other}");
                self.delete_with(&pod, |call| call.netns(&path))?;
            }
            32..40 => {
                self.world.count("namespace deleted before DEL");
                self.vanish(&mut pod);
                self.delete(&pod)?;
                return Ok(());
            }
            40..46 => {
                self.world.count("namespace deleted, no DEL");
                self.vanish(&mut pod);
                if self.dice.chance(50) {
                    self.pods.push(pod);
                }
                return Ok(());
            }
            46..52 => {
                self.world.count("DEL whose plugin is killed");
                for ifname in &pod.interfaces {
                    self.leaves(&attachment(&pod, ifname), State::Unclear);
                    let call = self.call("DEL", &pod, ifname);
                    self.interrupt(&call);
                }
                self.delete(&pod)?;
            }
            _ => self.delete(&pod)?,
        }
        self.remove_namespace(&pod);
        Ok(())
    }

    /// DEL of all interfaces, until it is done.
    fn delete(&mut self, pod: &Sandbox) -> Result<(), String> {
        self.delete_with(pod, |call| call)
    }

    fn delete_with(&mut self, pod: &Sandbox, manner: impl Fn(Cni<'a>) -> Cni<'a>) -> Result<(), String> {
        for ifname in &pod.interfaces {
            let attachment = attachment(pod, ifname);
            self.leaves(&attachment, State::Unclear);
            loop {
                let mark = self.world.weather.now();
                let outcome = self.run(&manner(self.call("DEL", pod, ifname)), "DEL", LIMIT)?;
                if self.judge_delete(&outcome, &mark)? {
                    break;
                }
                // As kubelet does, only sooner.
                thread::sleep(self.dice.millis(50, 200));
                self.world.sound()?;
            }
            self.world.book.lock().expect("unpoisoned").gone(&attachment);
        }
        Ok(())
    }

    fn judge_delete(&self, outcome: &Outcome, mark: &Mark) -> Result<bool, String> {
        if outcome.output.status.success() {
            self.world.samples.lock().expect("unpoisoned").delete(outcome.elapsed);
            return Ok(true);
        }
        let error = outcome.failed();
        if self.world.weather.was_calm(mark, Promise::Del) {
            return Err(format!("DEL failed in calm weather: {error:?}"));
        }
        self.world.count("DEL refused in bad weather");
        Ok(false)
    }

    fn vanish(&self, pod: &mut Sandbox) {
        for ifname in &pod.interfaces {
            self.leaves(&attachment(pod, ifname), State::Vanished);
        }
        self.remove_namespace(pod);
        pod.vanished = true;
    }

    fn remove_namespace(&self, pod: &Sandbox) {
        if !pod.vanished {
            self.world.host.run(&format!("ip netns del {}", pod.name));
        }
    }

    // The other verbs.

    fn check(&mut self, place: usize) -> Result<(), String> {
        let pod = &self.pods[place];
        let ifname = *self.dice.pick(&pod.interfaces);
        let attachment = attachment(pod, ifname);
        let result = match self.world.book.lock().expect("unpoisoned").get(&attachment) {
            Some(entry) if entry.state == State::Attached => entry.result.clone(),
            _ => return Ok(()),
        };
        let call = self.call("CHECK", pod, ifname).conf("prevResult", result);
        self.promised(Promise::Check, "CHECK", &call)
    }

    fn status(&mut self) -> Result<(), String> {
        self.promised(Promise::Status, "STATUS", &self.world.host.cni("STATUS"))
    }

    /// GC with a list of all that is valid, of every caller.
    fn collect(&mut self) -> Result<(), String> {
        let valid = self.world.book.lock().expect("unpoisoned").valid();
        let list: Vec<Value> = valid
            .iter()
            .map(|a| json!({"containerID": a.container_id.to_string(), "ifname": a.ifname.to_string()}))
            .collect();
        let call = self.world.host.cni("GC").conf("cni.dev/valid-attachments", list.into());
        let mark = self.world.weather.now();
        let outcome = self.run(&call, "GC", LIMIT)?;
        if outcome.output.status.success() || !self.world.weather.was_calm(&mark, Promise::Gc) {
            return Ok(());
        }
        // The list was made before the call, so that another caller's new pod may be missing from it. It is kept.
        let error = outcome.failed();
        let kept = error.details.split("; ").all(|one| one.ends_with(" is alive"));
        if kept { Ok(()) } else { Err(format!("GC failed in calm weather: {error:?}")) }
    }

    fn promised(&self, promise: Promise, what: &'static str, call: &Cni<'_>) -> Result<(), String> {
        let mark = self.world.weather.now();
        let outcome = self.run(call, what, LIMIT)?;
        if outcome.output.status.success() {
            return Ok(());
        }
        let error = outcome.failed();
        if self.world.weather.was_calm(&mark, promise) {
            return Err(format!(
                "{what} failed in calm weather: {error:?}: {}",
                String::from_utf8_lossy(&call.input())
            ));
        }
        Ok(())
    }

    // Calls.

    fn call(&self, verb: &str, pod: &Sandbox, ifname: &str) -> Cni<'a> {
        let call = self.world.host.cni(verb).container(&pod.name).ifname(ifname);
        call.netns(&format!("/run/netns/{}", pod.name)).kubernetes("default", &pod.name)
    }

    fn run(&self, call: &Cni<'_>, what: &'static str, limit: Duration) -> Result<Outcome, String> {
        let outcome = call.run();
        self.world.count(what);
        self.world.samples.lock().expect("unpoisoned").operation();
        if outcome.elapsed > limit {
            return Err(format!("{what} took {:?}", outcome.elapsed));
        }
        Ok(outcome)
    }

    fn at_once(&self, one: &Cni<'_>, other: &Cni<'_>) -> [Outcome; 2] {
        thread::scope(|scope| {
            let one = scope.spawn(|| one.run());
            let other = other.run();
            [one.join().expect("no panic"), other]
        })
    }

    /// Starts a call and kills the plugin after some milliseconds.
    fn interrupt(&mut self, call: &Cni<'_>) {
        let mut child = call.launch();
        thread::sleep(self.dice.millis(0, 25));
        child.kill().ok();
        child.wait().expect("waitable");
    }

    fn expect(&self, attachment: &Attachment, pod: &Sandbox) {
        self.world.book.lock().expect("unpoisoned").expect(attachment, &pod.name);
    }

    fn leaves(&self, attachment: &Attachment, state: State) {
        self.world.book.lock().expect("unpoisoned").leaves(attachment, state, boot_clock::now_ms());
    }
}

/// Which families a pod asks for.
#[derive(Clone, Copy)]
pub enum Wants {
    Both,
    /// This one only.
    One(&'static str),
}

impl Wants {
    fn told<'a>(self, call: Cni<'a>) -> Cni<'a> {
        match self {
            Wants::Both => call,
            Wants::One("ipv6") => call.annotations(&[("ipv6", "true"), ("ipv4", "false")]),
            Wants::One(_) => call.annotations(&[("ipv4", "true"), ("ipv6", "false")]),
        }
    }

    /// Just these families, from the usual ranges.
    pub fn has(self, got: &Attached) -> bool {
        let (six, four) = match self {
            Wants::Both => (true, true),
            Wants::One(family) => (family == "ipv6", family == "ipv4"),
        };
        let usual = got
            .ips()
            .iter()
            .all(|ip| crate::CIDRS.iter().any(|cidr| cidr.parse::<ipnet::IpNet>().expect("literal").contains(ip)));
        usual && got.ipv6().is_some() == six && got.ipv4().is_some() == four
    }
}

fn attachment(pod: &Sandbox, ifname: &str) -> Attachment {
    format!("{}/{ifname}", pod.name).parse().expect("a key")
}

/// The pod of this name, for commands in it.
pub fn pod<'a>(world: &World<'a>, name: &str) -> Pod<'a> {
    Pod { host: world.host, name: name.into() }
}
