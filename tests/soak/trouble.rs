//! What happens to a node: the agent dies, the NodeConfig is edited, disk and kernel fail, people take things away.
//!
//! Each trouble says which promises it suspends and ends what it began. All kinds come up before one comes up again.

use std::fs;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::caller::CALLERS;
use crate::keeper::{AWAY, Keeper};
use crate::support::dice::Dice;
use crate::support::failpoints::ARMED;
use crate::support::manifests::node_config_spec;
use crate::walls;
use crate::weather::{Promise, Storm};
use crate::world::World;
use crate::{CIDRS, MTU};

/// Fills the state directory.
const FILLER: &str = "/run/flock/state/filler";

/// Every promise but that of DEL, which holds on a broken disk as well.
const BUT_DEL: &[Promise] = &[Promise::Add, Promise::Check, Promise::Status, Promise::Gc];
const EVERY: &[Promise] = &[Promise::Add, Promise::Del, Promise::Check, Promise::Status, Promise::Gc];

/// The places where an agent is killed by itself.
const PLACES: [&str; 26] = [
    "conn/reserve",
    "conn/wire",
    "conn/commit",
    "conn/answer",
    "conn/unwire",
    "conn/release",
    "conn/netlink.request",
    "conn/netlink.receive",
    "conn/rpc.read",
    "conn/rpc.answer",
    "conn/rpc.answered",
    "ledger/disk.append",
    "ledger/disk.appended",
    "ledger/disk.sync",
    "ledger/disk.synced",
    "netns/netns.entered",
    "remove/netlink.send",
    "reconcile/compare",
    "reconcile/netlink.dump",
    "main/disk.rename",
    "main/netlink.dump",
    "main/compare",
    "main/socket.rename",
    "policing/nftables.send",
    "policing/tables.changed",
    "policing/disk.rename",
];

/// One kind of trouble.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Kill,
    KillAndWait,
    Terminate,
    KillAtPoint,
    KillInStart,
    OtherRanges,
    InvalidEdit,
    OtherMtu,
    OneFamily,
    FileGone,
    DiskFails,
    DiskSlow,
    DiskFull,
    NotesStay,
    NetlinkRefuses,
    NetlinkLate,
    ListsInterrupted,
    AnswersLost,
    NamespacesSlow,
    LinksDamaged,
    HostDamaged,
    PoliciesEdited,
    PoliciesAway,
    FilterFails,
    TablesDamaged,
    Calm,
}

const KINDS: [Kind; 26] = [
    Kind::Kill,
    Kind::KillAndWait,
    Kind::Terminate,
    Kind::KillAtPoint,
    Kind::KillInStart,
    Kind::OtherRanges,
    Kind::InvalidEdit,
    Kind::OtherMtu,
    Kind::OneFamily,
    Kind::FileGone,
    Kind::DiskFails,
    Kind::DiskSlow,
    Kind::DiskFull,
    Kind::NotesStay,
    Kind::NetlinkRefuses,
    Kind::NetlinkLate,
    Kind::ListsInterrupted,
    Kind::AnswersLost,
    Kind::NamespacesSlow,
    Kind::LinksDamaged,
    Kind::HostDamaged,
    Kind::PoliciesEdited,
    Kind::PoliciesAway,
    Kind::FilterFails,
    Kind::TablesDamaged,
    Kind::Calm,
];

/// The NodeConfig that is in force when nothing is wrong.
pub fn usual_config() -> String {
    config(|_| ())
}

fn config(edit: impl FnOnce(&mut Value)) -> String {
    let mut spec = json!({"cidr6": CIDRS[0], "cidr4": CIDRS[1], "mtu": MTU});
    edit(&mut spec);
    node_config_spec(spec)
}

/// Makes trouble.
pub struct Trouble<'a> {
    world: &'a World<'a>,
    dice: Dice,
    deck: Vec<Kind>,
    /// What stays suspended until all is known to be well again.
    lasting: Vec<Storm<'a>>,
}

