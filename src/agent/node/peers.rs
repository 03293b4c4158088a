//! The nodes of the cluster as the API server has them: what stands on their board, and how it gets there.
//!
//! A server that falls silent takes nothing away: what it said last stays, marked as no longer heard. Must not decide which node is
//! reached, nor when one that is gone is forgotten.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::agent::board::Board;
use crate::agent::node::cluster::{Hearing, advice};
use crate::agent::policing::handle::Police;
use crate::agent::routing::news::News;
use crate::kube::kind::{Name, Objects};
use crate::kube::reflect::Audience;
use crate::kube::watch::{Changes, WatchNotice};
use model::peers::{Peer, Peers, Word};

/// The resource, as RBAC and the CRD name it.
pub const RESOURCE: &str = "nodepeers";

/// What the API server has said of the nodes, this one among them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listed {
    /// Each node by its name; none before the first list.
    pub nodes: Option<Arc<Objects<Peer>>>,
    /// The server has been heard since it last refused or fell silent.
    pub heard: bool,
    /// It has refused or been silent at least once.
    pub refused: bool,
    /// What an operator has to do so that it is heard, if that is known.
    pub remedy: Option<String>,
}

impl Listed {
    /// The nodes by their names.
    pub fn peers(&self) -> Peers<'_> {
        let nodes = self.nodes.iter().flat_map(|nodes| nodes.iter());
        nodes.map(|(name, peer)| (name.name.as_str(), peer.as_ref())).collect()
    }

    /// What has been heard: `peers` are those of [`Listed::peers`].
    pub fn word<'a>(&self, peers: &'a Peers<'a>) -> Word<'a> {
        match (&self.nodes, self.heard) {
            (None, _) => Word::None,
            (Some(_), true) => Word::Heard(peers),
            (Some(_), false) => Word::Away(peers),
        }
    }

    /// The NodePeer of this name; none where there is none, or nothing has been heard.
    pub fn of(&self, node: &str) -> Option<&Arc<Peer>> {
        self.nodes.as_ref()?.get(&Name { namespace: String::new(), name: node.into() })
    }
}

/// Passes on what the API server says of the nodes.
#[derive(Debug)]
pub struct PeerAudience {
    /// Where it is published.
    pub listed: Board<Listed>,
    /// Wakes the thread of the routes, which looks at it.
    pub routing: Sender<News>,
    /// Masquerades to none of their ranges.
    pub police: Police,
    /// Logs what the watch tells.
    pub hearing: Hearing,
}

impl PeerAudience {
    fn change(&self, change: impl FnOnce(&mut Listed)) {
        let mut listed = Listed::clone(&self.listed.get());
        change(&mut listed);
        self.listed.set(listed);
        // It ends only with the agent.
        self.routing.send(News::Look).ok();
    }
}

impl Audience<Peer> for PeerAudience {
    fn changed(&mut self, _: Changes<Peer>, objects: &Arc<Objects<Peer>>) {
        self.change(|listed| *listed = Listed { nodes: Some(objects.clone()), heard: true, ..Listed::default() });
        self.police.look();
    }

    fn notice(&mut self, notice: WatchNotice) {
        self.hearing.report(&notice);
        match notice {
            // Before the objects of a first list: they say the rest.
            WatchNotice::Synced { .. } if self.listed.get().nodes.is_none() => {}
            WatchNotice::Synced { .. } => self.change(|listed| (listed.heard, listed.remedy) = (true, None)),
            // An old resource version is normal, and the next LIST cures it.
            WatchNotice::Failed { code: Some(410), .. } | WatchNotice::Unusable { .. } => {}
            WatchNotice::Failed { verb, code, message } => {
                let remedy = code.and_then(|code| advice(verb, RESOURCE, code, &message));
                let remedy = remedy.map(|advice| format!("{}: {}", advice.what, advice.remedy));
                self.change(|listed| (listed.heard, listed.refused, listed.remedy) = (false, true, remedy));
            }
        }
    }

    fn heard(&mut self) {
        self.hearing.heard();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::watched::Watched;
    use std::sync::mpsc::channel;

    #[test]
    fn a_server_that_falls_silent_takes_nothing_away() {
        let (routing, woken) = channel();
        let (police, told) = channel();
        let mut audience = PeerAudience {
            listed: Board::default(),
            routing,
            police: Police::new(police),
            hearing: Hearing::new(RESOURCE, &Watched::default()),
        };
        let board = audience.listed.clone();
        let word = || {
            let listed = board.get();
            let peers = listed.peers();
            match listed.word(&peers) {
                Word::None => None,
                Word::Heard(peers) => Some((peers.len(), true)),
                Word::Away(peers) => Some((peers.len(), false)),
            }
        };
        let failed = |code| WatchNotice::Failed { verb: "list", code, message: "404 page not found".into() };
        audience.notice(failed(Some(404)));
        assert_eq!(word(), None);
        assert!(board.get().remedy.as_ref().is_some_and(|remedy| remedy.contains("deploy/base")));
        let name = Name { namespace: String::new(), name: "two".into() };
        audience.notice(WatchNotice::Synced { objects: 1 });
        assert_eq!(word(), None, "its objects come next");
        let nodes = Objects::from([(Arc::new(name), Arc::new(Peer::default()))]);
        audience.changed(Changes::default(), &Arc::new(nodes));
        assert_eq!(word(), Some((1, true)));
        assert!(board.get().of("two").is_some() && board.get().of("three").is_none());
        audience.notice(failed(Some(410)));
        assert_eq!(word(), Some((1, true)), "a list follows at once");
        audience.notice(failed(None));
        assert_eq!((word(), board.get().remedy.clone()), (Some((1, false)), None));
        audience.notice(WatchNotice::Synced { objects: 1 });
        assert_eq!(word(), Some((1, true)));
        assert_eq!((woken.try_iter().count(), told.try_iter().count()), (4, 1), "their ranges came once");
    }
}
