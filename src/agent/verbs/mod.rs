//! The verbs, one a file. Each request runs its steps in order on its own thread, under the claim of its attachment and one
//! deadline.
//!
//! This file hands each request to its verb and writes the one line of the log that tells what became of it. Must not touch files
//! or sockets itself.

pub mod add;
pub mod check;
pub mod claims;
pub mod del;
mod explain;
pub mod gc;
mod proxy;
pub mod status;
pub mod takedown;
pub mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::agent::board::Board;
use crate::agent::events::ignored::Telling;
use crate::agent::fault::{Fault, Step};
use crate::agent::history::{Failure, History};
use crate::agent::ledger::Ledger;
use crate::agent::ledger::claim::Claim;
use crate::agent::metrics::meters::Meters;
use crate::agent::node::gate::Gate;
use crate::agent::node::pods::Pods;
use crate::agent::policing::handle::Police;
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::news::News;
use crate::agent::verbs::claims::Claims;
use crate::kernel::netlink::removal::LinkRemover;
use crate::kernel::netns::Visitors;
use crate::process::lock::Lock;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use crate::process::log::line::{Line, Subject};
use crate::process::turns::Turns;
use crate::record::notes::Notes;
use crate::rpc::message::{Query, Request, Response};
use crate::rpc::server::{Answered, Call, Handler};
use cni::args::{self, PodArgs};
use cni::error::{Code, Error};
use cni::netconf::{self, NetConf};
use cni::verb::Verb;
use model::addr::Attachment;
use model::excerpt::Excerpt;
use model::lease::{Lease, PodName};

/// Links that are made at once. The kernel makes one at a time, and each further caller only adds to the price of passing its lock
/// on.
const AT_ONCE: usize = 4;

/// The handlers of a running agent.
#[derive(Debug)]
pub struct Verbs {
    ledger: Ledger,
    remover: LinkRemover,
    /// At the kernel's one lock for links.
    turns: Turns,
    /// Visit the namespaces of pods.
    visitors: Visitors,
    /// What new pods get, and whether the host is ready for them.
    node: Gate,
    /// The pods of the API server; none without Kubernetes.
    pods: Option<Pods>,
    /// Deletes whose callers did not find this agent in time.
    notes: Notes,
    /// Wakes the thread of the routes that are no pod's link's.
    routing: Sender<News>,
    /// Keeps what pods may send and receive.
    police: Police,
    /// How that is.
    policing: Board<PolicingState>,
    /// What pods of other nodes have.
    claims: Claims,
    /// How many questions are being answered.
    explaining: AtomicUsize,
    meters: Arc<Meters>,
    /// Why pods cannot be served, which the runtime asks every few seconds.
    unavailable: Lock<Lasting>,
    /// Keeps which requests have failed.
    history: History,
    /// Hears of annotations that are ignored.
    telling: Telling,
}

/// What one request did, for its line in the log.
#[derive(Debug, Default)]
struct Trace {
    attachment: Option<Attachment>,
    pod: Option<PodName>,
    addresses: Vec<IpAddr>,
    /// Nothing passes to or from the pod until it is known what its policies say.
    quarantined: bool,
}

impl Trace {
    /// The lease of the attachment. What it says of the pod counts before what the runtime says, which may say nothing.
    fn found(&mut self, lease: Option<&Lease>) {
        self.addresses = lease.into_iter().flat_map(Lease::addresses).collect();
        if let Some(pod) = lease.and_then(|lease| lease.pod.as_ref()) {
            self.pod = Some(pod.clone());
        }
    }
}

impl Subject for Trace {
    fn of(&self, line: Line) -> Line {
        match &self.attachment {
            Some(attachment) => line.about((attachment, self.pod.as_ref())),
            None => line,
        }
    }
}

