//! The host, as the node's own thread keeps it for pods: what the last survey found, when the next one is due, which settings
//! and routes are put back, and whether the host is ready.
//!
//! One owner, the node's thread, so no two writers of the host's settings meet. Which differences count is decided in
//! `desired`, and what a survey means in `hostfacts`; this file decides when to look and what to log. Must not know where the
//! NodeConfig comes from.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::fault::{Fault, Step};
use crate::agent::history::History;
use crate::agent::metrics::meters::{Mended, Meters};
use crate::agent::node::state::{Readiness, Whereabouts};
use crate::agent::node::survey::{self, Survey};
use crate::agent::suspicion::{Budget, Suspicions};
use crate::process::log;
use crate::process::log::lasting::Lasting;
use cni::error::{Code, Error};
use model::desired::{Difference, Policy, Wants, differences};
use model::hostfacts::HostFacts;
use model::nodeconfig::NodeConfig;

/// Interval between surveys that nobody has asked for, 10 s: addresses of others are kept out of the pods' ranges.
const SURVEY_INTERVAL: Duration = Duration::from_secs(10);

/// Denominator of the share of its time that the thread spends with surveys at most, a twentieth: a host with a full table of the
/// internet's routes takes seconds to be read.
const SURVEY_SHARE: u32 = 20;

/// Interval between comparisons of the host with what pods need, without being woken, 20 s.
const COMPARE_INTERVAL: Duration = Duration::from_secs(20);

/// Comparisons at once, when somebody keeps changing the host; then one in each interval.
const COMPARISONS: u32 = 10;

/// Deadline for one survey, and for one comparison with what it puts back, 5 s.
const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// The host and what is due for it.
#[derive(Debug)]
pub struct Host {
    /// What the last survey found; none before the first one that succeeded.
    survey: Option<Survey>,
    /// When a survey is made although nobody has asked.
    survey_due: Instant,
    /// When a survey may be made again at the earliest.
    survey_allowed: Instant,
    /// What the kernel has announced of the host.
    suspicions: Suspicions,
    /// Whether pods are to be served. If so, the host is prepared for them and kept so.
    serving: bool,
    readiness: Readiness,
    /// When the host is compared although nobody has asked.
    compare_due: Instant,
    budget: Budget,
    /// Remarks that the last comparison has logged, which need no second line.
    said: BTreeSet<String>,
    meters: Arc<Meters>,
    unread: Lasting,
    uncompared: Lasting,
    unprepared: Lasting,
    /// Keeps what was put right.
    history: History,
}

impl Host {
    /// A host of which nothing is known yet but what `suspicions` will tell. What is put right is told to `history`.
    pub fn new(suspicions: Suspicions, history: History) -> Host {
        let now = Instant::now();
        Host {
            survey: None,
            survey_due: now,
            survey_allowed: now,
            suspicions,
            serving: false,
            readiness: Readiness::default(),
            compare_due: now,
            budget: Budget::new(COMPARISONS, COMPARE_INTERVAL, now),
            said: BTreeSet::new(),
            meters: Arc::default(),
            unread: Lasting::default(),
            uncompared: Lasting::default(),
            unprepared: Lasting::default(),
            history,
        }
    }

    /// From now on the host is prepared for pods, and kept so.
    pub fn serve(&mut self) {
        self.serving = true;
    }

    /// Makes survey and comparison due at once.
    pub fn hurry(&mut self) {
        self.survey_due = Instant::now();
        self.compare_soon();
    }

    /// The same, counted by these meters.
    #[must_use]
    pub fn counted_by(self, meters: &Arc<Meters>) -> Host {
        Host { meters: meters.clone(), ..self }
    }

    /// Makes the comparison due at once.
    pub fn compare_soon(&mut self) {
        self.compare_due = Instant::now();
    }

    /// What the last survey means for pods; none before the first one that succeeded.
    pub fn facts(&self) -> Option<&HostFacts> {
        self.survey.as_ref().map(|survey| &survey.facts)
    }

    /// Where the host is among others, as of the last survey; none before the first one that succeeded.
    pub fn whereabouts(&self) -> Option<&Whereabouts> {
        self.survey.as_ref().map(|survey| &survey.whereabouts)
    }

    /// Whether the host is ready for pods.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Whether it is time for a survey: after its interval, or when the kernel has announced a change of addresses or routes.
    pub fn survey_is_due(&mut self) -> bool {
        let now = Instant::now();
        now >= self.survey_due || now >= self.survey_allowed && self.suspicions.take_surroundings()
    }

