//! The oracle: one comparison of everything that has to agree, used by every test that kills, starves or confuses flock.
//!
//! Looks at the store, at the host's kernel (links, addresses, routes, neighbours) and into the pods' namespaces, with
//! `ip` and not with flock's own netlink code, and names each difference. What it holds up:
//!
//! - I1: no address is on two live interfaces, nor in two leases, but for those that pods share;
//! - I2: every live link of flock has exactly one lease, and every committed lease its link;
//! - I3: every lease has its host routes, addresses, neighbours and proxies, and every route and proxy of flock has a lease;
//! - I4: nothing is left of what has gone: no link, route, neighbour, file, note;
//! - I5: the store can be read, line by line;
//! - I6: each address beside the node's ranges is announced by the link of the pod that has or shares it, and no other single
//!   address is, unless the node is withdrawn; no nexthop object leads to a pod that is none;
//! - I7: each link may send with the addresses of its container, and no other link with any.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flock::record::format::decode;
use ipnet::IpNet;
use model::addr::{GATEWAY4, GATEWAY6};
use model::lease::{Lease, Phase};
use serde_json::Value;

use super::agent::Agent;
use super::host::Host;
use super::programs::succeed;
use super::waiting::{wait_for, wait_or};

/// An entry by which the host answers for an address that is not its own.
pub struct ProxyEntry {
    pub link: String,
    pub ip: IpAddr,
    /// It bears flock's mark.
    pub ours: bool,
}

