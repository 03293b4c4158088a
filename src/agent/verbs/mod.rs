//! The verbs. Each request runs its steps in order on its own thread, under the claim of its attachment and one deadline:
//!
//! - ADD: receive, intent, reserve (record: pending), wire, commit (record: committed), answer;
//! - DEL: receive, unwire, release. Undo of a failed ADD is this same path.
//!
//! An address is recorded before a packet can carry it, and free only after its link is gone. Must not touch files or
//! sockets itself.

pub mod check;
pub mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::{RawValue, to_raw_value};

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::ledger::{Claim, Ledger, Reserved, Wish};
use crate::agent::node::gate::Gate;
use crate::agent::node::pods::Pods;
use crate::agent::node::state::View;
use crate::agent::observe;
use crate::agent::verbs::wire::{unwire, unwire_unrecorded, wire};
use crate::kernel::netlink::removal::LinkRemover;
use crate::kernel::netns::Netns;
use crate::kube::objects::Pod;
use crate::process::log;
use crate::rpc::agent_limit;
use crate::rpc::message::{Op, Request, Response};
use crate::rpc::server::{Call, Handler};
use cni::args::{self, PodArgs};
use cni::env::Command;
use cni::error::{Code, Error, quote};
use cni::netconf::{self, NetConf, ValidAttachments};
use cni::result::AddResult;
use model::addr::{Attachment, LinkEnd};
use model::annotations;
use model::embed::{Field, Identity};
use model::ipam;
use model::lease::{Lease, Phase, PodName};

/// How many addresses an ADD gives up because somebody has just made a route to them. The next look at the host knows them.
const ADDRESSES_TRIED: usize = 8;

/// The handlers of a running agent.
#[derive(Debug)]
pub struct Verbs {
    ledger: Ledger,
    remover: LinkRemover,
    /// What new pods get, and whether the host is ready for them.
    node: Gate,
    /// The pods of the API server; none without Kubernetes.
    pods: Option<Pods>,
}

/// What one request did, for its line in the log.
#[derive(Debug, Default)]
struct Trace {
    attachment: Option<Attachment>,
    pod: Option<PodName>,
    addresses: Vec<IpAddr>,
}

/// What GC did with an attachment.
enum Collected {
    /// It is gone.
    Removed,
    /// It was made after GC began, so the runtime's list cannot have it.
    Newer,
    /// It stands.
    Alive,
}

impl Handler for Verbs {
    fn handle(&self, call: &Call<'_>) -> Response {
        let began = Instant::now();
        let mut trace = Trace::default();
        let outcome = match call.request.op {
            Op::Add => self.add(call, &mut trace).map(|lease| Response {
                result: answer(&lease),
                since: Some(lease.since),
                ..Response::done()
            }),
            Op::Del => self.del(call.request, call.deadline, &mut trace).map(|()| Response::done()),
            Op::Check => self.check(call, &mut trace).map(|()| Response::done()),
            Op::Gc => self.gc(call).map(|()| Response::done()),
            Op::Status => self.status().map(|()| Response::done()),
        };
        log_request(call.request.op, &trace, began, outcome.as_ref().err());
        outcome.unwrap_or_else(|fault| fault.to_response())
    }

    fn undelivered(&self, request: &Request, answer: &Response) {
        if request.op != Op::Add {
            return;
        }
        // The runtime takes this ADD for failed. Its DEL may come, or never.
        let deadline = Instant::now() + agent_limit(Op::Del);
        let undone = key(request).map_err(|e| Fault::new(Step::Receive, e)).and_then(|attachment| {
            let claim = self.claim(&attachment, deadline)?;
            let found = self.ledger.find(&attachment, deadline);
            // The DEL may have come meanwhile, and another ADD of the same container after it.
            match found.map_err(|cause| Fault { step: Step::Unwire, cause })? {
                Some(lease) if Some(lease.since) != answer.since => Ok(()),
                found => self.take_down(&claim, &attachment, found.as_ref(), deadline),
            }
        });
        log::warn("answer not delivered, attachment undone")
            .with("cid", &request.container_id)
            .with("if", &request.ifname)
            .with_some("err", undone.err())
            .write_limited();
    }
}