    /// Surveys the host for the pods of `config`. True if the host is another than before.
    pub fn survey(&mut self, config: &NodeConfig) -> bool {
        let began = Instant::now();
        let surveyed =
            survey::take(&config.prefixes(), config.gateway4, config.proxy_neighbours.as_ref(), began + KERNEL_LIMIT);
        let (took, now) = (began.elapsed(), Instant::now());
        self.survey_allowed = now + took * SURVEY_SHARE;
        match surveyed {
            Ok(survey) => {
                self.survey_due = now + SURVEY_INTERVAL.max(took * SURVEY_SHARE);
                let changed = self.survey.as_ref() != Some(&survey);
                self.survey = Some(survey);
                self.unread.over(|| log::info("host can be read again"));
                changed
            }
            Err(error) => {
                // Without these facts no pod is served, so the next look tries again.
                self.survey_due = now;
                self.unread.met(error, || log::warn("host cannot be read"));
                false
            }
        }
    }

    /// Compares the host with what the pods of `config` need, once pods are to be served: whenever the comparison is due, when
    /// the kernel has announced a change, and in each look while the host is not ready. True if the readiness may be another
    /// one afterwards.
    pub fn keep(&mut self, config: &NodeConfig) -> bool {
        let now = Instant::now();
        let announced = self.suspicions.take_host();
        let due = now >= self.compare_due || !self.readiness.is_ready();
        if !self.serving || !(due || announced) {
            return false;
        }
        let Some(survey) = &self.survey else { return false };
        let proxies = config.proxy_neighbours.as_ref();
        let wants = Wants {
            prefixes: config.prefixes(),
            gateway4_taken: survey.facts.gateway4_taken.clone(),
            proxies: proxies.is_some(),
            shares_flows: !config.extra_prefixes.is_empty(),
        };
        let deadline = now + KERNEL_LIMIT;
        let differences = match survey::settings(survey, proxies, deadline) {
            Ok(shows) => {
                self.uncompared.over(|| log::info("host can be compared with what pods need again"));
                differences(&wants, &shows)
            }
            Err(cause) => {
                let fault = Fault { step: Step::Host, cause };
                self.uncompared.met(&fault, || log::warn("host cannot be compared with what pods need"));
                // A host that was ready is not known to be anything else.
                if self.readiness.is_ready() {
                    return false;
                }
                self.readiness = self.readiness.after(Err(fault.to_error()));
                return true;
            }
        };
        let lost = differences.iter().any(|difference| matches!(difference.policy(), Policy::PutBack | Policy::Offer));
        if lost && !due && !self.budget.take(now) {
            log::warn("somebody keeps changing what pods need of this host; it is put back in rounds only")
                .number("seconds", COMPARE_INTERVAL.as_secs())
                .write_limited();
            return false;
        }
        self.compare_due = now + COMPARE_INTERVAL;
        let outcome = self.put_right(&differences, deadline);
        self.say(remarks(&differences));
        // A host that is not ready is tried again and again.
        match &outcome {
            Ok(()) => self.unprepared.over(|| log::info("host is ready for pods again")),
            Err(error) => self.unprepared.met(error, || log::error("host cannot be prepared")),
        }
        self.readiness = self.readiness.after(outcome);
        true
    }

    /// Puts back what is flock's, in order. The first failure counts, and the rest is tried all the same.
    fn put_right(&self, differences: &[Difference], deadline: Instant) -> Result<(), Error> {
        let mut changed = Vec::new();
        let mut outcome = Ok(());
        for difference in differences {
            let done = match difference.policy() {
                Policy::Say => continue,
                Policy::NotReady => {
                    Err(Error::new(Code::TryAgainLater, "host cannot serve pods").with_details(difference.to_string()))
                }
                Policy::PutBack => survey::put_back(difference, deadline).map_err(|fault| fault.to_error()),
                Policy::Offer => match survey::put_back(difference, deadline) {
                    Err(fault) => {
                        log::warn("host does not answer for pods as it should").with("err", fault).write_limited();
                        continue;
                    }
                    Ok(()) => Ok(()),
                },
            };
            match done {
                Ok(()) => {
                    if self.readiness.is_ready() {
                        self.meters.mended(Mended::from(difference), 1);
                    }
                    changed.push(difference.to_string());
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if !changed.is_empty() {
            // A host that was ready had all this; one that was not gets it now.
            let line = if self.readiness.is_ready() {
                self.history.repaired(&format!("host: {}", changed.join(", ")));
                log::warn("host had lost what pods need, and has it again")
            } else {
                log::info("host prepared")
            };
            line.with("changed", changed.join(", ")).write_limited();
        }
        outcome
    }

    /// Logs what an operator should know, once.
    fn say(&mut self, remarks: BTreeSet<String>) {
        for remark in remarks.difference(&self.said) {
            log::warn("host is not as pods need it, or as they could do with").with("what", remark).write_limited();
        }
        self.said = remarks;
    }
}

/// The remarks for the log among the differences, for which nothing else is done.
fn remarks(differences: &[Difference]) -> BTreeSet<String> {
    differences.iter().filter(|difference| difference.policy() == Policy::Say).map(ToString::to_string).collect()
}