impl Host {
    /// Everything that does not agree, one line each. Meaningful while no request is in service.
    pub fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let leases = self.leases();
        self.judge_store(&leases, &mut found);
        let links = self.flock_veths();
        judge_links(&leases, &links, &mut found);
        self.judge_host_side(&leases, &links, &mut found);
        self.judge_routes(&leases, &mut found);
        self.judge_proxies(&leases, &mut found);
        self.judge_pods(&leases, &mut found);
        self.judge_files(&mut found);
        self.judge_sources(&leases, &mut found);
        found
    }

    /// Nothing differs, at the latest after what the agent repairs by itself has settled.
    #[track_caller]
    pub fn assert_sound(&self, when: &str) {
        let complaint = || format!("{when}:\n{}", self.differences().join("\n"));
        wait_or(complaint, || self.differences().is_empty().then_some(()));
    }

    /// The links of flock on this host.
    pub fn flock_links(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.run("ip -j link")).expect("JSON of ip");
        let names =
            links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str().map(str::to_owned));
        names.filter(|name| name.starts_with("flock")).collect()
    }

    /// Nothing of any pod is left: links, addresses, routes, neighbours, leases. (The unreachable routes of the node stay.)
    #[track_caller]
    pub fn assert_empty(&self) {
        self.assert_sound("at the end");
        assert_eq!(self.flock_links(), Vec::<String>::new(), "links are left");
        for family in ["-4", "-6"] {
            let routes = self.run(&format!("ip {family} route show proto 102"));
            let left: Vec<&str> = routes.lines().filter(|line| !line.starts_with("unreachable ")).collect();
            assert_eq!(left, Vec::<&str>::new(), "routes are left");
        }
        assert_eq!(self.leases(), Vec::new(), "leases are left");
    }

    fn judge_store(&self, leases: &[Lease], found: &mut Vec<String>) {
        let bytes = std::fs::read(self.path("/run/flock/state/leases.log")).unwrap_or_default();
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            found.push("I5: the log ends in the middle of a record".into());
        }
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if decode(line).is_none() {
                found.push(format!("I5: a record cannot be read: {}", String::from_utf8_lossy(line)));
            }
        }
        let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
        for lease in leases {
            if lease.phase == Phase::Pending {
                found.push(format!("I2: {} is pending, and no request is in service", lease.attachment));
            }
            for ip in lease.addresses() {
                if let Some(other) = holders.insert(ip, lease.attachment.to_string()) {
                    found.push(format!("I1: {ip} is leased to {other} and to {}", lease.attachment));
                }
            }
        }
    }

    /// The veth links whose name or alias is flock's.
    fn flock_veths(&self) -> Vec<Value> {
        let links = self.json("ip -d -j link");
        let ours = |link: &Value| {
            let named = link["ifname"].as_str().is_some_and(|name| name.starts_with("flock"));
            let marked = link["ifalias"].as_str().is_some_and(|alias| alias.starts_with("flock:"));
            // A test may have put somebody else's there under a name like flock's.
            let foreign = link["ifalias"] == "foreign";
            (named || marked) && !foreign && link["linkinfo"]["info_kind"] == "veth"
        };
        links.into_iter().filter(ours).collect()
    }

    fn judge_host_side(&self, leases: &[Lease], links: &[Value], found: &mut Vec<String>) {
        let routes: BTreeSet<(String, String)> = ["ip -j -4 route show proto 102", "ip -j -6 route show proto 102"]
            .into_iter()
            .flat_map(|line| self.json(line))
            // What leads to other nodes and to shared addresses has a gateway or a nexthop object, and is judged apart.
            .filter(|route| route["type"] != "unreachable" && route["nhid"].is_null() && leads_through_a_link(route))
            .map(|route| (text(&route["dst"]), text(&route["dev"])))
            .collect();
        let mut wanted_routes = BTreeSet::new();
        let neighbours: BTreeSet<(String, String, String)> =
            ["ip -j -4 neigh show nud permanent", "ip -j -6 neigh show nud permanent"]
                .into_iter()
                .flat_map(|line| self.json(line))
                .map(|neigh| (text(&neigh["dst"]), text(&neigh["dev"]), text(&neigh["lladdr"])))
                .filter(|(_, dev, _)| dev.starts_with("flock"))
                .collect();
        let mut wanted_neighbours = BTreeSet::new();
        let addresses: BTreeSet<(String, String)> = self.json("ip -j addr").iter().flat_map(addresses_of).collect();
        for lease in leases {
            let link = lease.host_link.to_string();
            let names: Vec<&str> = links.iter().filter_map(|link| link["ifname"].as_str()).collect();
            if !names.contains(&link.as_str()) {
                continue; // Said already.
            }
            for ip in lease.addresses() {
                wanted_routes.insert((ip.to_string(), link.clone()));
                if let Some(mac) = lease.pod_mac {
                    wanted_neighbours.insert((ip.to_string(), link.clone(), mac.to_string()));
                }
                let gateway = match ip {
                    IpAddr::V4(_) => GATEWAY4.to_string(),
                    IpAddr::V6(_) => GATEWAY6.to_string(),
                };
                if !addresses.contains(&(gateway.clone(), link.clone())) {
                    found.push(format!("I3: {link} of {} lacks the address {gateway}", lease.attachment));
                }
            }
        }
        for (dst, dev) in wanted_routes.difference(&routes) {
            found.push(format!("I3: no route {dst} through {dev}"));
        }
        for (dst, dev) in routes.difference(&wanted_routes) {
            found.push(format!("I3: a route {dst} through {dev} that no lease asks for"));
        }
        for neighbour in wanted_neighbours.difference(&neighbours) {
            found.push(format!("I3: no neighbour {neighbour:?}"));
        }
        for neighbour in neighbours.difference(&wanted_neighbours) {
            found.push(format!("I3: a neighbour {neighbour:?} that no lease asks for"));
        }
    }

    /// Announcements of addresses, nexthop objects and routes by them are of leases that stand.
    fn judge_routes(&self, leases: &[Lease], found: &mut Vec<String>) {
        let shared: BTreeSet<String> = leases.iter().flat_map(|lease| &lease.anycast).map(IpAddr::to_string).collect();
        let links: BTreeSet<String> = leases.iter().map(|lease| lease.host_link.to_string()).collect();
        // The kernel makes a table with its first route, and `ip` prints half an answer before it says so.
        let script = "show() { out=$(ip -j \"$@\" 2>/dev/null) && [ -n \"$out\" ] || out='[]'; printf '%s\\n' \"$out\"; }; \
                      for family in -4 -6; do show $family route show table 102; done; \
                      for family in -4 -6; do show $family route show proto 102; done; show nexthop show";
        let text_of = succeed(self.command("sh").args(["-c", script]));
        let lists: Vec<Vec<Value>> = text_of.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(lists.len(), 5, "{text_of}");
        for route in lists[..2].iter().flatten().filter(|route| route["protocol"] == "102") {
            let (dst, dev) = (text(&route["dst"]), text(&route["dev"]));
            let is_of = |lease: &&Lease| {
                lease.host_link.as_str() == dev
                    && lease.addresses().chain(lease.anycast.clone()).any(|ip| ip.to_string() == dst)
            };
            if route["type"] != "unreachable" && !leases.iter().any(|lease| is_of(&lease)) {
                found.push(format!("I6: {dst} through {dev} is announced, and no lease has it"));
            }
        }
        self.judge_announcements(leases, &lists, found);
        for route in lists[2..4].iter().flatten().filter(|route| !route["nhid"].is_null()) {
            if !shared.contains(&text(&route["dst"])) {
                found.push(format!("I6: a route to {} by a nexthop that no lease asks for", route["dst"]));
            }
        }
        for nexthop in lists[4].iter().filter(|nexthop| nexthop["protocol"] == "102") {
            if nexthop["group"].is_null() && !links.contains(&text(&nexthop["dev"])) {
                found.push(format!("I6: nexthop {} is through {}, which is no lease's", nexthop["id"], nexthop["dev"]));
            }
        }
    }

    /// What the NodeConfig file asks to be announced is. `lists` are what the kernel shows: table 102 of both families, flock's
    /// routes of both, nexthop objects. Without Kubernetes every pod may serve what it shares.
    fn judge_announcements(&self, leases: &[Lease], lists: &[Vec<Value>], found: &mut Vec<String>) {
        let config = std::fs::read(self.path("/run/node.yaml")).unwrap_or_default();
        // A test may have written what is none.
        let Ok(config) = serde_json::from_slice::<Value>(&config) else { return };
        let stage = std::fs::read_to_string(self.path("/run/flock/drain")).unwrap_or_default();
        if stage.trim() == "withdrawn" {
            return;
        }
        let cidr = |field: &str| config["spec"][field].as_str().and_then(|text| text.parse::<IpNet>().ok());
        let ranges: Vec<IpNet> = ["cidr6", "cidr4"].into_iter().filter_map(cidr).collect();
        let inside = |ip: &IpAddr| ranges.iter().any(|range| range.contains(ip));
        let ours = |list: &[Vec<Value>]| list.concat().into_iter().filter(|route| route["protocol"] == "102");
        let announced: BTreeSet<(String, String)> = ours(&lists[..2])
            .filter(|route| route["type"] != "unreachable")
            .map(|route| (text(&route["dst"]), text(&route["dev"])))
            .collect();
        // Without nexthop objects, one pod of those that share an address is led to.
        let leads_to_all = ours(&lists[4..]).next().is_some();
        let committed = || leases.iter().filter(|lease| lease.phase == Phase::Committed);
        for lease in committed() {
            let link = lease.host_link.to_string();
            for ip in lease.addresses().filter(|ip| !inside(ip)) {
                if !announced.contains(&(ip.to_string(), link.clone())) {
                    found.push(format!("I6: {ip} of {} is not announced through {link}", lease.attachment));
                }
            }
            for ip in &lease.anycast {
                let by_any = || announced.iter().any(|(dst, _)| *dst == ip.to_string());
                if !announced.contains(&(ip.to_string(), link.clone())) && (leads_to_all || !by_any()) {
                    found.push(format!("I6: {ip}, which {} shares, is not announced through {link}", lease.attachment));
                }
            }
            for ip in lease.addresses().filter(|ip| inside(ip)) {
                if announced.contains(&(ip.to_string(), link.clone())) {
                    found.push(format!("I6: {ip} of {} is announced although its range is", lease.attachment));
                }
            }
        }
    }

    /// The entries by which the host answers for addresses that are not its own, whoever made them.
    pub fn proxies(&self) -> Vec<ProxyEntry> {
        let shown = ["ip -4 neigh show proxy", "ip -6 neigh show proxy"].map(|line| self.run(line));
        let lines = shown.iter().flat_map(|text| text.lines());
        let entries = lines.filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let value = |key: &str| words.iter().skip_while(|word| **word != key).nth(1).copied();
            let ip = words.first()?.parse().ok()?;
            Some(ProxyEntry { ip, link: value("dev")?.into(), ours: value("proto") == Some("102") })
        });
        entries.collect()
    }

    /// The entries that bear flock's mark are those of the leases, on the link that the NodeConfig file names.
    fn judge_proxies(&self, leases: &[Lease], found: &mut Vec<String>) {
        let links = self.json("ip -j link");
        let config = std::fs::read(self.path("/run/node.yaml")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let link = config["spec"]["proxyNeighbours"].as_str();
        let link = link.filter(|name| links.iter().any(|link| link["ifname"] == *name));
        let wanted: BTreeSet<(String, IpAddr)> = link
            .into_iter()
            .flat_map(|link| leases.iter().flat_map(Lease::addresses).map(move |ip| (link.to_owned(), ip)))
            .collect();
        let (mut shown, mut foreign) = (BTreeSet::new(), BTreeSet::new());
        for entry in self.proxies() {
            let set = if entry.ours { &mut shown } else { &mut foreign };
            set.insert((entry.link, entry.ip));
        }
        for (link, ip) in wanted.difference(&shown).filter(|entry| !foreign.contains(entry)) {
            found.push(format!("I3: no proxy for {ip} on {link}"));
        }
        for (link, ip) in shown.difference(&wanted) {
            found.push(format!("I3: a proxy for {ip} on {link} that no lease asks for"));
        }
    }

    /// What the named namespaces of this host hold: the addresses of every lease, once, and none beyond.
    fn judge_pods(&self, leases: &[Lease], found: &mut Vec<String>) {
        let mut wanted: BTreeSet<(String, String, String)> = BTreeSet::new();
        for lease in leases.iter().filter(|lease| !lease.netns.is_empty()) {
            let pod = lease.netns.rsplit('/').next().unwrap_or_default();
            let ifname = lease.attachment.ifname.to_string();
            let all = lease.addresses().chain(lease.anycast.clone());
            wanted.extend(all.map(|ip| (pod.to_owned(), ifname.clone(), ip.to_string())));
        }
        let shared: BTreeSet<String> = leases.iter().flat_map(|lease| &lease.anycast).map(IpAddr::to_string).collect();
        let adopted = leases.iter().filter(|lease| lease.netns.is_empty());
        let adopted: BTreeSet<String> =
            adopted.flat_map(|lease| lease.addresses().chain(lease.anycast.clone())).map(|ip| ip.to_string()).collect();
        let mut present: BTreeSet<(String, String, String)> = BTreeSet::new();
        for (pod, addresses) in self.addresses_in_pods() {
            for (ip, dev) in addresses {
                if dev != "lo" && !ip.starts_with("fe80:") {
                    present.insert((pod.clone(), dev, ip));
                }
            }
        }
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (pod, _, ip) in present.iter().filter(|(_, _, ip)| !shared.contains(ip)) {
            if let Some(other) = seen.insert(ip, pod) {
                found.push(format!("I1: {ip} is on an interface of {other} and of {pod}"));
            }
        }
        for (pod, dev, ip) in wanted.difference(&present) {
            found.push(format!("I2: {pod} lacks {ip} on {dev}"));
        }
        for (pod, dev, ip) in present.difference(&wanted).filter(|(_, _, ip)| !adopted.contains(ip)) {
            found.push(format!("I2: {pod} has {ip} on {dev}, and no lease says so"));
        }
    }

    /// What `ip addr` shows in each named namespace, with its device. One shell asks for all: some tests have hundreds. A
    /// namespace that goes meanwhile shows nothing.
    fn addresses_in_pods(&self) -> Vec<(String, Vec<(String, String)>)> {
        let script = "cd /run/netns && for pod in *; do [ -e \"$pod\" ] || continue; \
                      echo \"$pod $(ip -n \"$pod\" -j addr 2>/dev/null)\"; done";
        let text = succeed(self.command("sh").args(["-c", script]));
        let pods = text.lines().filter_map(|line| line.split_once(' '));
        pods.map(|(pod, json)| {
            let links: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
            (pod.to_owned(), links.iter().flat_map(addresses_of).collect())
        })
        .collect()
    }

    /// What the packet filter lets each link send, in both tables.
    fn judge_sources(&self, leases: &[Lease], found: &mut Vec<String>) {
        let config = std::fs::read(self.path("/run/node.yaml")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let checked = |lease: &&Lease| lease.pod_mac.is_some() && !lease.any_source;
        let leases: Vec<&Lease> = leases.iter().filter(checked).collect();
        let mut wanted: BTreeSet<(&str, String, String)> = BTreeSet::new();
        if config["spec"]["sourceCheck"] != false {
            for lease in &leases {
                let link = lease.host_link.to_string();
                let own = |other: &&&Lease| other.attachment.container_id == lease.attachment.container_id;
                let all = leases.iter().filter(own).flat_map(|lease| lease.addresses().chain(lease.anycast.clone()));
                for ip in all {
                    wanted.insert(("inet", link.clone(), ip.to_string()));
                    wanted.extend(ip.is_ipv4().then(|| ("arp", link.clone(), ip.to_string())));
                }
                let local = lease.pod_mac.filter(|_| lease.ipv6.is_some()).map(|mac| mac.link_local());
                wanted.extend(local.map(|ip| ("inet", link.clone(), ip.to_string())));
            }
        }
        let mut shown = BTreeSet::new();
        for family in ["inet", "arp"] {
            let sets = self.nft_sets(family, "flock");
            for elements in sets.iter().filter(|(name, _)| name.starts_with("src")).map(|(_, elements)| elements) {
                for pair in elements {
                    let [link, ip] =
                        ["/concat/0", "/concat/1"].map(|at| pair.pointer(at).map(text).unwrap_or_default());
                    shown.insert((family, link, ip));
                }
            }
            let named = |set: &str| sets.get(set).into_iter().flatten().map(|link| text(&link["elem"]["val"]));
            let links: BTreeSet<String> = named("links").collect();
            let may: BTreeSet<String> =
                wanted.iter().filter(|(of, ..)| *of == "inet").map(|(_, link, _)| link.clone()).collect();
            for link in links.symmetric_difference(&may) {
                found.push(format!("I7: link {link} is checked by table {family} flock, or is a pod's, but not both"));
            }
        }
        for (family, link, ip) in wanted.difference(&shown) {
            found.push(format!("I7: {link} may not send with its {ip} in table {family} flock"));
        }
        for (family, link, ip) in shown.difference(&wanted) {
            found.push(format!("I7: {link} may send with {ip} in table {family} flock, and no lease says so"));
        }
    }

    /// Has `nft` carry out a line.
    pub fn run_nft(&self, line: &str) {
        succeed(self.command("nft").arg(line));
    }

    /// The elements of the sets of an nftables table, as `nft -j` writes them; nothing for a table that is not there.
    pub fn nft_sets(&self, family: &str, table: &str) -> BTreeMap<String, Vec<Value>> {
        let all: Value = serde_json::from_str(&self.run("nft -j list ruleset")).expect("JSON of nft");
        let sets = all["nftables"].as_array().into_iter().flatten().filter_map(|object| object.get("set"));
        sets.filter(|set| set["family"] == family && set["table"] == table)
            .map(|set| (text(&set["name"]), set["elem"].as_array().cloned().unwrap_or_default()))
            .collect()
    }

    /// Files that only exist in the middle of something.
    fn judge_files(&self, found: &mut Vec<String>) {
        for dir in ["/run/flock", "/run/flock/state", "/run/flock/deletes"] {
            let Ok(entries) = std::fs::read_dir(self.path(dir)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains(".delete") || name.ends_with(".new") {
                    found.push(format!("I4: {dir}/{name} is left"));
                }
            }
        }
    }

    fn json(&self, line: &str) -> Vec<Value> {
        let text = self.run(line);
        if text.trim().is_empty() {
            return Vec::new();
        }
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"));
        value.as_array().expect("a list").clone()
    }
}

impl Agent<'_> {
    /// No thread of the agent is in another namespace than its host's, but for throw-away ones.
    #[track_caller]
    pub fn assert_all_threads_at_home(&self) {
        let home = std::fs::read_link(self.host.netns()).expect("a namespace");
        wait_for("every thread to be in the host's namespace", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
            let strays = tasks.flatten().filter_map(|task| std::fs::read_link(task.path().join("ns/net")).ok());
            (strays.filter(|netns| *netns != home).count() == 0).then_some(())
        });
    }
}

