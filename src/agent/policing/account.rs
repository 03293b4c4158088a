//! What there is to say of the policies in force: how many there are, and what has been unknown for too long.
//!
//! A pod that is made before its policies are known is in quarantine for some milliseconds, which is nobody's business; one that
//! stays there is told, with what is missing. Nothing is looked at while a request waits. Must not change what is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::agent::policing::policies::Policies;
use crate::agent::policing::state::{Ails, Counts};
use crate::process::log;
use model::addr::Attachment;
use model::lease::Lease;
use model::policing::Policing as Wishes;

/// How long something may be unknown before that is said, 10 s.
const LONG: Duration = Duration::from_secs(10);

/// Pause after a change before it is looked at, 500 ms: changes come in crowds.
const PAUSE: Duration = Duration::from_millis(500);

/// What is looked at now and then.
#[derive(Debug, Default)]
pub struct Account {
    /// The attachments in quarantine.
    closed: BTreeMap<Attachment, Since>,
    /// What is missing for all pods, and what policies wait for.
    unknown: BTreeMap<String, Since>,
    /// The numbers that the log has.
    said: Counts,
    due: Option<Instant>,
}

/// Since when something is so.
#[derive(Debug, Clone, Copy)]
struct Since {
    at: Instant,
    said: bool,
}

impl Since {
    fn new(at: Instant) -> Since {
        Since { at, said: false }
    }

    fn is_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= LONG
    }
}

