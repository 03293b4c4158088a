//! Whether pods of other nodes have, or other nodes could give away, an address that a pod names, as far as this node has
//! heard. Two pods of one cluster must not both be told that an address is theirs, and the ledger knows its own node only.
//!
//! Must not know where the word of other nodes comes from, nor wait for it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::agent::fault::Cause;
use model::claims::{Obstacle, Wish};
use model::lease::PodName;

/// A way to ask what hinders a wish. It must answer at once.
type Lookup = dyn Fn(Wish<'_>) -> Option<Obstacle> + Send + Sync;

/// What other nodes have.
#[derive(Clone)]
pub struct Claims(Arc<Lookup>);

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

impl Default for Claims {
    /// Nobody else has anything, as on a node without a cluster.
    fn default() -> Claims {
        Claims::by(|_| None)
    }
}

impl Claims {
    /// Claims as `lookup` knows them.
    pub fn by(lookup: impl Fn(Wish<'_>) -> Option<Obstacle> + Send + Sync + 'static) -> Claims {
        Claims(Arc::new(lookup))
    }

    /// Whether `pod` can have the addresses `alone` for itself and share the others, as far as other nodes are concerned. What
    /// another node has for a pod of the same name is of an earlier life of it, since a cluster has one pod of a name: that node
    /// may be dead, and must not keep the pod from coming back elsewhere.
    ///
    /// # Errors
    /// [`Cause::Elsewhere`], with the first address that it cannot have.
    pub fn allow(&self, alone: &[IpAddr], shared: &[IpAddr], pod: Option<&PodName>) -> Result<(), Cause> {
        if alone.is_empty() && shared.is_empty() {
            return Ok(());
        }
        let pod = pod.map(ToString::to_string);
        match (self.0)(Wish { pod: pod.as_deref(), alone, shared }) {
            Some(obstacle) => Err(Cause::Elsewhere(Box::new(obstacle))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fault::{Fault, Step};
    use model::claims::obstacle;
    use model::peers::{Claim, Peer, Peers};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    // covers: FM-M06
    #[test]
    fn an_address_that_another_nodes_pod_claims_is_refused_until_that_pod_gives_it_up_or_its_node_is_deleted() {
        let claims = Claims::by(|wish| {
            let (pod, since) = ("media/plex-0".into(), "2026-11-26T12:00:00Z".into());
            let theirs = Claim { address: ip("203.0.113.5"), pod, since, shared: false };
            let other = Peer { claims: vec![theirs], ..Peer::default() };
            obstacle(wish, "host001", &[], &[], &Peers::from([("host002", &other)]))
        });
        let pod = |name: &str| PodName { namespace: "media".into(), name: name.into(), uid: None };
        for asker in [None, Some(&pod("plex-1"))] {
            let cause = claims.allow(&[ip("203.0.113.4"), ip("203.0.113.5")], &[], asker).expect_err("it is claimed");
            let error = Fault { step: Step::Intent, cause }.to_error();
            assert_eq!(error.code().number(), 11, "{error}");
            assert_eq!(
                error.details(),
                "203.0.113.5 is held by media/plex-0 on node host002; if that node is gone: kubectl delete nodeconfig host002"
            );
        }
        assert!(
            claims.allow(&[ip("203.0.113.5")], &[], Some(&pod("plex-0"))).is_ok(),
            "it has moved here from a dead node"
        );
        assert!(claims.allow(&[ip("203.0.113.4")], &[], Some(&pod("plex-1"))).is_ok());
    }
}