impl<'a> Trouble<'a> {
    pub fn new(world: &'a World<'a>, seed: u64) -> Trouble<'a> {
        Trouble { world, dice: Dice::new(seed, 2), deck: Vec::new(), lasting: Vec::new() }
    }

    /// Some seconds of it, with a number of callers and of pods that changes each time.
    pub fn round(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        let target = 100 + self.dice.below(151);
        self.world.target.store(target, std::sync::atomic::Ordering::Relaxed);
        self.world.gate.open_for(4 + self.dice.below(CALLERS - 3));
        let until = Instant::now() + self.dice.millis(3_000, 6_000);
        while Instant::now() < until && !self.world.is_over() {
            self.one(keeper)?;
            let pause = self.dice.millis(0, 700);
            self.linger(keeper, pause)?;
        }
        Ok(())
    }

    /// Takes everything back.
    pub fn relent(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        self.disarm();
        walls::back(self.world.host);
        fs::remove_file(self.world.host.path(FILLER)).ok();
        self.world.host.edit_config(&usual_config());
        keeper.revive()?;
        keeper.doomed = false;
        Ok(())
    }

    /// All is well again, and every promise holds.
    pub fn forget(&mut self) {
        self.lasting.clear();
    }

    fn one(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        if self.deck.is_empty() {
            self.deck = KINDS.to_vec();
            self.dice.shuffle(&mut self.deck);
        }
        let deadly = |kind: &Kind| {
            matches!(kind, Kind::Kill | Kind::KillAndWait | Kind::Terminate | Kind::KillAtPoint | Kind::KillInStart)
        };
        let place = self.deck.iter().rposition(|kind| keeper.may_die() || !deadly(kind));
        let Some(place) = place else {
            // Only deaths are left, and this agent is to live longer.
            self.deck.retain(deadly);
            self.deck.extend(KINDS.iter().filter(|kind| !deadly(kind)));
            self.dice.shuffle(&mut self.deck);
            return Ok(());
        };
        let kind = self.deck.remove(place);
        match kind {
            Kind::Kill => self.kill(keeper, "KILL", Duration::ZERO),
            Kind::KillAndWait => {
                let away = self.dice.millis(300, 2_000);
                self.kill(keeper, "KILL", away)
            }
            Kind::Terminate => self.kill(keeper, "TERM", Duration::ZERO),
            Kind::KillAtPoint => self.kill_at_point(keeper),
            Kind::KillInStart => self.kill_in_start(keeper),
            Kind::OtherRanges => {
                self.count("edit: other ranges");
                self.edit(
                    keeper,
                    &[Promise::Addresses],
                    &config(|spec| {
                        spec["cidr6"] = json!("2001:db8:1:f002::/64");
                        spec["cidr4"] = json!("10.27.0.0/16");
                    }),
                )
            }
            Kind::InvalidEdit => {
                self.count("edit: invalid");
                let text = *self.dice.pick(&["{", "kind: Other\n", "", "spec: {cidr4: 10.0.0.0/33}\n"]);
                self.edit(keeper, &[], text)
            }
            Kind::OtherMtu => {
                self.count("edit: other MTU");
                let mtu = 1280 + self.dice.below(200);
                self.edit(keeper, &[Promise::Addresses], &config(|spec| spec["mtu"] = json!(mtu)))
            }
            Kind::OneFamily => {
                self.count("edit: one family only");
                let family = *self.dice.pick(&["cidr6", "cidr4"]);
                // A pod that asks for the other family is refused.
                self.edit(
                    keeper,
                    &[Promise::Addresses, Promise::Add],
                    &config(|spec| {
                        spec.as_object_mut().expect("an object").remove(family);
                    }),
                )
            }
            Kind::FileGone => self.file_gone(keeper),
            Kind::DiskFails => {
                self.count("fault: disk fails");
                let points =
                    ["disk.append", "disk.appended", "disk.sync", "disk.synced", "disk.rename", "disk.sync-names"];
                let line = format!("ledger/{} * errno {}", self.dice.pick(&points), self.dice.pick(&[28, 5, 30]));
                self.fault(keeper, BUT_DEL, &[line])
            }
            Kind::DiskSlow => {
                self.count("fault: disk slow");
                let line = format!("ledger/disk.sync * hang {}", self.dice.pick(&[20, 200, 5_000]));
                self.fault(keeper, BUT_DEL, &[line])
            }
            Kind::DiskFull => self.disk_full(keeper),
            Kind::NotesStay => {
                self.count("fault: delete notes cannot be removed");
                self.fault(keeper, &[], &["*/note.remove * errno 5".into()])
            }
            // Not EEXIST, ENOENT or ENODEV: a kernel that lies about what is there cannot be served.
            Kind::NetlinkRefuses => {
                self.count("fault: netlink refuses");
                let errno = *self.dice.pick(&[4, 12, 16, 105]);
                let thread = *self.dice.pick(&["conn", "remove", "reconcile", "netns", "*"]);
                let nth = self.some_passes();
                self.fault(keeper, EVERY, &[format!("{thread}/netlink.request {nth} errno {errno}")])
            }
            Kind::NetlinkLate => {
                self.count("fault: netlink answers lost");
                let how = *self.dice.pick(&["late", "errno 105"]);
                let nth = self.some_passes();
                self.fault(keeper, EVERY, &[format!("*/netlink.receive {nth} {how}")])
            }
            Kind::ListsInterrupted => {
                self.count("fault: lists interrupted");
                self.fault(keeper, EVERY, &["*/netlink.dump * errno 4".into()])
            }
            Kind::AnswersLost => {
                self.count("fault: answers lost");
                let nth = self.some_passes();
                self.fault(keeper, BUT_DEL, &[format!("conn/rpc.answer {nth} errno 32")])
            }
            Kind::NamespacesSlow => {
                self.count("fault: namespaces slow");
                self.fault(keeper, BUT_DEL, &["netns/netns.entered * hang 300".into()])
            }
            Kind::LinksDamaged => self.damage_links(keeper),
            Kind::HostDamaged => self.damage_host(keeper),
            Kind::PoliciesEdited => {
                self.count("edit: policies");
                walls::put(self.world.host, self.dice.chance(50));
                let pause = self.dice.millis(0, 1_000);
                self.linger(keeper, pause)
            }
            Kind::PoliciesAway => {
                self.count("edit: policies away");
                walls::away(self.world.host);
                self.last(keeper, AWAY)?;
                walls::back(self.world.host);
                Ok(())
            }
            Kind::FilterFails => {
                self.count("fault: packet filter fails");
                let errno = *self.dice.pick(&[4, 12, 105]);
                let point = *self.dice.pick(&["send", "receive"]);
                let nth = self.some_passes();
                self.fault(keeper, BUT_DEL, &[format!("policing/nftables.{point} {nth} errno {errno}")])
            }
            Kind::TablesDamaged => {
                self.count("damage: tables");
                let what = *self.dice.pick(&[
                    "delete table inet flock",
                    "flush set inet flock src4",
                    "flush chain inet flock ingress",
                    "insert rule inet flock source accept",
                ]);
                // There may be no such thing by now.
                let script = format!("nft '{what}' 2>/dev/null || true");
                crate::support::programs::succeed(self.world.host.command("sh").args(["-c", &script]));
                let pause = self.dice.millis(0, 500);
                self.linger(keeper, pause)
            }
            Kind::Calm => {
                let pause = self.dice.millis(500, 1_500);
                self.linger(keeper, pause)
            }
        }
    }

    fn count(&self, what: &'static str) {
        self.world.count(what);
    }

    /// Every pass, or one of the next.
    fn some_passes(&mut self) -> String {
        if self.dice.chance(50) { "*".into() } else { (1 + self.dice.below(30)).to_string() }
    }

    /// Lets time pass, with an eye on the agent.
    fn linger(&mut self, keeper: &mut Keeper<'a>, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.world.is_over() {
            keeper.watch()?;
            if keeper.agent().is_none() {
                keeper.launch(Duration::from_secs(2))?;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.world.sound()
    }

    // Deaths.

    fn kill(&mut self, keeper: &mut Keeper<'a>, signal: &str, away: Duration) -> Result<(), String> {
        self.count(match (signal, away.is_zero()) {
            ("TERM", _) => "death: SIGTERM",
            (_, true) => "death: SIGKILL",
            _ => "death: SIGKILL, away for a while",
        });
        keeper.end(signal)?;
        let until = Instant::now() + away;
        while Instant::now() < until && !self.world.is_over() {
            thread::sleep(Duration::from_millis(5));
        }
        keeper.launch(Duration::from_secs(2))
    }

    fn kill_at_point(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        let place = *self.dice.pick(&PLACES);
        let line = format!("{place} {} kill", 1 + self.dice.below(3));
        let storm = self.world.weather.storm(BUT_DEL);
        if place.starts_with("main/") {
            // Passed in the start only.
            keeper.end("KILL")?;
        }
        keeper.doomed = true;
        self.arm(&[line]);
        self.linger(keeper, Duration::from_millis(1_500))?;
        // The file goes with the agent that it kills.
        if !self.world.host.is_armed() {
            self.count("death: at a point");
            // The file is gone a moment before the agent is.
            let until = Instant::now() + Duration::from_secs(10);
            while keeper.doomed && keeper.agent().is_some() && Instant::now() < until {
                keeper.watch()?;
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.disarm();
        keeper.watch()?;
        keeper.doomed = false;
        drop(storm);
        Ok(())
    }

    fn kill_in_start(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        self.count("death: SIGKILL in the start");
        for _ in 0..3 {
            keeper.end("KILL")?;
            let life = self.dice.millis(0, 40);
            keeper.launch(life)?;
        }
        keeper.end("KILL")?;
        keeper.launch(Duration::from_secs(2))
    }

    /// In the middle of another trouble, now and then.
    fn perhaps_kill(&mut self, keeper: &mut Keeper<'a>, suspends: &'static [Promise]) -> Result<(), String> {
        if keeper.may_die() && self.dice.chance(30) {
            self.lasting.push(self.world.weather.storm(suspends));
            self.kill(keeper, "KILL", Duration::ZERO)?;
        }
        Ok(())
    }

    // Edits.

    fn edit(&mut self, keeper: &mut Keeper<'a>, suspends: &'static [Promise], text: &str) -> Result<(), String> {
        // The edit back is not in force at once either.
        self.lasting.push(self.world.weather.storm(suspends));
        self.world.host.edit_config(text);
        self.last(keeper, AWAY_WITHOUT_CONFIG)?;
        self.world.host.edit_config(&usual_config());
        Ok(())
    }

    fn file_gone(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        self.count("edit: file gone");
        fs::remove_file(self.world.host.path("/run/node.yaml")).ok();
        self.last(keeper, AWAY_WITHOUT_CONFIG)?;
        self.world.host.edit_config(&usual_config());
        Ok(())
    }

    /// A second or two, perhaps with a death in it.
    fn last(&mut self, keeper: &mut Keeper<'a>, killed: &'static [Promise]) -> Result<(), String> {
        let before = self.dice.millis(200, 1_000);
        self.linger(keeper, before)?;
        self.perhaps_kill(keeper, killed)?;
        let after = self.dice.millis(100, 800);
        self.linger(keeper, after)
    }

    // Faults.

    fn arm(&self, lines: &[String]) {
        self.world.host.arm(&format!("{}\n", lines.join("\n")));
    }

    /// What was armed may have gone with an agent.
    fn disarm(&self) {
        fs::remove_file(self.world.host.path(ARMED)).ok();
    }

    fn fault(&mut self, keeper: &mut Keeper<'a>, suspends: &'static [Promise], lines: &[String]) -> Result<(), String> {
        let storm = self.world.weather.storm(suspends);
        self.arm(lines);
        self.last(keeper, &[])?;
        self.disarm();
        keeper.revive()?;
        drop(storm);
        Ok(())
    }

    fn disk_full(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        self.count("fault: disk full");
        let storm = self.world.weather.storm(BUT_DEL);
        let path = self.world.host.path(FILLER);
        let mut filler = fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // First in large pieces, then to the last byte.
        for size in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
        drop(filler);
        self.last(keeper, &[])?;
        fs::remove_file(path).ok();
        keeper.revive()?;
        drop(storm);
        Ok(())
    }

    // Damage by hand.

    fn damage_links(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        self.count("damage: host ends of pods");
        self.lasting.push(self.world.weather.storm(&[Promise::Check]));
        let victims: Vec<(String, Vec<std::net::IpAddr>)> = {
            let book = self.world.book.lock().expect("unpoisoned");
            // GC spares a link without carrier only if it is in the runtime's list: those that stood when the callers last
            // paused are in every list that is made since.
            let all: Vec<_> = book.settled().map(|(_, entry)| (entry.host_link.clone(), entry.ips.clone())).collect();
            (0..8).filter(|_| !all.is_empty()).map(|_| all[self.dice.below(all.len())].clone()).collect()
        };
        let mut script = String::new();
        for (link, ips) in victims {
            let ip = *self.dice.pick(&ips);
            let (family, gateway) = if ip.is_ipv6() { ("-6", "fe80::1/128") } else { ("-4", "169.254.1.1/32") };
            script.push_str(&match self.dice.below(7) {
                0 => format!("ip {family} route del {ip} dev {link}"),
                1 => format!("ip neigh del {ip} dev {link}"),
                2 => format!("ip neigh replace {ip} dev {link} lladdr 02:00:00:00:00:01 nud permanent"),
                3 => format!("ip addr del {gateway} dev {link}"),
                4 => format!("ip link set {link} down"),
                5 => format!("ip link set {link} down; ip link set {link} up"),
                _ => format!("ip link set {link} alias ''"),
            });
            // It may be gone by now.
            script.push_str(" 2>/dev/null || true\n");
        }
        crate::support::programs::succeed(self.world.host.command("sh").args(["-c", &script]));
        let pause = self.dice.millis(0, 500);
        self.linger(keeper, pause)
    }

    fn damage_host(&mut self, keeper: &mut Keeper<'a>) -> Result<(), String> {
        self.count("damage: host");
        // A host that does not forward takes that from its links, too, which CHECK tells until it is put back.
        self.lasting.push(self.world.weather.storm(&[Promise::Check]));
        let script = match self.dice.below(4) {
            0 => format!(
                "ip -6 route del unreachable {} metric 4294967295 || ip -6 route del unreachable {}",
                CIDRS[0], CIDRS[0]
            ),
            1 => format!(
                "ip route del unreachable {} metric 4294967295 || ip route del unreachable {}",
                CIDRS[1], CIDRS[1]
            ),
            2 => "echo 0 >/proc/sys/net/ipv4/ip_forward".into(),
            _ => "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding".into(),
        };
        let script = format!("({script}) 2>/dev/null || true");
        crate::support::programs::succeed(self.world.host.command("sh").args(["-c", &script]));
        let pause = self.dice.millis(0, 500);
        self.linger(keeper, pause)
    }
}

/// What an agent that starts without a usable NodeConfig cannot promise.
const AWAY_WITHOUT_CONFIG: &[Promise] = &[Promise::Add, Promise::Addresses, Promise::Status];
