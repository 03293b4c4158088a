//! A lease and its link as an ADD leaves them, for tests of this crate and of the main one, which includes this file as well. Must
//! not be in any product.

use std::string::ToString as _;
use std::vec;

use model::addr::{Attachment, Family, GATEWAY4, GATEWAY6, LinkEnd};
use model::lease::{Lease, Phase};
use model::observed::Observed;
use model::plan::{self, SETTINGS};

/// A committed lease with an address of each family.
pub(crate) fn lease(key: &str) -> Lease {
    let attachment: Attachment = key.parse().expect("a well-formed key");
    Lease {
        phase: Phase::Committed,
        network: "flock".into(),
        netns: "/run/netns/x".into(),
        host_link: attachment.host_link(0),
        host_mac: attachment.mac(LinkEnd::Host),
        pod_mac: Some(attachment.mac(LinkEnd::Pod)),
        mtu: 1500,
        ipv6: Some("2001:db8::5".parse().expect("literal")),
        ipv4: Some("10.0.0.5".parse().expect("literal")),
        extra: vec![],
        anycast: vec![],
        any_source: false,
        audit: false,
        gateway4: GATEWAY4,
        host_index: None,
        pod: None,
        since: 7,
        call: None,
        attachment,
    }
}

/// The host end of the link of `lease` as an ADD leaves it.
pub(crate) fn link_of(lease: &Lease) -> Observed {
    let mut link = Observed {
        index: 7,
        name: lease.host_link.to_string(),
        mac: Some(lease.host_mac),
        mtu: lease.mtu,
        alias: Some(plan::alias(&lease.attachment)),
        up: true,
        carrier: true,
        settings4: vec![-1; 33],
        settings6: vec![-1; 60],
        routes: lease.addresses().map(|ip| (ip.into(), None)).collect(),
        addresses: vec![GATEWAY6.into(), GATEWAY4.into()],
        neighbours: lease.addresses().filter_map(|ip| Some((ip, lease.pod_mac?))).collect(),
        further: lease.extra.clone(),
        shared: vec![],
    };
    for setting in &SETTINGS {
        let settings = match setting.family {
            Family::V4 => &mut link.settings4,
            Family::V6 => &mut link.settings6,
        };
        settings[setting.place] = setting.value;
    }
    link
}
