//! Three answers to every question, side by side. Which policies are in force, others see to.

use super::cluster::{Probe, Who};
use super::cyclonus::Cyclonus;
use super::evaluator::allows;
use super::node::Neighbours;

/// So many differences are told.
const TOLD: usize = 12;

/// How far cyclonus is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    All,
    /// The policies are of a kind that it is known to read otherwise.
    PacketsAlone,
}

/// The questions on which not all agree, one line each.
pub fn differences(neighbours: &mut Neighbours<'_>, cyclonus: &mut Cyclonus, asked: Asked) -> Vec<String> {
    let probes = neighbours.probes();
    let cluster = &neighbours.cluster;
    let documented: Vec<bool> = probes.iter().map(|probe| allows(cluster, probe)).collect();
    let mut said: Vec<Option<bool>> = vec![None; probes.len()];
    if asked == Asked::All {
        let known: Vec<usize> = (0..probes.len()).filter(|&n| cyclonus_knows(&probes[n])).collect();
        let questions: Vec<Probe> = known.iter().map(|&n| probes[n].clone()).collect();
        for (n, verdict) in known.into_iter().zip(cyclonus.allows(cluster, &questions)) {
            said[n] = Some(verdict);
        }
    }
    let packets = neighbours.prober.ask(&probes, &documented);
    let agree = |n: &usize| packets[*n].is(documented[*n]) && said[*n].is_none_or(|verdict| verdict == documented[*n]);
    let told = |n: usize| {
        let word = |allowed: bool| if allowed { "allowed" } else { "denied" };
        let cyclonus = said[n].map_or("not asked", word);
        format!("{}: documented {}, cyclonus {cyclonus}, packets {:?}", probes[n], word(documented[n]), packets[n])
    };
    (0..probes.len()).filter(|n| !agree(n)).map(told).collect()
}

/// It takes a node for somebody outside, whom policies may shut out.
fn cyclonus_knows(probe: &Probe) -> bool {
    probe.from.who != Who::Node && probe.to.who != Who::Node
}

/// All agree.
#[track_caller]
pub fn assert_agreement(when: &str, neighbours: &mut Neighbours<'_>, cyclonus: &mut Cyclonus, asked: Asked) {
    let found = differences(neighbours, cyclonus, asked);
    let policies: Vec<String> = neighbours.cluster.policies.values().map(|policy| format!("{policy}")).collect();
    assert!(
        found.is_empty(),
        "{when}: {} differences, among them\n{}\nunder\n{}",
        found.len(),
        found[..found.len().min(TOLD)].join("\n"),
        policies.join("\n")
    );
}

/// The packets are as documented.
#[track_caller]
pub fn assert_packets(when: &str, neighbours: &mut Neighbours<'_>, probes: &[Probe]) {
    let documented: Vec<bool> = probes.iter().map(|probe| allows(&neighbours.cluster, probe)).collect();
    neighbours.assert_verdicts(when, probes, &documented);
}

impl Neighbours<'_> {
    #[track_caller]
    fn assert_verdicts(&mut self, when: &str, probes: &[Probe], expected: &[bool]) {
        let packets = self.prober.ask(probes, expected);
        let all = probes.iter().zip(expected).zip(packets);
        let wrong = all.filter(|((_, expected), verdict)| !verdict.is(**expected));
        let told = wrong.map(|((probe, expected), verdict)| format!("{probe}: {verdict:?} instead of {expected}"));
        let told: Vec<String> = told.collect();
        assert!(
            told.is_empty(),
            "{when}: {} differences, among them\n{}",
            told.len(),
            told[..told.len().min(TOLD)].join("\n")
        );
    }

    /// Everybody reaches everybody.
    #[track_caller]
    pub fn assert_all_pass(&mut self, when: &str) {
        let probes = self.probes();
        self.assert_verdicts(when, &probes, &vec![true; probes.len()]);
    }

    /// What the policies forbid does not pass, whatever becomes of what they allow.
    #[track_caller]
    pub fn assert_nothing_opened(&mut self, when: &str) {
        let mut probes = self.probes();
        probes.retain(|probe| !allows(&self.cluster, probe));
        assert!(!probes.is_empty());
        self.assert_verdicts(when, &probes, &vec![false; probes.len()]);
    }
}
