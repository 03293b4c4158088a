//! What a node says of an address that one of its pods has beside the node's ranges, and whose word counts where several nodes say
//! it of one address.
//!
//! Every node decides by this rule, so all decide alike. Must not know nodes beyond their names.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::net::IpAddr;

/// Most claims of one node.
pub const CLAIMS_MAX: usize = 256;

/// An address that a pod of a node has beside the node's ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The pod, `NAMESPACE/NAME`.
    pub pod: Box<str>,
    /// Since when, in RFC 3339: the earlier claim of an address counts.
    pub since: Box<str>,
    /// It is not the pod's alone: pods of any nodes may share it (annotation `anycast`). A node says so once for an address, by the
    /// name of one of its pods.
    pub shared: bool,
}

impl Claim {
    /// Whether it is what `former` was, told again: of the same address and pod. Pods that share an address come and go, and the
    /// claim stays.
    pub fn continues(&self, former: &Claim) -> bool {
        let same_pod = self.shared || self.pod == former.pod;
        self.address == former.address && self.shared == former.shared && same_pod
    }
}

/// Of the claims of one address, each with its node, the one that counts; none if there are none.
///
/// A pod has moved to where it was claimed last, so only its latest claim is looked at. Of several pods the one that was claimed
/// first counts. At one moment the node whose name comes first is the earlier one. If that claim is a shared one, all that are
/// shared count.
pub fn counting<'a>(claims: &[(&'a str, &'a Claim)]) -> Option<(&'a str, &'a Claim)> {
    let age = |(node, claim): &(&'a str, &'a Claim)| (&*claim.since, *node);
    let mut latest: BTreeMap<&str, (&str, &Claim)> = BTreeMap::new();
    for one in claims {
        let of_pod = latest.entry(&one.1.pod).or_insert(*one);
        if age(of_pod) < age(one) {
            *of_pod = *one;
        }
    }
    latest.into_values().min_by_key(age)
}
