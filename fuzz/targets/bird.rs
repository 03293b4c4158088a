//! What somebody says on BIRD's control socket, who need not be BIRD.

use flock::bird::reply::{LINE_MAX, REPLY_MAX, Replies, Reply, ReplyError};
use flock::bird::sessions::{sessions, status};
use model::bgp::Bgp;

use super::assert_one_line;

/// Longest error, in bytes.
const ERROR_MAX: usize = 300;

pub(crate) fn check(data: &[u8]) {
    let whole = replies(std::iter::once(data));
    for size in [1, 2, 7, 4096] {
        assert_eq!(replies(data.chunks(size)), whole, "in pieces of {size}");
    }
    let (found, error) = whole;
    if let Some(error) = error {
        assert_one_line(&error.to_string(), ERROR_MAX);
    }
    for reply in &found {
        assert!(reply.all().map(|line| line.text.len()).sum::<usize>() <= 3 * REPLY_MAX, "bytes that are no text grow");
        assert!(reply.all().all(|line| line.code <= 9999 && line.text.len() <= 3 * LINE_MAX));
        status(reply);
        let bgp = bgp();
        let sessions = sessions(&bgp, Some(reply));
        assert_eq!(sessions.len(), bgp.peers.len());
        for (session, peer) in sessions.iter().zip(&bgp.peers) {
            assert_eq!(session.peer, peer.name.as_str());
            let texts = [Some(&session.state), session.since.as_ref(), session.last_error.as_ref()];
            texts.into_iter().flatten().filter(|text| !text.is_empty()).for_each(|text| assert_one_line(text, 200));
        }
    }
}

fn replies<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<ReplyError>) {
    let (mut machine, mut found) = (Replies::default(), Vec::new());
    for mut input in parts {
        loop {
            match machine.take(&mut input) {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

fn bgp() -> Bgp {
    let text = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\nspec: {cidr4: 10.0.0.0/24, bgp: \
        {asn: 1, peers: [{name: tor1, address: 192.0.2.1, asn: 2}, {name: tor3, interface: eth2, asn: external}]}}\n";
    model::nodeconfig::parse(text).expect("valid").bgp.expect("a block")
}
