//! Who of another node's pods claims an address, as far as this node has heard. Two pods of one cluster must not both be told
//! that an address is theirs, and the ledger knows its own node only.
//!
//! Must not know where the word of other nodes comes from, nor wait for it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::agent::fault::{Cause, Claimant};
use model::lease::PodName;

/// A way to ask which other pod than the given one, NAMESPACE/NAME, has an address on another node. It must answer at once.
type Lookup = dyn Fn(IpAddr, Option<&str>) -> Option<Claimant> + Send + Sync;

/// What pods of other nodes claim.
#[derive(Clone)]
pub struct Claims(Arc<Lookup>);

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

impl Default for Claims {
    /// Nobody else claims anything, as on a node without a cluster.
    fn default() -> Claims {
        Claims::by(|_, _| None)
    }
}

impl Claims {
    /// Claims as `lookup` knows them: of an address, for another pod than the given one.
    pub fn by(lookup: impl Fn(IpAddr, Option<&str>) -> Option<Claimant> + Send + Sync + 'static) -> Claims {
        Claims(Arc::new(lookup))
    }

    /// Whether `pod` can have the addresses `named`, as far as other nodes are concerned. What another node has for a pod of the
    /// same name is of an earlier life of it, since a cluster has one pod of a name: that node may be dead, and must not keep the
    /// pod from coming back elsewhere.
    ///
    /// # Errors
    /// [`Cause::Claimed`], with the first address that another pod claims.
    pub fn allow(&self, named: &[IpAddr], pod: Option<&PodName>) -> Result<(), Cause> {
        let pod = pod.filter(|_| !named.is_empty()).map(ToString::to_string);
        for ip in named {
            if let Some(claimant) = (self.0)(*ip, pod.as_deref()) {
                return Err(Cause::Claimed { ip: *ip, claimant });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fault::{Fault, Step};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    // covers: FM-M06
    #[test]
    fn an_address_that_another_nodes_pod_claims_is_refused_until_that_pod_gives_it_up_or_its_node_is_deleted() {
        let claims = Claims::by(|asked, asker| {
            let claimant = Claimant { node: "host002".into(), pod: "media/plex-0".into() };
            (asked == ip("203.0.113.5") && asker != Some("media/plex-0")).then_some(claimant)
        });
        let pod = |name: &str| PodName { namespace: "media".into(), name: name.into(), uid: None };
        for asker in [None, Some(&pod("plex-1"))] {
            let cause = claims.allow(&[ip("203.0.113.4"), ip("203.0.113.5")], asker).expect_err("it is claimed");
            let error = Fault { step: Step::Intent, cause }.to_error();
            assert_eq!(error.code().number(), 11, "{error}");
            assert_eq!(
                error.details(),
                "203.0.113.5 is held by media/plex-0 on node host002; if that node is gone: kubectl delete nodeconfig host002"
            );
        }
        assert!(claims.allow(&[ip("203.0.113.5")], Some(&pod("plex-0"))).is_ok(), "it has moved here from a dead node");
        assert!(claims.allow(&[ip("203.0.113.4")], Some(&pod("plex-1"))).is_ok());
    }
}
