//! Reads the `allocations.json` (version 1) of the Go flock, so that a node can be moved over with its pods running.
//!
//! Only entries whose link stands in the kernel are taken: links do not survive a reboot, so these are the entries of this
//! boot whose pods still run. The file is only read. Must not do I/O.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

use model::addr::{Attachment, GATEWAY4, IfName, Mac};
use model::excerpt::Excerpt;
use model::lease::{Lease, Phase, PodName};

/// Why the file cannot be taken over.
#[derive(Debug)]
pub enum ImportError {
    /// It is not the JSON that it should be.
    Syntax(serde_json::Error),
    /// It is of another version than 1.
    Version(u32),
    /// An entry has a container id that cannot be one.
    ContainerId(String),
    /// It is longer than [`FILE_MAX`].
    TooLong,
}

/// Longest file that is taken over, in bytes. An entry has some five hundred, and a node a few hundred of them.
pub const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Longest message of the reader that an error repeats, in bytes.
const MESSAGE_MAX: usize = 200;

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::TooLong => write!(f, "longer than {} MiB, so it is no allocations.json", FILE_MAX >> 20),
            // The reader's message quotes the value that is wrong.
            ImportError::Syntax(error) => {
                write!(f, "not an allocations.json: {}", Excerpt::line(&error.to_string(), MESSAGE_MAX))
            }
            ImportError::Version(found) => write!(f, "allocations.json is of version {found}, only 1 can be imported"),
            ImportError::ContainerId(id) => {
                write!(f, "allocations.json holds the container id {}", Excerpt::of(id))
            }
        }
    }
}

impl std::error::Error for ImportError {}

/// What the kernel tells about a host link.
#[derive(Debug, Clone, Copy)]
pub struct HostLink {
    /// Its index.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
}

#[derive(Deserialize)]
struct File {
    version: u32,
    #[serde(default)]
    allocations: Option<Vec<Allocation>>,
}

#[derive(Deserialize)]
struct Allocation {
    container_id: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    pod_name: String,
    #[serde(default)]
    ip6: Option<Ipv6Addr>,
    #[serde(default)]
    ip4: Option<Ipv4Addr>,
    #[serde(default)]
    addresses: Option<Vec<IpAddr>>,
    #[serde(default)]
    anycast: Option<Vec<IpAddr>>,
    #[serde(default)]
    state: String,
}

/// The leases of the entries in `bytes` whose link `link` knows. The Go flock knew one interface per container, `eth0`. Its
/// pending entries come as pending, so that the start undoes them like any other. `now` is in milliseconds of the
/// boot clock.
///
/// # Errors
/// The file is not what it should be; nothing of it is taken.
pub fn leases(
    bytes: &[u8],
    now: u64,
    mut link: impl FnMut(&IfName) -> Option<HostLink>,
) -> Result<Vec<Lease>, ImportError> {
    if bytes.len() as u64 > FILE_MAX {
        return Err(ImportError::TooLong);
    }
    let file: File = serde_json::from_slice(bytes).map_err(ImportError::Syntax)?;
    if file.version != 1 {
        return Err(ImportError::Version(file.version));
    }
    let mut leases = Vec::new();
    for entry in file.allocations.unwrap_or_default() {
        let bad_id = |_| ImportError::ContainerId(entry.container_id.clone());
        let attachment: Attachment = format!("{}/eth0", entry.container_id).parse().map_err(bad_id)?;
        let host_link = attachment.host_link(0);
        let Some(HostLink { mac, mtu, index }) = link(&host_link) else { continue };
        let has_family = |ip: &IpAddr| if ip.is_ipv6() { entry.ip6.is_some() } else { entry.ip4.is_some() };
        let is_primary = |ip: &IpAddr| entry.ip6.map(IpAddr::V6) == Some(*ip) || entry.ip4.map(IpAddr::V4) == Some(*ip);
        // The first of each family may be among them, or only above.
        let mut extra = entry.addresses.unwrap_or_default();
        extra.retain(|ip| has_family(ip) && !is_primary(ip));
        let mut anycast = entry.anycast.unwrap_or_default();
        anycast.retain(has_family);
        let has_name = !entry.namespace.is_empty() && !entry.pod_name.is_empty();
        leases.push(Lease {
            attachment,
            phase: if entry.state == "committed" { Phase::Committed } else { Phase::Pending },
            network: "flock".into(),
            netns: String::new(),
            host_link,
            host_mac: mac,
            pod_mac: None,
            mtu,
            ipv6: entry.ip6,
            ipv4: entry.ip4,
            extra: without_doubles(extra),
            anycast: without_doubles(anycast),
            any_source: false,
            audit: false,
            gateway4: GATEWAY4,
            host_index: Some(index),
            // The file's `owner_uid` is left out: whether it is the pod's or that of what made the pod, the file does not say.
            pod: has_name.then_some(PodName { namespace: entry.namespace, name: entry.pod_name, uid: None }),
            since: now,
            call: None,
        });
    }
    Ok(leases)
}