impl Handler for Verbs {
    fn handle(&self, call: &Call<'_>) -> Answered {
        let began = Instant::now();
        let mut trace = Trace::default();
        let done = |()| Response::done();
        let outcome = match call.request.op {
            Verb::Add => self.add(call, &mut trace),
            Verb::Del => self.del(call.request, call.deadline, &mut trace).map(done),
            Verb::Check => self.check(call, &mut trace).map(done),
            Verb::Gc => self.gc(call).map(done),
            Verb::Status => self.status().map(done),
            // The plugin answers VERSION itself.
            Verb::Version => {
                let error = Error::new(Code::InvalidEnvironment, "VERSION is answered by the plugin");
                Err(Fault::new(Step::Receive, error))
            }
        };
        if let Err(fault) = &outcome {
            let (op, code) = (call.request.op, fault.to_error().code().number());
            let (attachment, pod) = (trace.attachment.clone(), trace.pod.clone());
            self.history.failed(Failure::new(op, attachment, pod, code, &fault.to_string()));
        }
        let took = began.elapsed();
        self.meters.called(call.request.op, took, outcome.as_ref().err());
        let (response, fault) = match outcome {
            Ok(response) => (response, None),
            Err(fault) => (fault.to_response(), Some(fault)),
        };
        // The runtime waits for the answer, and nobody for the line.
        let answered = call.answer(&response);
        self.log_request(call.request.op, &trace, took, fault.as_ref());
        if !answered.is_delivered() && fault.is_none() && call.request.op == Verb::Add {
            self.take_back(call.request, &response);
        }
        answered
    }

    fn answer(&self, query: &Query, deadline: Instant) -> Response {
        match query {
            Query::Passage(passage) => explain::answer(&self.police, &self.explaining, passage, deadline),
            Query::Node | Query::Whose(_) | Query::Round | Query::Metrics => {
                Response::failed(Code::Internal.number(), "the question is for another part of the agent", "")
            }
        }
    }
}

impl Verbs {
    /// Handlers over the agent's parts.
    pub fn new(
        ledger: Ledger,
        (remover, visitors): (LinkRemover, Visitors),
        node: Gate,
        pods: Option<Pods>,
        notes: Notes,
        routing: Sender<News>,
        (police, policing): (Police, Board<PolicingState>),
    ) -> Verbs {
        Verbs {
            ledger,
            remover,
            turns: Turns::new(AT_ONCE),
            visitors,
            node,
            pods,
            notes,
            routing,
            police,
            policing,
            claims: Claims::default(),
            explaining: AtomicUsize::new(0),
            meters: Arc::default(),
            unavailable: Lock::default(),
            history: History::default(),
            telling: Telling::default(),
        }
    }

    /// The same, heeding what pods of other nodes have.
    #[must_use]
    pub fn heeding(self, claims: Claims) -> Verbs {
        Verbs { claims, ..self }
    }

    /// The same, keeping in `history` what fails.
    #[must_use]
    pub fn recording(self, history: History) -> Verbs {
        Verbs { history, ..self }
    }

    /// The same, saying by `telling` which annotations are ignored.
    #[must_use]
    pub fn telling(self, telling: Telling) -> Verbs {
        Verbs { telling, ..self }
    }

    /// The same, counted by these meters.
    #[must_use]
    pub fn counted_by(self, meters: &Arc<Meters>) -> Verbs {
        Verbs { meters: meters.clone(), ..self }
    }

    /// Counts what happens.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Whether there are routes for `lease` beside those of its link. Most pods have none.
    fn is_routed_apart(&self, lease: &Lease) -> bool {
        let state = self.node.state();
        lease.is_routed_apart(&state.view.as_ref().map(|view| view.config.prefixes()).unwrap_or_default())
    }

    /// Tells the thread of the routes that a lease has come or gone which is `routed_apart`.
    fn tell_routing_if(&self, routed_apart: bool) {
        if routed_apart {
            // It ends only with the agent.
            self.routing.send(News::Look).ok();
        }
    }

