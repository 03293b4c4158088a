//! How the allocation table looks on disk: one record a line, each with its checksum and that of the line before.
//!
//! ```text
//! 0f1e2d3c4b5a6978 {"flock":{"version":2,"boot":"…","serial":…}}                    the header, always first
//! 9a8b7c6d5e4f3021 0f1e2d3c4b5a6978 {"put":{"container_id":"…","ifname":"eth0",…}}  a lease, new or changed
//! …                9a8b7c6d5e4f3021 {"free":{"container_id":"…","ifname":"eth0","at":…,"ips":["…"]}}
//! ```
//!
//! Later records win. The first number is the FNV-1a-64 of all that follows it in the line, the second the first number of the
//! line before: torn and damaged lines do not agree with themselves, and lines that are missing, doubled, exchanged or from another
//! file do not agree with their neighbours. No header is like another of the same boot. None of this resists an attacker, who
//! would have to be root.
//!
//! Keys that a lease lacks are not written, and keys of a later flock of this version are passed over.
//!
//! Version 1 had no second number and no serial. Its files are read; a flock that knows version 1 only understands the
//! header of a newer file as far as its version. Must not do I/O.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use model::addr::{Attachment, GATEWAY4, fnv1a64};
use model::lease::{Lease, Phase, PodName};

/// The version of the format that is written.
pub const VERSION: u32 = 2;

/// The version before [`VERSION`], which is still read: its lines do not name the line before. A file of any other version is
/// set aside unread.
pub const UNCHAINED: u32 = 1;

/// The checksum of a line, which the next line repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum(u64);

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One line that agrees with itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it says.
    pub record: Record,
    /// Its checksum.
    pub sum: Sum,
    /// The checksum of the line before; none in a header, and in all lines of version 1.
    pub after: Option<Sum>,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Whose file this is.
    Header {
        /// Version of the format.
        version: u32,
        /// The boot that the file belongs to.
        boot: String,
        /// Which file of that boot it is: greater than that of any earlier one. 0 in version 1.
        serial: u64,
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
    /// The pod that had them, if that was known: it may have them back early.
    pub pod: Option<PodName>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    Flock {
        version: u32,
        boot: String,
        #[serde(default)]
        serial: u64,
    },
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extra: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    anycast: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "is_false")]
    any_source: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    audit: bool,
    /// Absent where it is the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway4: Option<std::net::Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_uid: Option<String>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_uid: Option<String>,
}

/// The line of `record`, with its line end, and its checksum. `after` is that of the line before; none for a header.
pub fn encode(record: &Record, after: Option<Sum>) -> (Vec<u8>, Sum) {
    let body = match record {
        Record::Header { version, boot, serial } => {
            Body::Flock { version: *version, boot: boot.clone(), serial: *serial }
        }
        Record::Put(lease) => Body::Put(Box::new(Put::from(&**lease))),
        Record::Free(freed) => Body::Free(Free {
            container_id: freed.attachment.container_id.to_string(),
            ifname: freed.attachment.ifname.to_string(),
            at: freed.at,
            ips: freed.ips.clone(),
            namespace: freed.pod.as_ref().map(|pod| pod.namespace.clone()),
            pod_name: freed.pod.as_ref().map(|pod| pod.name.clone()),
            pod_uid: freed.pod.as_ref().and_then(|pod| pod.uid.clone()),
        }),
    };
    // These types hold nothing that JSON cannot express: no maps with odd keys, no floats.
    let json = serde_json::to_string(&body).unwrap_or_default();
    let summed = match after {
        Some(after) => format!("{after} {json}"),
        None => json,
    };
    let sum = Sum(fnv1a64(summed.as_bytes()));
    (format!("{sum} {summed}\n").into_bytes(), sum)
}

/// One line (without its line end), or none if it is damaged.
pub fn decode(line: &[u8]) -> Option<Line> {
    let text = std::str::from_utf8(line).ok()?;
    let (sum, summed) = split_sum(text)?;
    if sum != Sum(fnv1a64(summed.as_bytes())) {
        return None;
    }
    let (after, json) = match split_sum(summed) {
        Some((after, json)) => (Some(after), json),
        None => (None, summed),
    };
    let record = match serde_json::from_str(json).ok()? {
        Body::Flock { version, boot, serial } => Record::Header { version, boot, serial },
        Body::Put(put) => Record::Put(Box::new(put.lease()?)),
        Body::Free(free) => Record::Free(Freed {
            attachment: key(&free.container_id, &free.ifname)?,
            at: free.at,
            ips: free.ips,
            pod: pod_name(free.namespace, free.pod_name, free.pod_uid),
        }),
    };
    Some(Line { record, sum, after })
}

