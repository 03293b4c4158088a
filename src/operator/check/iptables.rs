//! The older packet filter of iptables (`ip_tables`), which no netlink shows: whether packets of pods pass it.
//!
//! The kernel names the tables, and `iptables-legacy-save` has what is in them; where that program is missing, this says that
//! nobody has looked. Must not run it where there is no such table, since it would make one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::operator::check::finding::{Area, Finding};
use crate::operator::check::firewall::{self, Way};
use crate::process::program::{self, RunLimits};
use crate::process::shutdown::Stop;
use model::addr::Family;
use model::forwarding::{Chains, Deed, Fit, Packet, Place, Rule, fate};

/// Where the program is looked for.
pub const DIRS: [&str; 6] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin", "/usr/local/bin"];

/// What the programs of the older kind are links to.
const LEGACY: &str = "xtables-legacy-multi";

/// Limits of a run: longer lists are of no person's making.
const LIMITS: RunLimits = RunLimits { time: Duration::from_secs(5), output: 32 * 1024 * 1024 };

/// What the tables of one family do with these packets, of pods in `ranges`.
pub fn look(family: Family, packets: &[(Way, Packet)], ranges: &[IpNet]) -> Vec<Finding> {
    let v6 = family == Family::V6;
    let names =
        Path::new(if v6 { "/proc/thread-self/net/ip6_tables_names" } else { "/proc/thread-self/net/ip_tables_names" });
    // Without the file there is no such filter in the kernel.
    let Ok(tables) = fs::read_to_string(names) else { return Vec::new() };
    let tables = tables.lines().filter(|table| ["filter", "mangle", "security"].contains(table)).collect::<Vec<_>>();
    if tables.is_empty() {
        return Vec::new();
    }
    let (program, save) =
        if v6 { ("ip6tables", "ip6tables-legacy-save") } else { ("iptables", "iptables-legacy-save") };
    let unseen = |why: String| {
        let what = format!("{program}-legacy has tables here ({}), which were not looked at: {why}", tables.join(", "));
        vec![Finding::warn(Area::Firewall, what)]
    };
    // Where there is only the older kind, it has only the plain name.
    let plain = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| path.ends_with(LEGACY));
    let installed = |name: &str| DIRS.map(|dir| PathBuf::from(dir).join(name)).into_iter().find(|path| path.exists());
    let legacy = installed(save).map(|path| (path, format!("{program}-legacy")));
    let other = || Some((installed(&format!("{program}-save")).filter(plain)?, program.to_owned()));
    let Some((path, command)) = legacy.or_else(other) else {
        return unseen(format!("{save} is not installed"));
    };
    let mut found = Vec::new();
    for table in &tables {
        let said = program::output(
            &path,
            |run| {
                run.args(["-t", table]);
            },
            b"",
            LIMITS,
            &Stop::default(),
        );
        let text = match said {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => return unseen(format!("{} {error}", path.display())),
        };
        let filter = Filter::read(&text);
        let of_family = packets.iter().filter(|(_, packet)| packet.source.is_ipv6() == v6);
        let fates = of_family.map(|(way, packet)| (*way, filter.fate(packet)));
        let place = |place: &Place| format!("{program}-legacy, table {table}, chain {}", place.chain);
        let of_family: Vec<IpNet> = ranges.iter().filter(|range| range.addr().is_ipv6() == v6).copied().collect();
        let cure = || firewall::iptables(&format!("{command} -t {table}"), &filter.names(), &of_family);
        found.extend(firewall::judged(fates, place, cure));
    }
    found
}

/// A table, as `iptables-save` prints it.
#[derive(Debug, Default)]
struct Filter {
    drops: bool,
    /// The words of each rule of each chain.
    chains: BTreeMap<String, Vec<Vec<String>>>,
    /// A rule gives packets a mark.
    marks: bool,
}