/// Whether a route leads to its destination by a link alone.
fn leads_through_a_link(route: &Value) -> bool {
    route["gateway"].is_null() && route["via"].is_null()
}

fn judge_links(leases: &[Lease], links: &[Value], found: &mut Vec<String>) {
    for lease in leases {
        let name = lease.host_link.to_string();
        let Some(link) = links.iter().find(|link| link["ifname"] == name.as_str()) else {
            found.push(format!("I2: {} is leased, and its link {name} is missing", lease.attachment));
            continue;
        };
        if text(&link["address"]) != lease.host_mac.to_string() {
            found.push(format!("I2: link {name} of {} has hardware address {}", lease.attachment, link["address"]));
        }
        if text(&link["ifalias"]) != format!("flock:{}", lease.attachment) {
            found.push(format!("I2: link {name} of {} has alias {}", lease.attachment, link["ifalias"]));
        }
        if link["operstate"] != "UP" {
            found.push(format!("I2: link {name} of {} is {}", lease.attachment, link["operstate"]));
        }
    }
    for link in links {
        let name = text(&link["ifname"]);
        if !leases.iter().any(|lease| lease.host_link.to_string() == name) {
            found.push(format!("I2: link {name} ({}) stands, and no lease says so", link["ifalias"]));
        }
    }
}

fn addresses_of(link: &Value) -> Vec<(String, String)> {
    let dev = text(&link["ifname"]);
    let infos = link["addr_info"].as_array().into_iter().flatten();
    infos.map(|info| (text(&info["local"]), dev.clone())).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
