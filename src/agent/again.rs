//! Has record, kernel and host compared at once, and waits until that is done: for an operator who has seen that something is
//! wrong.
//!
//! What is put right, and how, the threads decide as in each round. Must not put anything right itself.

use std::sync::mpsc::Sender;
use std::time::Instant;

use crate::agent::board::Board;
use crate::agent::history::History;
use crate::agent::node::state::NodeState;
use crate::agent::node::wake::Wake;
use crate::agent::reconcile::Turn;
use crate::agent::routing::news::News;

/// Rounds until all that is wrong now has been put right: one may be under way that does not see it, and a lease ends only after
/// two that miss its link.
const ROUNDS: usize = 3;

/// Wakes the threads that compare.
#[derive(Debug)]
pub struct Again {
    /// The one of pods' links.
    pub reconcile: Sender<Turn>,
    /// The one of the host.
    pub node: Sender<Wake>,
    /// The one of the node's routes.
    pub routing: Sender<News>,
    /// What the second one publishes.
    pub state: Board<NodeState>,
    /// Knows how many rounds there were.
    pub history: History,
}

impl Again {
    /// True once all has been compared, and put right where that was possible. False at `deadline`.
    pub fn look(&self, deadline: Instant) -> bool {
        let tries = self.state.get().host.tries;
        // Sending fails only when the thread has ended, and then the deadline tells.
        self.node.send(Wake::Again).ok();
        self.routing.send(News::Again).ok();
        for _ in 0..ROUNDS {
            let before = self.history.told().1.count;
            self.reconcile.send(Turn::Round).ok();
            if !self.history.wait_for_round(before + 1, deadline) {
                return false;
            }
        }
        // A host that serves no pods is not prepared for them.
        let is_looked_at = |state: &NodeState| (state.host.tries > tries || state.view.is_none()).then_some(());
        self.state.get().host.tries == 0 || self.state.wait(deadline, is_looked_at).is_some()
    }
}