impl Filter {
    fn read(text: &str) -> Filter {
        let mut filter = Filter::default();
        for line in text.lines() {
            let mut words = words(line).into_iter();
            match words.next().as_deref() {
                Some(":FORWARD") => filter.drops = words.next().as_deref() == Some("DROP"),
                Some("-A") => {
                    let Some(chain) = words.next() else { continue };
                    let rule: Vec<String> = words.collect();
                    filter.marks |= rule.iter().any(|word| word == "MARK");
                    filter.chains.entry(chain).or_default().push(rule);
                }
                Some(chain) => {
                    if let Some(chain) = chain.strip_prefix(':') {
                        filter.chains.entry(chain.to_owned()).or_default();
                    }
                }
                None => {}
            }
        }
        filter
    }

    fn names(&self) -> BTreeSet<&str> {
        self.chains.keys().map(String::as_str).collect()
    }

    fn fate(&self, packet: &Packet) -> model::forwarding::Fate {
        let rules = |rules: &Vec<Vec<String>>| rules.iter().map(|rule| self.rule(rule, packet)).collect();
        let chains: Chains = self.chains.iter().map(|(name, of)| (name.clone(), rules(of))).collect();
        fate(&chains, "FORWARD", self.drops)
    }

    fn rule(&self, words: &[String], packet: &Packet) -> Rule {
        let mut fit = Fit::Yes;
        let mut words = words.iter().map(String::as_str).peekable();
        let mut inverted = false;
        let [source, destination] = packet.ports();
        while let Some(word) = words.next() {
            if word == "!" {
                inverted = true;
                continue;
            }
            if let "-j" | "-g" = word {
                let target = words.next().unwrap_or_default();
                return Rule { fit, deed: self.deed(target, word == "-g") };
            }
            // What an option takes ends where the next one begins.
            let mut values = Vec::new();
            while let Some(value) = words.next_if(|next| !next.starts_with('-') && *next != "!") {
                values.push(value);
            }
            let value = values.first().copied().unwrap_or_default();
            let holds = match word {
                "-m" | "--comment" => continue,
                "-i" => Some(is_named(value, &packet.from.name)),
                "-o" => Some(is_named(value, &packet.to.name)),
                "-s" => within(value, packet.source),
                "-d" => within(value, packet.destination),
                "-p" => Some(["tcp", "6", "all"].contains(&value)),
                "--dport" => range(value, destination),
                "--sport" => range(value, source),
                "--ctstate" | "--state" => {
                    let state = if packet.answers { "ESTABLISHED" } else { "NEW" };
                    Some(value.split(',').any(|word| word == state))
                }
                "--mark" if !self.marks => mark(value),
                _ => None,
            };
            fit = fit.min(match holds {
                None => Fit::Maybe,
                Some(holds) if holds != inverted => Fit::Yes,
                Some(_) => Fit::No,
            });
            inverted = false;
        }
        Rule { fit, deed: Deed::Next }
    }

    fn deed(&self, target: &str, goes: bool) -> Deed {
        match target {
            "ACCEPT" => Deed::Accept,
            "DROP" | "REJECT" => Deed::Drop,
            "RETURN" => Deed::Return,
            chain if self.chains.contains_key(chain) && goes => Deed::Goto(chain.into()),
            chain if self.chains.contains_key(chain) => Deed::Jump(chain.into()),
            "QUEUE" | "NFQUEUE" | "SYNPROXY" => Deed::Unknown,
            // The other targets note, count or change, and the packet goes on.
            _ => Deed::Next,
        }
    }
}

/// The words of a line, of which one in quotation marks is one word.
fn words(line: &str) -> Vec<String> {
    let mut found = vec![];
    let mut word: Option<String> = None;
    let (mut quoted, mut characters) = (false, line.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            ' ' if !quoted => found.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    found.extend(word);
    found
}

fn is_named(pattern: &str, link: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(begin) => link.starts_with(begin),
        None => link == pattern,
    }
}

fn within(net: &str, ip: std::net::IpAddr) -> Option<bool> {
    let net: IpNet = net.parse().or_else(|_| net.parse().map(|ip: std::net::IpAddr| ip.into())).ok()?;
    Some(net.contains(&ip))
}

