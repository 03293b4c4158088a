//! What the API server says of itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use flock::kube::client::Client;

/// What agents watch; what the server watches of itself does not count.
const WATCHED: [&str; 5] = ["nodeconfigs", "nodepeers", "pods", "networkpolicies", "namespaces"];

/// How often it was asked, and the seconds of its CPU that each time takes, which are not counted.
static LOOKS: Mutex<(f64, f64)> = Mutex::new((0.0, 0.0));

/// Its counts at one moment, or what they have grown by.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Requests that have been taken and have ended, by verb and resource; a watch counts when it ends.
    requests: BTreeMap<(String, String), f64>,
    /// Requests that were answered with status 429.
    refused: f64,
    /// Watches that are open.
    pub watches: f64,
    /// Events that were sent to watches, and their bytes.
    pub events: f64,
    event_bytes: f64,
    /// Bytes of answers to lists.
    list_bytes: f64,
    cpu: f64,
    memory: f64,
    looks: f64,
}

impl Server {
    /// Asks it.
    pub fn look(admin: &Client) -> Server {
        let answer = admin.get("/metrics", 256 << 20).expect("an answer");
        let text = String::from_utf8(answer.body).expect("text");
        let mut looks = LOOKS.lock().expect("unpoisoned");
        looks.0 += 1.0;
        let mut seen = Server { looks: looks.0, ..Server::default() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((head, value)) = line.rsplit_once(' ') else { continue };
            let value: f64 = value.parse().unwrap_or_default();
            let (name, labels) = head.split_once('{').unwrap_or((head, ""));
            let label = |key: &str| {
                let from = labels.find(&format!("{key}=\""))? + key.len() + 2;
                labels.get(from..)?.split('"').next().map(str::to_owned)
            };
            let text = |key: &str| label(key).unwrap_or_default();
            match name {
                "apiserver_request_total" => {
                    let resource = [text("resource"), text("subresource")].join("/").trim_matches('/').to_owned();
                    match text("code").as_str() {
                        "429" => seen.refused += value,
                        _ => *seen.requests.entry((text("verb"), resource)).or_default() += value,
                    }
                }
                "apiserver_longrunning_requests"
                    if text("verb") == "WATCH" && WATCHED.contains(&&*text("resource")) =>
                {
                    seen.watches += value;
                }
                "apiserver_watch_events_total" => seen.events += value,
                "apiserver_watch_events_sizes_sum" => seen.event_bytes += value,
                "apiserver_response_sizes_sum" if text("verb") == "LIST" => seen.list_bytes += value,
                "process_cpu_seconds_total" => seen.cpu = value,
                "process_resident_memory_bytes" => seen.memory = value,
                _ => {}
            }
        }
        seen
    }

    /// Finds out what it costs to ask.
    pub fn weigh(admin: &Client) {
        LOOKS.lock().expect("unpoisoned").1 = 0.0;
        let before = Server::look(admin);
        (0..4).for_each(|_| drop(Server::look(admin)));
        let cost = Server::look(admin).since(&before).cpu / 5.0;
        LOOKS.lock().expect("unpoisoned").1 = cost;
    }

    /// What has come since `before`; watches and memory as they are now.
    pub fn since(&self, before: &Server) -> Server {
        let mut grown = self.clone();
        for (key, count) in &mut grown.requests {
            *count -= before.requests.get(key).copied().unwrap_or_default();
        }
        grown.refused -= before.refused;
        grown.events -= before.events;
        grown.event_bytes -= before.event_bytes;
        grown.list_bytes -= before.list_bytes;
        grown.cpu -= before.cpu + (self.looks - before.looks) * LOOKS.lock().expect("unpoisoned").1;
        grown
    }

    /// Requests of this verb for this resource.
    pub fn of(&self, verb: &str, resource: &str) -> f64 {
        self.requests.get(&(verb.into(), resource.into())).copied().unwrap_or_default()
    }

    /// Requests of agents: everything for flock's kinds, and what they list and watch of others.
    fn requests(&self, by: f64) -> String {
        let of_agents = |verb: &str, resource: &str| {
            let own =
                resource.starts_with("nodepeers") || resource == "nodeconfigs/status" || resource.starts_with("events");
            let read = ["pods", "networkpolicies", "namespaces", "nodeconfigs"].contains(&resource);
            own || read && ["LIST", "WATCH", "GET"].contains(&verb)
        };
        let all = self.requests.iter().filter(|((verb, resource), count)| **count > 0.5 && of_agents(verb, resource));
        let each: Vec<String> =
            all.map(|((verb, resource), count)| format!("{verb} {resource} {}", number(count / by))).collect();
        if each.is_empty() { "no request".into() } else { each.join(", ") }
    }

    /// All of it.
    pub fn told(&self) -> String {
        format!(
            "{}; 429: {}; {} watches; {} events, {:.1} MB; lists {:.1} MB; {:.1} s of CPU; {:.0} MB of memory",
            self.requests(1.0),
            number(self.refused),
            number(self.watches),
            number(self.events),
            self.event_bytes / 1e6,
            self.list_bytes / 1e6,
            self.cpu,
            self.memory / 1e6,
        )
    }

    /// The part of each of so many.
    pub fn each(&self, count: usize) -> String {
        let by = count as f64;
        format!(
            "{}; {:.2} events, {:.0} bytes; {:.1} ms of CPU, the writes themselves among it",
            self.requests(by),
            self.events / by,
            self.event_bytes / by,
            self.cpu * 1000.0 / by
        )
    }

    /// In so many seconds.
    pub fn rest(&self, seconds: u64) -> String {
        format!(
            "{}; {} watches; {} events, {:.0} bytes a second; {:.1} % of one CPU; {:.0} MB of memory",
            self.requests(1.0),
            number(self.watches),
            number(self.events),
            self.event_bytes / seconds as f64,
            self.cpu * 100.0 / seconds as f64,
            self.memory / 1e6,
        )
    }
}

fn number(n: f64) -> String {
    if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.2}") }
}