impl Verbs {
    /// Handlers over the agent's parts.
    pub fn new(ledger: Ledger, remover: LinkRemover, node: Gate, pods: Option<Pods>) -> Verbs {
        Verbs { ledger, remover, node, pods }
    }

    fn claim(&self, attachment: &Attachment, deadline: Instant) -> Result<Claim, Fault> {
        self.ledger.claim(attachment, deadline).map_err(|cause| Fault { step: Step::Receive, cause })
    }

    fn add(&self, call: &Call<'_>, trace: &mut Trace) -> Result<Lease, Fault> {
        let at = |step: Step| move |cause: Cause| Fault { step, cause };
        let request = call.request;
        Step::Receive.begin();
        let conf = receive(request, Command::Add)?;
        let attachment = key(request).map_err(|e| Fault::new(Step::Receive, e))?;
        trace.attachment = Some(attachment.clone());
        let pod_args = args::parse(&request.args).map_err(|e| Fault::new(Step::Receive, e))?;
        let pod = pod_args.as_ref().map(|pod| PodName { namespace: pod.namespace.clone(), name: pod.name.clone() });
        trace.pod.clone_from(&pod);

        Step::Intent.begin();
        let view = self.node.state().view.clone().ok_or_else(|| at(Step::Intent)(Cause::NotConfigured))?;
        let addresses = self.intent(&conf, pod_args.as_ref(), &view, call.deadline).map_err(at(Step::Intent))?;
        let netns = Netns::open(Path::new(&request.netns)).map_err(|e| Fault::new(Step::Receive, e))?;

        let claim = self.claim(&attachment, call.deadline)?;
        if let Some(lease) = self.ledger.find(&attachment, call.deadline).map_err(at(Step::Reserve))? {
            if lease.phase == Phase::Committed && lease.call.is_some() && lease.call == request.call {
                // The same run of the plugin, over a new connection: its first answer was lost.
                trace.addresses = lease.addresses().collect();
                return Ok(lease);
            }
            if self.stands(&lease, call.deadline)? {
                return Err(at(Step::Reserve)(Cause::Attached(attachment)));
            }
            // Its namespace has gone, and its DEL never came.
            self.take_down(&claim, &attachment, Some(&lease), call.deadline)?;
        }
        Step::Host.begin();
        self.node.pass(call.deadline).map_err(at(Step::Host))?;
        Step::Reserve.begin();
        let wish = Wish {
            attachment: attachment.clone(),
            network: conf.name,
            netns: request.netns.clone(),
            pod,
            mtu: view.mtu,
            gateway4: view.gateway4,
            call: request.call.clone(),
            addresses: addresses.clone(),
        };
        let wanted = addresses;
        let reserved = self.ledger.reserve(wish, call.deadline).map_err(at(Step::Reserve))?;
        let mut lease = told(reserved);
        trace.addresses = lease.addresses().collect();
        Step::Wire.begin();
        let wired = self.wire(&mut lease, &wanted, &netns, call.deadline).and_then(|host_index| {
            Step::Commit.begin();
            if call.caller_gone() {
                return Err(at(Step::Commit)(Cause::CallerGone));
            }
            (lease.phase, lease.host_index) = (Phase::Committed, Some(host_index));
            self.ledger.record(lease.clone(), call.deadline).map_err(at(Step::Commit))
        });
        trace.addresses = lease.addresses().collect();
        if let Err(fault) = wired {
            self.undo(&claim, &lease);
            return Err(fault);
        }
        Step::Answer.begin();
        Ok(lease)
    }