fn range(ports: &str, port: u16) -> Option<bool> {
    let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
    Some((first.parse().ok()?..=last.parse().ok()?).contains(&port))
}

/// Whether a packet without a mark has this one.
fn mark(value: &str) -> Option<bool> {
    let (wanted, _) = value.split_once('/').unwrap_or((value, ""));
    u32::from_str_radix(wanted.strip_prefix("0x")?, 16).ok().map(|wanted| wanted == 0)
}

#[cfg(test)]
mod tests {
    use model::forwarding::{Fate, Link};

    use super::*;

    fn packet(from: &str, to: &str, answers: bool) -> Packet {
        let link = |name: &str| Link { name: name.into(), index: 0 };
        let ip =
            |name: &str| if name.starts_with("flock") { "10.25.214.7" } else { "192.0.2.9" }.parse().expect("literal");
        Packet { from: link(from), to: link(to), source: ip(from), destination: ip(to), answers }
    }

    /// What becomes of a packet from a pod to the uplink, of the answer, and of one to a pod.
    #[track_caller]
    fn check(rules: &str, expected: [&str; 3]) {
        let filter = Filter::read(&format!("*filter\n{rules}\nCOMMIT\n"));
        let (pod, up) = ("flock1a2b3c4d", "up0");
        let told = [(pod, up, false), (up, pod, true), (up, pod, false)].map(|(from, to, answers)| {
            match filter.fate(&packet(from, to, answers)) {
                Fate::Passes => "passes".to_owned(),
                Fate::Dropped(place) => place.chain,
                Fate::DroppedUnless(place) => format!("perhaps {}", place.chain),
            }
        });
        assert_eq!(told, expected, "{rules}");
    }

    #[test]
    fn what_iptables_has_saved_is_read_as_it_filters() {
        let passes = ["passes"; 3];
        let (stands, drop) = (":FORWARD ACCEPT [0:0]", ":FORWARD DROP [12:3456]");
        check(stands, passes);
        check(drop, ["FORWARD"; 3]);
        check(&format!("{drop}\n-A FORWARD -i flock+ -j ACCEPT\n-A FORWARD -o flock+ -j ACCEPT"), passes);
        check(&format!("{drop}\n-A FORWARD -i flock+ -j ACCEPT"), ["passes", "FORWARD", "FORWARD"]);
        check(
            &format!(
                "{drop}\n-A FORWARD -i flock+ -j ACCEPT\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            ),
            ["passes", "passes", "FORWARD"],
        );
        check(
            &format!("{stands}\n-A FORWARD ! -i docker0 -j REJECT --reject-with icmp-port-unreachable"),
            ["FORWARD"; 3],
        );
        check(&format!("{stands}\n-A FORWARD -s 10.25.214.0/24 -p tcp -m tcp --dport 22 -j DROP"), passes);
        check(
            &format!("{stands}\n-A FORWARD -s 10.25.214.0/24 -p tcp -m tcp --dport 1:65535 -j DROP"),
            ["FORWARD", "passes", "passes"],
        );
        check(
            &format!("{stands}\n-A FORWARD -d 10.25.214.7/32 -m comment --comment \"a -j \\\"ACCEPT\" -j DROP"),
            ["passes", "FORWARD", "FORWARD"],
        );
        check(&format!("{drop}\n-A FORWARD -m set --match-set pods src -j ACCEPT"), ["perhaps FORWARD"; 3]);
        check(&format!("{drop}\n-A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"), ["FORWARD"; 3]);
        check(
            &format!(
                "{stands}\n:ONE - [0:0]\n:TWO - [0:0]\n-A FORWARD -j ONE\n-A ONE -i up0 -j RETURN\n-A ONE -g TWO\n-A TWO -j DROP"
            ),
            ["TWO", "passes", "passes"],
        );
        // As docker leaves it.
        check(
            &format!(
                "{drop}\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n\
                 -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -o docker0 -j DOCKER\n\
                 -A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n-A DOCKER-USER -j RETURN"
            ),
            ["FORWARD"; 3],
        );
    }
}