impl Account {
    /// When the next look is due; none if nothing has changed and nothing lasts.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Something may have changed.
    pub fn touch(&mut self, now: Instant) {
        let soon = now + PAUSE;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Looks at the policies of the pods of `leases`, of which those are in quarantine of which `is_closed` says so, and says in
    /// the log what is news. The links that are checked are for the caller to count.
    pub fn look(
        &mut self,
        policies: &Policies,
        leases: &BTreeMap<Attachment, Lease>,
        wishes: &Wishes,
        is_closed: impl Fn(&Lease) -> bool,
        now: Instant,
    ) -> (Counts, Ails) {
        let mut ails = policies.ails(wishes);
        let missing: BTreeSet<String> = std::mem::take(&mut ails.missing).into_iter().collect();
        self.unknown.retain(|what, _| missing.contains(what));
        for what in missing {
            let since = self.unknown.entry(what.clone()).or_insert(Since::new(now));
            if !since.is_long(now) {
                continue;
            }
            if !since.said {
                since.said = true;
                log::warn("policies are not known yet, and what was in force before goes on")
                    .number("seconds", LONG.as_secs())
                    .with("why", &what)
                    .write_limited();
            }
            ails.missing.push(what);
        }
        let closed: BTreeMap<&Attachment, &Lease> = leases.iter().filter(|(_, lease)| is_closed(lease)).collect();
        self.closed.retain(|attachment, _| closed.contains_key(attachment));
        for (attachment, lease) in &closed {
            let since = self.closed.entry((*attachment).clone()).or_insert(Since::new(now));
            if !since.is_long(now) {
                continue;
            }
            let (pod, why) = policies.why_quarantined(lease);
            if !since.said {
                since.said = true;
                log::warn("pod sends and receives nothing, as its policies are not known")
                    .about(*lease)
                    .number("seconds", LONG.as_secs())
                    .with("why", &why)
                    .write_limited();
            }
            ails.quarantined.push(format!("{pod} sends and receives nothing: {why}"));
        }
        let counts = Counts { quarantined: closed.len(), ..policies.counts(wishes) };
        let in_force = |counts: &Counts| (counts.policies, counts.isolated, counts.audited);
        if in_force(&counts) != in_force(&self.said) {
            log::info("policies in force")
                .number("policies", counts.policies)
                .number("isolated", counts.isolated)
                .number("audited", counts.audited)
                .number("quarantined", counts.quarantined)
                .number_some("epoch", policies.epoch())
                .write_limited();
            self.said = counts;
        }
        let lasting = self.closed.values().chain(self.unknown.values()).filter(|since| !since.is_long(now));
        self.due = lasting.map(|since| since.at + LONG).min();
        (counts, ails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::policing::cluster::{Change, ClusterNews, OwnPod, Told};
    use crate::agent::policing::policies::Origin;
    use crate::record::examples::lease;
    use model::lease::PodName;
    use model::policy::select::{Labels, Requirement};
    use model::policy::{Namespaces, Peer, Pod, PodKey, Policy, Rule};
    use std::sync::mpsc::channel;

    #[test]
    fn a_pod_that_waits_for_its_policies_is_told_after_a_while_with_what_is_missing_until_it_is_known() {
        let dir = std::env::temp_dir().join(format!("flock-account-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (ask, _asked) = channel();
        let mut policies = Policies::new(Origin::Api(ask), &dir, 0x7fff_0000);
        let pod = Some(PodName { namespace: "web".into(), name: "p".into(), uid: None });
        let lease = Lease { pod, ..lease("c/eth0") };
        let leases = BTreeMap::from([(lease.attachment.clone(), lease)]);
        let (wishes, mut account, began) = (Wishes::default(), Account::default(), Instant::now());
        let (counts, ails) = account.look(&policies, &leases, &wishes, |_| true, began);
        assert_eq!((counts.quarantined, ails), (1, Ails::default()), "that is so at each start");
        assert_eq!(account.due(), Some(began + LONG));
        let (_, ails) = account.look(&policies, &leases, &wishes, |_| true, began + LONG);
        assert_eq!(ails.quarantined, ["web/p sends and receives nothing: the list of NetworkPolicies is missing"]);
        assert_eq!(ails.missing, ["the list of NetworkPolicies is missing"]);
        assert_eq!(account.due(), None);
        let complete = vec![
            ClusterNews::Policies(0, Told { each: Vec::new(), complete: true }),
            ClusterNews::Namespaces(0, Told { each: Vec::new(), complete: true }),
            ClusterNews::Own(Told { each: Vec::new(), complete: true }),
        ];
        policies.hear(complete, &leases, Some(&wishes));
        let (_, ails) = account.look(&policies, &leases, &wishes, |_| true, began + LONG);
        assert_eq!(ails.quarantined, ["web/p sends and receives nothing: nobody has told of it, and of its labels"]);
        assert_eq!(ails.missing, Vec::<String>::new());
        std::fs::remove_dir_all(&dir).expect("removable");
    }

    #[test]
    fn a_policy_that_waits_too_long_is_told_however_many_others_wait_for_a_moment_only() {
        let dir = std::env::temp_dir().join(format!("flock-account-waiting-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let (ask, _asked) = channel();
        let mut policies = Policies::new(Origin::Api(ask), &dir, 0x7fff_0000);
        let (leases, wishes, mut account) = (BTreeMap::new(), Wishes::default(), Account::default());
        let one = |app: &str| [Requirement::equals("app", app)].into_iter().collect();
        let policy = |name: &str, is_there: bool| {
            let rule =
                Rule { peers: vec![Peer::Pods { namespaces: Namespaces::Same, pods: one(name) }], ports: Vec::new() };
            let now = Policy { subjects: one("front"), ingress: Some(vec![rule]), egress: None };
            let key = ("web".to_owned(), name.to_owned());
            let change = Change { key, known: !is_there, now: is_there.then(|| now.into()) };
            ClusterNews::Policies(0, Told { each: vec![change], complete: true })
        };
        let front =
            OwnPod { pod: Pod { labels: Labels::from([("app", "front")]), ..Pod::default() }.into(), uid: None };
        let key = PodKey { namespace: "web".into(), name: "front".into() };
        let own = Told { each: vec![Change { key, known: false, now: Some(front) }], complete: true };
        let basics = vec![
            ClusterNews::Namespaces(0, Told { each: Vec::new(), complete: true }),
            ClusterNews::Own(own),
            policy("z", true),
        ];
        policies.hear(basics, &leases, Some(&wishes));
        let (began, half) = (Instant::now(), LONG / 2);
        let mut look = |policies: &Policies, now: Instant| {
            let (_, ails) = account.look(policies, &leases, &wishes, |_| false, now);
            (ails.missing, account.due().map(|due| due - began))
        };
        assert_eq!(look(&policies, began), (Vec::new(), Some(LONG)));
        policies.hear(vec![policy("a", true)], &leases, Some(&wishes));
        assert_eq!(look(&policies, began + half), (Vec::new(), Some(LONG)));
        policies.hear(vec![policy("a", false), policy("b", true)], &leases, Some(&wishes));
        let z = "the pods that NetworkPolicy web/z is about are missing".to_owned();
        assert_eq!(look(&policies, began + LONG), (vec![z.clone()], Some(LONG * 2)));
        let b = z.replace("web/z", "web/b");
        assert_eq!(look(&policies, began + LONG * 2), (vec![b, z], None));
        std::fs::remove_dir_all(&dir).expect("removable");
    }
}