fn split_sum(text: &str) -> Option<(Sum, &str)> {
    let (sum, rest) = text.split_once(' ')?;
    let value = u64::from_str_radix(sum, 16).ok()?;
    // Exactly as it is written: no sign, no capitals.
    (Sum(value).to_string() == sum).then_some((Sum(value), rest))
}

fn pod_name(namespace: Option<String>, name: Option<String>, uid: Option<String>) -> Option<PodName> {
    namespace.zip(name).map(|(namespace, name)| PodName { namespace, name, uid })
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
            extra: lease.extra.clone(),
            anycast: lease.anycast.clone(),
            any_source: lease.any_source,
            audit: lease.audit,
            gateway4: Some(lease.gateway4).filter(|gateway| *gateway != GATEWAY4),
            host_index: lease.host_index,
            namespace: lease.pod.as_ref().map(|pod| pod.namespace.clone()),
            pod_name: lease.pod.as_ref().map(|pod| pod.name.clone()),
            pod_uid: lease.pod.as_ref().and_then(|pod| pod.uid.clone()),
            since: lease.since,
            call: lease.call.clone(),
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
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
            extra: self.extra,
            anycast: self.anycast,
            any_source: self.any_source,
            audit: self.audit,
            gateway4: self.gateway4.unwrap_or(GATEWAY4),
            host_index: self.host_index,
            pod: pod_name(self.namespace, self.pod_name, self.pod_uid),
            since: self.since,
            call: self.call,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::examples::lease;

    fn records() -> Vec<Record> {
        let mut other = lease("def/net1");
        other.pod = Some(PodName { namespace: "mail".into(), name: "smtp-0".into(), uid: Some("2f4c-99".into()) });
        other.phase = Phase::Pending;
        other.ipv4 = None;
        other.call = Some("c1".into());
        other.gateway4 = "169.254.9.9".parse().expect("literal");
        other.host_index = Some(7);
        other.any_source = true;
        other.audit = true;
        other.extra = vec!["2001:db8:f::6".parse().expect("literal")];
        other.anycast = ["2001:db8:f::53", "2001:db8:f::54"].map(|ip| ip.parse().expect("literal")).into();
        vec![
            Record::Header { version: VERSION, boot: "b".into(), serial: 3 },
            Record::Put(Box::new(lease("abc/eth0"))),
            Record::Put(Box::new(other)),
            Record::Free(Freed {
                attachment: lease("abc/eth0").attachment,
                at: 9,
                ips: vec!["10.0.0.5".parse().expect("literal")],
                pod: None,
            }),
            Record::Free(Freed {
                attachment: lease("def/net1").attachment,
                at: 9,
                ips: vec![],
                pod: Some(PodName { namespace: "mail".into(), name: "smtp-0".into(), uid: Some("2f4c-99".into()) }),
            }),
        ]
    }

    const BEFORE: [Option<Sum>; 2] = [None, Some(Sum(0x0f1e_2d3c_4b5a_6978))];

    #[test]
    fn every_record_comes_back_as_it_was() {
        for (record, after) in records().into_iter().flat_map(|record| BEFORE.map(|after| (record.clone(), after))) {
            let (line, sum) = encode(&record, after);
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(decode(&line[..line.len() - 1]), Some(Line { record, sum, after }));
        }
    }

    #[test]
    fn no_single_changed_byte_goes_unnoticed() {
        for (record, after) in records().into_iter().flat_map(|record| BEFORE.map(|after| (record.clone(), after))) {
            let (line, _) = encode(&record, after);
            let line = &line[..line.len() - 1];
            for position in 0..line.len() {
                let mut damaged = line.to_vec();
                damaged[position] ^= 0x01;
                assert_eq!(decode(&damaged), None, "byte {position}");
                assert_eq!(decode(&line[..position]), None, "cut at {position}");
            }
        }
    }

    /// A flock that knows version 1 only must see that a newer file is of version 2, and not that it is damaged.
    // covers: FM-G04
    #[test]
    fn the_header_reads_as_it_did_in_version_1() {
        let header = Record::Header { version: VERSION, boot: "b".into(), serial: 7 };
        let (line, _) = encode(&header, None);
        let json = r#"{"flock":{"version":2,"boot":"b","serial":7}}"#;
        assert_eq!(line, format!("{:016x} {json}\n", fnv1a64(json.as_bytes())).into_bytes());
    }
}
