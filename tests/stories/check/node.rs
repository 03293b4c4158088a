//! A node to check: with an uplink, an agent and pods, and what the program says of it.

use std::net::IpAddr;

use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::host::Host;
use crate::support::machine::Machine;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK, FLOCK_AGENT, put_copy};

/// Where runtimes have their plugins and their configuration.
pub(super) const PLUGINS: &str = "/opt/cni/bin";
pub(super) const CONFIGURATION: &str = "/etc/cni/net.d";

/// A host with an uplink, as a healthy node has it, with a configuration in which there is no runtime. What the machine's own kernel hands down is set to what it usually is.
pub(super) fn host() -> Host {
    let host = Host::new();
    host.script(&format!(
        "mkdir -p /run/etc; for name in alternatives group iproute2 ld.so.cache ld.so.conf ld.so.conf.d nsswitch.conf passwd protocols services; do \
         if [ -e /etc/$name ]; then cp -a /etc/$name /run/etc/; fi; done; mount --bind /run/etc /etc; \
         for key in all default; do echo 0 >/proc/sys/net/ipv4/conf/$key/rp_filter; done; mount -t tmpfs tmpfs /opt; \
         mkdir -p {CONFIGURATION} {PLUGINS}"
    ));
    put_copy(FLOCK, host.path(&format!("{PLUGINS}/flock")));
    host
}

/// The router at the end of the uplink, by which the host leaves.
pub(super) fn router(host: &Host) -> Machine<'_> {
    let router = host.machine("up0", &["192.0.2.10/24", "2001:db8:9::2/64"], &["192.0.2.1/24", "2001:db8:9::1/64"]);
    host.run("ip route add default via 192.0.2.1");
    host.run("ip -6 route add default via 2001:db8:9::1");
    router
}

/// An agent of this host that keeps the runtime's configuration.
pub(super) fn agent<'a>(host: &'a Host, config: &str) -> Agent<'a> {
    host.agent().config(Some(config)).args(&["--cni-conf-dir", CONFIGURATION]).start()
}

/// The usual NodeConfig.
pub(super) fn usual() -> String {
    node_config(CIDR6, CIDR4)
}

/// What the program found.
#[derive(Debug)]
pub(super) struct Checked {
    pub exit: i32,
    pub said: Value,
    pub errors: String,
}

/// One finding: area, level, sentence, remedy.
pub(super) type Found = (String, String, String, String);

/// Checks this host, with further arguments.
pub(super) fn check(host: &Host, arguments: &[&str]) -> Checked {
    let output = host.command(FLOCK_AGENT).args(["check", "-o", "json"]).args(arguments).output().expect("it starts");
    Checked {
        exit: output.status.code().expect("it ended by itself"),
        said: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Checked {
    /// Everything that was found but for what is as it should be.
    pub(super) fn wrong(&self) -> Vec<Found> {
        let findings = self.said["findings"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let all = findings.iter().map(|f| (text(f, "area"), text(f, "level"), text(f, "what"), text(f, "remedy")));
        all.filter(|(_, level, _, _)| level != "ok").collect()
    }

    /// All is well, and in the areas that are always told.
    #[track_caller]
    pub(super) fn assert_well(&self, when: &str) {
        assert_eq!((self.exit, self.wrong()), (0, vec![]), "{when}: {}", self.errors);
    }

    /// The finding of this area and level whose sentence holds all of these words.
    #[track_caller]
    pub(super) fn has(&self, area: &str, level: &str, words: &[&str]) -> Found {
        let wrong = self.wrong();
        let found = wrong
            .iter()
            .find(|(of, how, what, _)| of == area && how == level && words.iter().all(|word| what.contains(word)));
        found.unwrap_or_else(|| panic!("{area} {level} {words:?} is not in {wrong:#?}")).clone()
    }
}

/// A pod with its answer and the name of its link.
pub(super) struct Living<'a> {
    pub pod: Pod<'a>,
    pub attached: Attached,
    pub link: String,
}

impl Living<'_> {
    pub(super) fn new<'a>(host: &'a Host, name: &str) -> Living<'a> {
        let (pod, attached) = host.attach(name);
        let link = attached.result["interfaces"][0]["name"].as_str().expect("a name").to_owned();
        Living { pod, attached, link }
    }

    pub(super) fn ip(&self, v6: bool) -> IpAddr {
        self.attached.ips().into_iter().find(|ip| ip.is_ipv6() == v6).expect("both families")
    }
}