    /// Has looked at what belongs to `lease` beside its link, which was made, put right or recorded: the kernel may have dropped
    /// routes without a word.
    pub fn look_beside(&self, lease: &Lease) {
        self.tell_routing_if(self.is_routed_apart(lease));
        self.police.look();
    }

    fn claim(&self, attachment: &Attachment, deadline: Instant) -> Result<Claim, Fault> {
        self.ledger.claim(attachment, deadline).map_err(|cause| Fault { step: Step::Receive, cause })
    }

    /// Counts how long a step has taken that began then, and says so to whoever looks for where the time goes.
    fn took(&self, step: Step, began: Instant, subject: impl Subject) {
        self.meters.step(step, began);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        log::debug("step taken").about(subject).with("step", step).number("us", micros).write();
    }

    /// Writes the one line that tells what became of a request.
    fn log_request(&self, verb: Verb, trace: &Trace, took: Duration, fault: Option<&Fault>) {
        if verb == Verb::Status {
            return self.log_status(fault);
        }
        let line = match (fault, verb) {
            (Some(_), _) => log::warn("request failed"),
            (None, Verb::Check) => log::debug("request served"),
            // Runtimes repeat deletes, and this one has found nothing to do.
            (None, Verb::Del) if trace.addresses.is_empty() => log::debug("request served"),
            (None, _) => log::info("request served"),
        };
        let addresses: Vec<String> = trace.addresses.iter().map(ToString::to_string).collect();
        let line = line
            .with("op", verb)
            .about(trace)
            .with_some("addr", (!addresses.is_empty()).then(|| addresses.join(",")))
            .with_some("policy", trace.quarantined.then_some("quarantine"))
            .took(took);
        match fault {
            Some(fault) => {
                let error = fault.to_error();
                line.with("step", fault.step).number("code", error.code().number()).with("err", error).write_limited();
            }
            None => line.write(),
        }
    }

    /// Runtimes ask every five seconds, so only what is news is said.
    fn log_status(&self, fault: Option<&Fault>) {
        let mut unavailable = self.unavailable.lock();
        match fault {
            Some(fault) => unavailable.met(fault, || log::warn("pods cannot be served").with("op", Verb::Status)),
            None => unavailable.over(|| log::info("pods can be served again").with("op", Verb::Status)),
        }
    }

    /// The part of the agent that records.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The part of the agent that removes links.
    pub fn remover(&self) -> &LinkRemover {
        &self.remover
    }
}

fn receive(request: &Request, verb: Verb) -> Result<NetConf, Fault> {
    netconf::parse(&request.stdin_data, verb).map_err(|e| Fault::new(Step::Receive, e))
}

/// The attachment, checked again: the caller may be something else than the plugin.
fn key(request: &Request) -> Result<Attachment, Fault> {
    let bad = |variable: &str, value: &str, why: model::addr::AddrError| {
        let error = Error::new(Code::InvalidEnvironment, format!("{variable} {why}"));
        Fault::new(Step::Receive, error.with_details(Excerpt::of(value)))
    };
    Ok(Attachment {
        container_id: request.container_id.parse().map_err(|e| bad("CNI_CONTAINERID", &request.container_id, e))?,
        ifname: request.ifname.parse().map_err(|e| bad("CNI_IFNAME", &request.ifname, e))?,
    })
}

/// The pod that the runtime names, if it names one that can be.
fn pod_of(request: &Request) -> Option<PodName> {
    args::parse(&request.args).ok().flatten().as_ref().map(named)
}