/// The first of equal ones, in their order.
fn without_doubles(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    ips.into_iter().filter(|ip| seen.insert(*ip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"version":1,"node":"host001","allocations":[
        {"container_id":"aaa","namespace":"mail","pod_name":"smtp-0","owner_uid":"u","ip6":"2001:db8::5","ip4":"10.0.0.5",
         "anycast":["2001:db8:f::1","192.0.2.53"],"addresses":["2001:db8::5","10.0.0.5","203.0.113.5","203.0.113.5"],"state":"committed","allocated_at":"2026-04-25T09:25:45-05:00"},
        {"container_id":"bbb","namespace":"mail","pod_name":"imap-0","owner_uid":"/","ip6":"2001:db8::6","state":"pending",
         "anycast":["192.0.2.53"],"addresses":null,
         "allocated_at":"2026-04-25T09:25:45-05:00"},
        {"container_id":"gone","namespace":"mail","pod_name":"old","owner_uid":"u","ip6":"2001:db8::7","state":"committed",
         "allocated_at":"2025-04-25T09:25:45-05:00"}]}"#;

    fn link(name: &IfName) -> Option<HostLink> {
        let gone: Attachment = "gone/eth0".parse().expect("key");
        (*name != gone.host_link(0)).then_some(HostLink { mac: Mac([2, 0, 0, 0, 0, 9]), mtu: 9000, index: 7 })
    }

    #[test]
    fn pods_of_the_go_flock_are_taken_over_with_their_addresses_and_links() {
        let leases = leases(FILE.as_bytes(), 5, link).expect("a good file");
        assert_eq!(leases.len(), 2, "an entry of an earlier boot has no link and is left out");
        assert_eq!(leases[0].ipv6, "2001:db8::5".parse().ok());
        assert_eq!((leases[0].phase, leases[0].mtu, leases[0].pod_mac), (Phase::Committed, 9000, None));
        assert_eq!((leases[0].pod.as_ref().and_then(|pod| pod.uid.as_deref()), leases[0].host_index), (None, Some(7)));
        let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&leases[0].extra), ["203.0.113.5"], "beside the first of each family");
        assert_eq!(text(&leases[0].anycast), ["2001:db8:f::1", "192.0.2.53"]);
        assert_eq!(leases[1].phase, Phase::Pending);
        assert_eq!((text(&leases[1].anycast), leases[1].pod.as_ref().and_then(|pod| pod.uid.clone())), (vec![], None));
    }

    #[test]
    fn a_refused_file_is_not_repeated_in_the_log() {
        let long = "/".repeat(1 << 20);
        for text in [
            format!(r#"{{"version":1,"allocations":[{{"container_id":"{long}"}}]}}"#),
            format!(r#"{{"version":1,"allocations":[{{"container_id":"{}/"}}]}}"#, "\u{7f}".repeat(1000)),
            format!(r#"{{"version":"{long}"}}"#),
        ] {
            let error = leases(text.as_bytes(), 0, link).expect_err("refused").to_string();
            assert!(error.len() < 400, "{} bytes", error.len());
        }
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused_whole() {
        for (text, why) in [
            ("{", "not an allocations.json"),
            (r#"{"version":2}"#, "version 2"),
            (&" ".repeat(FILE_MAX as usize + 1), "longer than 16 MiB"),
            (r#"{"version":1,"allocations":[{"container_id":"../x"}]}"#, "\"../x\""),
        ] {
            let error = leases(text.as_bytes(), 0, link).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(leases(br#"{"version":1,"node":"n","allocations":null}"#, 0, link).expect("empty").is_empty());
    }
}
