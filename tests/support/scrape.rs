//! What Prometheus gets when it asks a host's agent for its metrics. What the numbers mean, the tests say.

use std::collections::BTreeMap;

use super::host::Host;
use super::programs::succeed;

/// Where the agents of tests are asked.
pub const METRICS: &str = "127.0.0.1:9469";

/// The arguments of an agent that can be asked.
pub const ASKABLE: [&str; 2] = ["--metrics", METRICS];

/// One page of metrics.
#[derive(Debug, Clone)]
pub struct Scrape(pub String);

impl Host {
    /// Everything that comes back for this request at the agent's port.
    pub fn ask_metrics(&self, request: &str) -> String {
        let (address, port) = METRICS.split_once(':').expect("a port");
        let script = format!("exec 3<>/dev/tcp/{address}/{port}; printf '%b' \"$0\" >&3; cat <&3");
        succeed(self.command("bash").args(["-ec", &script, request]))
    }

    /// The metrics of the host's agent.
    pub fn scrape(&self) -> Scrape {
        let answer = self.ask_metrics("GET /metrics HTTP/1.1\\r\\nHost: flock\\r\\nAccept: text/plain\\r\\n\\r\\n");
        let (head, page) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", page.len())), "{head}");
        Scrape(page.to_owned())
    }
}

impl Scrape {
    /// The value of the sample of this name with exactly these labels, as they stand there: `flock_x{a="b"}`.
    pub fn value(&self, sample: &str) -> Option<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        Some(line.parse().unwrap_or_else(|_| panic!("{sample} {line}")))
    }

    /// The value of a sample that has to be there.
    #[track_caller]
    pub fn of(&self, sample: &str) -> f64 {
        self.value(sample).unwrap_or_else(|| panic!("{sample} is not in\n{}", self.0))
    }

    /// Each family with its type.
    pub fn families(&self) -> BTreeMap<&str, &str> {
        self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
    }

    /// Number of samples.
    pub fn series(&self) -> usize {
        self.0.lines().filter(|line| !line.starts_with('#')).count()
    }
}