    /// Makes the link of `lease`. An address to which somebody has made a route of his own, since the host was last looked
    /// at, is his: the pod gets another one.
    fn wire(&self, lease: &mut Lease, wanted: &ipam::Request, netns: &Netns, deadline: Instant) -> Result<u32, Fault> {
        for _ in 0..ADDRESSES_TRIED {
            match wire(lease, netns, &self.remover, deadline) {
                Err(Fault { cause: Cause::AddressTaken(ip, error), .. }) => {
                    log::warn("address is somebody else's, the pod gets another one")
                        .with("cid", &lease.attachment.container_id)
                        .with("addr", ip)
                        .with("err", error)
                        .write_limited();
                    unwire(lease, &self.remover, deadline)?;
                    let replaced = self.ledger.replace(&lease.attachment, ip, wanted.clone(), deadline);
                    *lease = told(replaced.map_err(|cause| Fault { step: Step::Reserve, cause })?);
                }
                other => return other,
            }
        }
        wire(lease, netns, &self.remover, deadline)
    }

    /// Takes back a failed ADD, on time of its own: the request's may be over.
    fn undo(&self, claim: &Claim, lease: &Lease) {
        let deadline = Instant::now() + agent_limit(Op::Del);
        let attachment = &lease.attachment;
        if let Err(fault) = self.take_down(claim, attachment, Some(lease), deadline) {
            // The record stays, so the next DEL, round or start finds it.
            log::warn("failed ADD not undone yet")
                .with("cid", &attachment.container_id)
                .with("if", &attachment.ifname)
                .with("err", fault)
                .write_limited();
        }
    }

    fn del(&self, request: &Request, deadline: Instant, trace: &mut Trace) -> Result<(), Fault> {
        receive(request, Command::Del)?;
        let attachment = key(request).map_err(|e| Fault::new(Step::Receive, e))?;
        trace.attachment = Some(attachment.clone());
        let claim = self.claim(&attachment, deadline)?;
        let found = self.ledger.find(&attachment, deadline);
        let found = found.map_err(|cause| Fault { step: Step::Unwire, cause })?;
        trace.addresses = found.iter().flat_map(Lease::addresses).collect();
        self.take_down(&claim, &attachment, found.as_ref(), deadline)
    }

    /// DEL of whatever there is of `attachment`, whose record is `lease`: first the link, then the lease. Its namespace is
    /// never entered: the path may have come to name another pod's.
    fn take_down(
        &self,
        _: &Claim,
        attachment: &Attachment,
        lease: Option<&Lease>,
        deadline: Instant,
    ) -> Result<(), Fault> {
        Step::Unwire.begin();
        let Some(lease) = lease else {
            // Without a record there can still be a link, if the state was lost while we ran.
            return unwire_unrecorded(attachment, &self.remover, deadline);
        };
        unwire(lease, &self.remover, deadline)?;
        Step::Release.begin();
        match self.ledger.release(attachment, deadline) {
            Err(Cause::Store(error)) => {
                log::warn("end of a lease not durable yet")
                    .with("cid", &attachment.container_id)
                    .with("err", error)
                    .write_limited();
                Ok(())
            }
            other => other.map_err(|cause| Fault { step: Step::Release, cause }),
        }
    }

    /// DEL of an attachment unless it was made after `not_after` (milliseconds of the boot clock): for delete notes and
    /// for leases whose link has gone. True if something was removed.
    ///
    /// # Errors
    /// It may still be there.
    pub fn remove(&self, attachment: &Attachment, not_after: u64, deadline: Instant) -> Result<bool, Fault> {
        let fail = |cause: Cause| Fault { step: Step::Unwire, cause };
        let claim = self.claim(attachment, deadline)?;
        match self.ledger.find(attachment, deadline).map_err(fail)? {
            Some(lease) if lease.since > not_after => Ok(false),
            found => self.take_down(&claim, attachment, found.as_ref(), deadline).map(|()| found.is_some()),
        }
    }