fn named(pod: &PodArgs) -> PodName {
    PodName { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::agent::board::Board;
    use crate::agent::fault::Cause;
    use crate::agent::node::state::View;
    use crate::agent::verbs::takedown::{TakenDown, Unless};
    use crate::record::disk::Directory;
    use crate::record::store::Store;
    use model::ipam::Draw;
    use model::nodeconfig;

    struct Zero;

    impl Draw for Zero {
        fn draw(&mut self) -> u128 {
            0
        }
    }

    /// Handlers over a record of their own, which ends with the test. No link of this machine is theirs.
    pub(crate) struct Scene {
        pub(crate) verbs: Arc<Verbs>,
        directory: PathBuf,
    }

    impl Scene {
        pub(crate) fn new(name: &str, pods: Option<Pods>) -> Scene {
            let directory = std::env::temp_dir().join(format!("flock-verbs-{name}-{}", std::process::id()));
            crate::record::disk::make_private_dir(&directory).expect("made");
            let store = Store::open(Directory::open(&directory).expect("a directory"), "boot", 0).0;
            let ledger = Ledger::start(store, Zero).expect("a thread");
            let remover = LinkRemover::start().expect("the kernel answers");
            let gate = Gate::new(Board::default(), channel().0);
            let notes = Notes::beside(&directory.join("flock.sock"));
            let verbs = Arc::new(Verbs::new(
                ledger,
                (remover, Visitors::new().expect("a descriptor")),
                gate,
                pods,
                notes,
                channel().0,
                (Police::new(channel().0), Board::default()),
            ));
            Scene { verbs, directory }
        }

        /// Records a lease of which the kernel shows nothing, made at `since`.
        pub(crate) fn recorded(&self, key: &str, since: u64) -> Attachment {
            let lease = Lease { since, ..crate::record::examples::lease(key) };
            let attachment = lease.attachment.clone();
            let claim = self.verbs.ledger.claim(&attachment, soon()).expect("in time");
            assert!(claim.adopt(lease, soon()).expect("recorded"));
            attachment
        }

        pub(crate) fn is_recorded(&self, attachment: &Attachment) -> bool {
            self.verbs.ledger.claim(attachment, soon()).expect("in time").lease().is_some()
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.directory).ok();
        }
    }

    pub(crate) fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn neither_garbage_collection_nor_a_note_takes_what_is_newer_than_they_are() {
        let scene = Scene::new("remove", None);
        let attachment = scene.recorded("only-in-tests/eth0", 101);
        let remove = |ms| scene.verbs.remove(&attachment, &[Unless::MadeAfter(ms), Unless::Alive], soon());
        assert_eq!(remove(100).expect("looked at"), TakenDown::Spared(Unless::MadeAfter(100)));
        assert!(scene.is_recorded(&attachment));
        assert_eq!(remove(101).expect("removed"), TakenDown::Removed);
        assert!(!scene.is_recorded(&attachment));
        assert_eq!(remove(101).expect("nothing to do"), TakenDown::Absent);
    }

    #[test]
    fn a_pod_that_the_api_does_not_show_yet_is_refused_and_not_given_what_it_may_not_want() {
        let scene = Scene::new("unknown", Some(Pods::default()));
        let text = json_of(r#"{"cidr4":"10.0.0.0/24"}"#);
        let config = nodeconfig::parse(text).expect("a NodeConfig");
        let view = View { mtu: 1500, gateway4: config.gateway4, config };
        let attachment: Attachment = "only-in-tests/eth0".parse().expect("literal");
        let told = |runtime_config: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"flock","type":"flock"{runtime_config}}}"#);
            let conf = netconf::parse(text.as_bytes(), Verb::Add).expect("a configuration");
            let pod = args::parse("K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0").expect("a pod");
            scene.verbs.intent(&conf, (&attachment, pod.as_ref()), &view, Instant::now() + Duration::from_millis(20))
        };
        let refused = told("");
        assert!(matches!(refused, Err(Cause::PodUnknown)), "{refused:?}");
        // A runtime that tells the annotations spares the question.
        let told = told(r#","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{}}"#).expect("served");
        assert!(told.addresses.ipv4.is_some() && told.addresses.ipv6.is_none());
    }

    fn json_of(spec: &str) -> String {
        format!(
            r#"{{"apiVersion":"flock.fritzlab.net/v1alpha1","kind":"NodeConfig","metadata":{{"name":"n"}},"spec":{spec}}}"#
        )
    }
}
