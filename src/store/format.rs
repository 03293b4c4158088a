//! How the allocation table looks on disk: one record a line, each with its checksum.
//!
//! ```text
//! 0f1e2d3c4b5a6978 {"flock":{"version":1,"boot":"…"}}             the header, always first
//! …                {"put":{"container_id":"…","ifname":"eth0",…}}  a lease, new or changed
//! …                {"free":{"container_id":"…","ifname":"eth0","at":…,"ips":["…"]}}
//! ```
//!
//! Later records win. The checksum (FNV-1a-64 of the JSON) finds torn and damaged lines; it does not resist an attacker,
//! who would have to be root. Must not do I/O.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::{Attachment, GATEWAY4, fnv1a64};
use crate::lease::{Lease, Phase, PodName};

/// The version of the format. A file of another version is set aside unread.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Whose file this is.
    Header {
        /// Version of the format.
        version: u32,
        /// The boot that the file belongs to.
        boot: String,
    },
    /// A lease, new or changed.
    Put(Box<Lease>),
    /// The end of a lease.
    Free(Freed),
}

/// A lease that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// Its key.
    pub attachment: Attachment,
    /// When it ended, in milliseconds of the boot clock.
    pub at: u64,
    /// Its addresses, which rest from then on.
    pub ips: Vec<IpAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Flock { version: u32, boot: String },
    Put(Box<Put>),
    Free(Free),
}

#[derive(Serialize, Deserialize)]
struct Put {
    container_id: String,
    ifname: String,
    state: State,
    network: String,
    netns: String,
    host_link: String,
    host_mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_mac: Option<String>,
    mtu: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip6: Option<std::net::Ipv6Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip4: Option<std::net::Ipv4Addr>,
    /// Absent where it is the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway4: Option<std::net::Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Pending,
    Committed,
}

#[derive(Serialize, Deserialize)]
struct Free {
    container_id: String,
    ifname: String,
    at: u64,
    #[serde(default)]
    ips: Vec<IpAddr>,
}

/// The line of `record`, with its line end.
pub fn encode(record: &Record) -> Vec<u8> {
    let line = match record {
        Record::Header { version, boot } => Line::Flock { version: *version, boot: boot.clone() },
        Record::Put(lease) => Line::Put(Box::new(Put::from(&**lease))),
        Record::Free(freed) => Line::Free(Free {
            container_id: freed.attachment.container_id.to_string(),
            ifname: freed.attachment.ifname.to_string(),
            at: freed.at,
            ips: freed.ips.clone(),
        }),
    };
    // These types hold nothing that JSON cannot express: no maps with odd keys, no floats.
    let json = serde_json::to_string(&line).unwrap_or_default();
    format!("{:016x} {json}\n", fnv1a64(json.as_bytes())).into_bytes()
}

/// The record of one line (without its line end), or none if the line is damaged.
pub fn decode(line: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(line).ok()?;
    let (sum, json) = text.split_once(' ')?;
    if sum.len() != 16 || u64::from_str_radix(sum, 16) != Ok(fnv1a64(json.as_bytes())) {
        return None;
    }
    match serde_json::from_str(json).ok()? {
        Line::Flock { version, boot } => Some(Record::Header { version, boot }),
        Line::Put(put) => put.lease().map(|lease| Record::Put(Box::new(lease))),
        Line::Free(free) => {
            Some(Record::Free(Freed { attachment: key(&free.container_id, &free.ifname)?, at: free.at, ips: free.ips }))
        }
    }
}

fn key(container_id: &str, ifname: &str) -> Option<Attachment> {
    Some(Attachment { container_id: container_id.parse().ok()?, ifname: ifname.parse().ok()? })
}

impl From<&Lease> for Put {
    fn from(lease: &Lease) -> Put {
        Put {
            container_id: lease.attachment.container_id.to_string(),
            ifname: lease.attachment.ifname.to_string(),
            state: match lease.phase {
                Phase::Pending => State::Pending,
                Phase::Committed => State::Committed,
            },
            network: lease.network.clone(),
            netns: lease.netns.clone(),
            host_link: lease.host_link.to_string(),
            host_mac: lease.host_mac.to_string(),
            pod_mac: lease.pod_mac.map(|mac| mac.to_string()),
            mtu: lease.mtu,
            ip6: lease.ipv6,
            ip4: lease.ipv4,
            gateway4: Some(lease.gateway4).filter(|gateway| *gateway != GATEWAY4),
            host_index: lease.host_index,
            namespace: lease.pod.as_ref().map(|pod| pod.namespace.clone()),
            pod_name: lease.pod.as_ref().map(|pod| pod.name.clone()),
            since: lease.since,
            call: lease.call.clone(),
        }
    }
}

impl Put {
    fn lease(self) -> Option<Lease> {
        Some(Lease {
            attachment: key(&self.container_id, &self.ifname)?,
            phase: match self.state {
                State::Pending => Phase::Pending,
                State::Committed => Phase::Committed,
            },
            network: self.network,
            netns: self.netns,
            host_link: self.host_link.parse().ok()?,
            host_mac: self.host_mac.parse().ok()?,
            pod_mac: self.pod_mac.map(|mac| mac.parse()).transpose().ok()?,
            mtu: self.mtu,
            ipv6: self.ip6,
            ipv4: self.ip4,
            gateway4: self.gateway4.unwrap_or(GATEWAY4),
            host_index: self.host_index,
            pod: self.namespace.zip(self.pod_name).map(|(namespace, name)| PodName { namespace, name }),
            since: self.since,
            call: self.call,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::lease;

    fn records() -> Vec<Record> {
        let mut other = lease("def/net1");
        other.pod = Some(PodName { namespace: "mail".into(), name: "smtp-0".into() });
        other.phase = Phase::Pending;
        other.ipv4 = None;
        other.call = Some("c1".into());
        vec![
            Record::Header { version: VERSION, boot: "b".into() },
            Record::Put(Box::new(lease("abc/eth0"))),
            Record::Put(Box::new(other)),
            Record::Free(Freed {
                attachment: lease("abc/eth0").attachment,
                at: 9,
                ips: vec!["10.0.0.5".parse().expect("literal")],
            }),
        ]
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        for record in records() {
            let line = encode(&record);
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(decode(&line[..line.len() - 1]), Some(record));
        }
    }

    #[test]
    fn no_single_changed_byte_goes_unnoticed() {
        for record in records() {
            let line = encode(&record);
            let line = &line[..line.len() - 1];
            for position in 0..line.len() {
                let mut damaged = line.to_vec();
                damaged[position] ^= 0x01;
                assert_ne!(decode(&damaged), Some(record.clone()), "byte {position}");
                assert_eq!(decode(&line[..position]), None, "cut at {position}");
            }
        }
    }
}