    /// What the pod wants, in the allocator's words.
    fn intent(
        &self,
        conf: &NetConf,
        pod: Option<&PodArgs>,
        view: &View,
        deadline: Instant,
    ) -> Result<ipam::Request, Cause> {
        let mut known = None;
        let mut look = || -> Option<Arc<Pod>> {
            let (pods, pod) = (self.pods.as_ref()?, pod?);
            known.get_or_insert_with(|| pods.find(&pod.namespace, &pod.name, pod.uid.as_deref(), deadline)).clone()
        };
        let annotations = match (&conf.annotations, &self.pods, pod) {
            (Some(told), ..) => Cow::Borrowed(told),
            // Without Kubernetes, or for somebody who is no pod of it, there are none.
            (None, None, _) | (None, _, None) => Cow::Owned(BTreeMap::new()),
            (None, Some(_), Some(_)) => Cow::Owned(look().ok_or(Cause::PodUnknown)?.annotations.clone()),
        };
        let (intent, warnings) = annotations::intent(&annotations, &view.config.defaults)?;
        let shown = pod.map(|pod| format!("{}/{}", pod.namespace, pod.name));
        for warning in warnings {
            log::warn("annotation ignored").with_some("pod", shown.as_ref()).with("why", warning).write_limited();
        }
        let embed = intent.algo.map(|algo| {
            let mut identity = Identity { namespace: pod.map(|pod| pod.namespace.clone()), app: None, image: None };
            // Controller and image are known to the API server only. A pod that cannot be found gets a random address.
            if algo.fields().iter().any(|field| *field != Field::Namespace)
                && let Some(pod) = look()
            {
                identity.app = Some(pod.app.clone());
                identity.image.clone_from(&pod.image);
            }
            (algo, identity)
        });
        Ok(ipam::Request {
            ipv6: intent.ipv6.then_some(ipam::Want6 { cidrs: intent.cidr6, embed }),
            ipv4: intent.ipv4.then_some(ipam::Want4 { cidrs: intent.cidr4 }),
        })
    }

    /// The host end of this lease is in the kernel.
    fn stands(&self, lease: &Lease, deadline: Instant) -> Result<bool, Fault> {
        let link = observe::link(lease, deadline);
        Ok(link.map_err(|cause| Fault { step: Step::Reserve, cause })?.is_some())
    }

    fn check(&self, call: &Call<'_>, trace: &mut Trace) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Compare, cause };
        let request = call.request;
        let conf = receive(request, Command::Check)?;
        let prev = conf.expected_state().map_err(|e| Fault::new(Step::Receive, e))?;
        let attachment = key(request).map_err(|e| Fault::new(Step::Receive, e))?;
        trace.attachment = Some(attachment.clone());
        let _claim = self.claim(&attachment, call.deadline)?;
        let lease = self.ledger.find(&attachment, call.deadline).map_err(fail)?;
        let lease = lease.ok_or_else(|| fail(Cause::Unknown(attachment)))?;
        trace.addresses = lease.addresses().collect();
        let netns = Netns::open(Path::new(&request.netns)).map_err(|e| fail(e.into()))?;
        check::result(&lease, &request.netns, prev)
            .and_then(|()| check::kernel(&lease, &netns, call.deadline))
            .map_err(fail)
    }

    /// Removes what the runtime no longer knows, within its network. What still stands is kept and reported: a list that
    /// lacks a running pod is likelier to be wrong than the kernel.
    fn gc(&self, call: &Call<'_>) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Compare, cause };
        let conf = receive(call.request, Command::Gc)?;
        let ValidAttachments::Set { valid, ignored, examples } = &conf.valid_attachments else { return Ok(()) };
        if *ignored > 0 {
            log::warn("GC: entries that name no attachment")
                .with("entries", ignored)
                .with("such_as", examples.join(", "))
                .write_limited();
        }
        Step::Compare.begin();
        let began = crate::record::boot_clock::now_ms();
        let (leases, _) = self.ledger.leases(call.deadline).map_err(fail)?;
        let mut kept = Vec::new();
        for lease in leases {
            if lease.network != conf.name || valid.contains(&lease.attachment) {
                continue;
            }
            match self.collect(&lease.attachment, began, call.deadline) {
                Ok(Collected::Removed) => {
                    log::info("GC: attachment removed").with("cid", &lease.attachment.container_id).write();
                }
                Ok(Collected::Newer) => {}
                Ok(Collected::Alive) => kept.push(format!("{} is alive", lease.attachment)),
                Err(fault) => kept.push(format!("{}: {fault}", lease.attachment)),
            }
        }
        if kept.is_empty() { Ok(()) } else { Err(fail(Cause::Kept(kept))) }
    }

