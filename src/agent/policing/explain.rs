//! The thread's part of the answer to `flock-agent explain`: what is known here, by the same values from which the tables are made.
//!
//! Takes no longer than it takes to put together what is wanted, since ADDs wait behind it. Must not ask the kernel or change
//! anything.

use std::collections::BTreeSet;

use crate::agent::policing::Policing;
use crate::agent::policing::cluster::Cluster;
use crate::agent::policing::handle::{Explained, Unexplained};
use crate::agent::policing::wanted::{is_closed, sources};
use crate::agent::reply::Reply;
use model::addr::IfName;
use model::asked::{Asked, Facts, Party, answer};
use model::guard;
use model::policing::{Mode, Policing as Wishes};
use model::policy::{Subject, Treatment};

/// Most policies that are said to be misunderstood.
const MISUNDERSTOOD_MAX: usize = 4;

/// What of the policies of the two is not understood, a line for each.
fn misunderstood(asked: &Asked, subjects: &[Subject], cluster: &Cluster) -> Vec<String> {
    let mut namespaces: BTreeSet<&str> = BTreeSet::new();
    for party in [&asked.from, &asked.to] {
        match party {
            Party::Node => {}
            Party::Pod(pod, _) => drop(namespaces.insert(&pod.namespace)),
            Party::Address(ip) => {
                let have_it = subjects.iter().filter(|subject| subject.addresses.contains(ip));
                namespaces.extend(have_it.filter_map(|subject| Some(&*subject.pod.as_ref()?.namespace)));
            }
        }
    }
    namespaces.into_iter().flat_map(|namespace| cluster.misunderstood(namespace)).take(MISUNDERSTOOD_MAX).collect()
}

impl Policing {
    /// Answers a question, if somebody still waits for it.
    pub(super) fn explain(&mut self, asked: &Asked, reply: Reply<Result<Explained, Unexplained>>) {
        if !reply.is_given_up() {
            let explained = self.explained(asked);
            reply.send(explained);
        }
    }

    fn explained(&mut self, asked: &Asked) -> Result<Explained, Unexplained> {
        let wishes = self.wishes().ok_or(Unexplained::NotYet("the node has no valid NodeConfig yet"))?;
        let is_known = !self.policies.are_kept(&wishes) || self.policies.part().is_some();
        let mut wanted = self.wanted(&wishes);
        wanted.retain(|key, _| [guard::FILTER, guard::ARP].contains(key));
        let filter = wanted.get(&guard::FILTER);
        let is_left_closed = |link: &IfName| filter.is_some_and(|filter| is_closed(filter, link));
        let subject = |lease| {
            let subject = self.policies.subject_of(lease, &wishes);
            match is_known {
                true => subject,
                // What an earlier agent has left goes on, and says of a link that it is closed, or nothing that can be told.
                false if is_left_closed(&subject.link) => Subject { treatment: Treatment::Quarantine, ..subject },
                false => Subject { treatment: Treatment::Exempt, ..subject },
            }
        };
        let subjects: Vec<Subject> = self.leases.values().map(subject).collect();
        let facts = Facts {
            world: self.policies.cluster().world(),
            subjects: &subjects,
            sources: &sources(&wishes, self.leases.values()),
            node: &self.node.get().whereabouts.host.addresses,
            known_by: "to this node",
        };
        let answer = answer(asked, &facts).map_err(Unexplained::Unanswerable)?;
        if !is_known && answer.passes {
            return Err(Unexplained::NotYet(
                "policies, namespaces and pods are not all known yet; what an earlier agent has left goes on until then",
            ));
        }
        // Rules that an earlier agent has left are not known one by one.
        let wanted = self.inherited.is_none().then_some(wanted);
        let mut notes = self.notes(&wishes);
        notes.extend(misunderstood(asked, &subjects, self.policies.cluster()));
        Ok(Explained { answer, wanted, notes })
    }

    fn notes(&self, wishes: &Wishes) -> Vec<String> {
        let mut notes = Vec::new();
        match wishes.mode {
            Mode::None => notes.push("the NodeConfig has spec.policy.mode: none, so policies are not looked at".into()),
            Mode::Audit => notes.push("the NodeConfig has spec.policy.mode: audit, so policies drop nothing".into()),
            Mode::Enforce if !self.policies.are_kept(wishes) => {
                notes.push("flock-agent has neither Kubernetes nor --policy-dir, so there are no policies".into());
            }
            Mode::Enforce => {}
        }
        if !wishes.source_check {
            notes.push("the NodeConfig has spec.sourceCheck: false, so pods send with any address".into());
        }
        notes.extend(self.state.problem.iter().map(|problem| format!("the tables cannot be set: {}", problem.error)));
        notes
    }
}