    /// One attachment that the runtime's list lacks. Looked at under its claim: an ADD in service would look dead until its
    /// link is up, and be taken down the moment it succeeds.
    fn collect(&self, attachment: &Attachment, began: u64, deadline: Instant) -> Result<Collected, Fault> {
        let fail = |cause: Cause| Fault { step: Step::Compare, cause };
        let claim = self.claim(attachment, deadline)?;
        let Some(lease) = self.ledger.find(attachment, deadline).map_err(fail)? else { return Ok(Collected::Removed) };
        if lease.since > began {
            return Ok(Collected::Newer);
        }
        if observe::link(&lease, deadline).map_err(fail)?.is_some_and(|link| link.carrier) {
            return Ok(Collected::Alive);
        }
        self.take_down(&claim, attachment, Some(&lease), deadline).map(|()| Collected::Removed)
    }

    /// Speaks of the agent and its NodeConfig, never of a full pool, and never asks the ledger, which may be waiting for a
    /// slow disk: a STATUS error evicts the pods of the node.
    fn status(&self) -> Result<(), Fault> {
        let error = Error::new(Code::NotAvailable, "ADD cannot be served");
        let state = self.node.state();
        let why = match (&state.view, state.host.problem()) {
            (None, _) => "no valid NodeConfig yet; the log of flock-agent says why".to_owned(),
            (Some(_), Some(problem)) => problem.to_string(),
            (Some(_), None) => return Ok(()),
        };
        Err(Fault::new(Step::Receive, error.with_details(why)))
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

/// The lease of a reservation, once the log has what an operator should know of it.
fn told(reserved: Reserved) -> Lease {
    for warning in &reserved.warnings {
        log::warn("address chosen in another way than asked")
            .with("cid", &reserved.lease.attachment.container_id)
            .with("why", warning)
            .write_limited();
    }
    reserved.lease
}

fn receive(request: &Request, command: Command) -> Result<NetConf, Fault> {
    netconf::parse(&request.stdin_data, command).map_err(|e| Fault::new(Step::Receive, e))
}

/// The attachment, checked again: the caller may be something else than the plugin.
fn key(request: &Request) -> Result<Attachment, Error> {
    let bad = |variable: &str, value: &str, why: model::addr::AddrError| {
        Error::new(Code::InvalidEnvironment, format!("{variable} {why}")).with_details(quote(value))
    };
    Ok(Attachment {
        container_id: request.container_id.parse().map_err(|e| bad("CNI_CONTAINERID", &request.container_id, e))?,
        ifname: request.ifname.parse().map_err(|e| bad("CNI_IFNAME", &request.ifname, e))?,
    })
}

fn answer(lease: &Lease) -> Option<Box<RawValue>> {
    let result = AddResult {
        host_link: lease.host_link.clone(),
        host_mac: lease.host_mac,
        ifname: lease.attachment.ifname.clone(),
        pod_mac: lease.pod_mac.unwrap_or_else(|| lease.attachment.mac(LinkEnd::Pod)),
        netns: lease.netns.clone(),
        mtu: lease.mtu,
        ipv6: lease.ipv6,
        ipv4: lease.ipv4,
        gateway4: lease.gateway4,
    };
    // The types of a result hold nothing that JSON cannot express.
    to_raw_value(&result.to_wire()).ok()
}

fn log_request(op: Op, trace: &Trace, began: Instant, fault: Option<&Fault>) {
    let line = match (fault, op) {
        (Some(_), _) => log::warn("request failed"),
        // Runtimes ask every five seconds.
        (None, Op::Status | Op::Check) => log::debug("request served"),
        // Runtimes repeat deletes, and nothing was there to be changed.
        (None, Op::Del) if trace.addresses.is_empty() => log::debug("request served"),
        (None, _) => log::info("request served"),
    };
    let addresses: Vec<String> = trace.addresses.iter().map(ToString::to_string).collect();
    let line = line
        .with("op", op)
        .with_some("cid", trace.attachment.as_ref().map(|a| &a.container_id))
        .with_some("if", trace.attachment.as_ref().map(|a| &a.ifname))
        .with_some("pod", trace.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)))
        .with_some("addr", (!addresses.is_empty()).then(|| addresses.join(",")))
        .with("ms", format!("{:.1}", began.elapsed().as_secs_f64() * 1000.0));
    match fault {
        Some(fault) => line.with("step", fault.step).with("err", fault).write_limited(),
        None => line.write(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::agent::board::Board;
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
            let verbs = Arc::new(Verbs::new(ledger, remover, gate, pods));
            Scene { verbs, directory }
        }

        /// Records a lease of which the kernel shows nothing, made at `since`.
        pub(crate) fn recorded(&self, key: &str, since: u64) -> Attachment {
            let lease = Lease { since, ..crate::record::examples::lease(key) };
            self.verbs.ledger.record(lease.clone(), soon()).expect("recorded");
            lease.attachment
        }

        pub(crate) fn is_recorded(&self, attachment: &Attachment) -> bool {
            self.verbs.ledger.find(attachment, soon()).expect("in time").is_some()
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
    fn garbage_collection_takes_nothing_that_is_newer_than_its_list() {
        let scene = Scene::new("gc", None);
        let attachment = scene.recorded("only-in-tests/eth0", 101);
        let collected = scene.verbs.collect(&attachment, 100, soon()).expect("looked at");
        assert!(matches!(collected, Collected::Newer));
        assert!(scene.is_recorded(&attachment));
        let collected = scene.verbs.collect(&attachment, 101, soon()).expect("looked at");
        assert!(matches!(collected, Collected::Removed));
        assert!(!scene.is_recorded(&attachment));
    }

    #[test]
    fn a_delete_of_an_older_sandbox_leaves_the_newer_one() {
        let scene = Scene::new("remove", None);
        let attachment = scene.recorded("only-in-tests/eth0", 101);
        assert!(!scene.verbs.remove(&attachment, 100, soon()).expect("nothing to do"));
        assert!(scene.is_recorded(&attachment));
        assert!(scene.verbs.remove(&attachment, 101, soon()).expect("removed"));
        assert!(!scene.is_recorded(&attachment));
    }

    #[test]
    fn a_pod_that_the_api_does_not_show_yet_is_refused_and_not_given_what_it_may_not_want() {
        let scene = Scene::new("unknown", Some(Pods::default()));
        let text = json_of(r#"{"cidr4":"10.0.0.0/24"}"#);
        let config = nodeconfig::parse(text).expect("a NodeConfig");
        let view = View { mtu: 1500, gateway4: config.gateway4, config };
        let told = |runtime_config: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"flock","type":"flock"{runtime_config}}}"#);
            let conf = netconf::parse(text.as_bytes(), Command::Add).expect("a configuration");
            let pod = args::parse("K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0").expect("a pod");
            scene.verbs.intent(&conf, pod.as_ref(), &view, Instant::now() + Duration::from_millis(20))
        };
        let refused = told("");
        assert!(matches!(refused, Err(Cause::PodUnknown)), "{refused:?}");
        // A runtime that tells the annotations spares the question.
        let told = told(r#","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{}}"#).expect("served");
        assert!(told.ipv4.is_some() && told.ipv6.is_none());
    }

    fn json_of(spec: &str) -> String {
        format!(
            r#"{{"apiVersion":"flock.fritzlab.net/v1alpha1","kind":"NodeConfig","metadata":{{"name":"n"}},"spec":{spec}}}"#
        )
    }
}
