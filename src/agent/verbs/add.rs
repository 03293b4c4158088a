//! ADD: receive, intent, host and reserve (record: pending), wire, commit (record: committed), answer.
//!
//! An address is recorded before a packet can carry it. What fails is taken back by the path of DEL: there is no second clean-up.
//! Must not touch files or sockets itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::value::{RawValue, to_raw_value};

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::ledger::NewLease;
use crate::agent::ledger::claim::{Begun, Claim};
use crate::agent::node::state::View;
use crate::agent::policing::handle::Admitted;
use crate::agent::verbs::takedown::{TakenDown, Unless};
use crate::agent::verbs::wire::{Sandbox, unwire, wire};
use crate::agent::verbs::{Trace, Verbs, key, named, receive};
use crate::kernel::netns::Netns;
use crate::kube::objects::Pod;
use crate::process::log;
use crate::record::notes::Note;
use crate::rpc::agent_limit;
use crate::rpc::message::Response;
use crate::rpc::server::Call;
use cni::args::{self, PodArgs};
use cni::netconf::NetConf;
use cni::result::AddResult;
use cni::verb::Verb;
use model::addr::{Attachment, LinkEnd};
use model::annotations::{self, Level, Warning};
use model::embed::{Field, Identity};
use model::ipam;
use model::lease::{Lease, Phase, PodName};
use model::permit::permit;

/// Most addresses that an ADD tries in turn because somebody has just made a route to each. The next look at the host knows them.
const ADDRESSES_TRIED: usize = 8;

/// What a pod is to get.
#[derive(Debug)]
pub(super) struct Wanted {
    /// In the allocator's words.
    pub(super) addresses: ipam::Request,
    /// What it shares with other pods.
    pub(super) anycast: Vec<IpAddr>,
    /// It sends for others, too.
    pub(super) any_source: bool,
    /// Its policies are to be audited.
    pub(super) audit: bool,
}

impl Verbs {
    /// Attaches a container. The answer tells of the committed lease, so the same call, repeated, gets the same answer.
    pub(super) fn add(&self, call: &Call<'_>, trace: &mut Trace) -> Result<Response, Fault> {
        let lease = self.attach(call, trace)?;
        Ok(Response { result: result(&lease), since: Some(lease.since), ..Response::done() })
    }

    fn attach(&self, call: &Call<'_>, trace: &mut Trace) -> Result<Lease, Fault> {
        let at = |step: Step| move |cause: Cause| Fault { step, cause };
        let request = call.request;
        Step::Receive.begin();
        let conf = receive(request, Verb::Add)?;
        let attachment = key(request)?;
        trace.attachment = Some(attachment.clone());
        let pod_args = args::parse(&request.args).map_err(|e| Fault::new(Step::Receive, e))?;
        let pod = pod_args.as_ref().map(named);
        trace.pod.clone_from(&pod);

        Step::Intent.begin();
        let view = self.node.state().view.clone().ok_or_else(|| at(Step::Intent)(Cause::NotConfigured))?;
        let began = Instant::now();
        let wanted =
            self.intent(&conf, (&attachment, pod_args.as_ref()), &view, call.deadline).map_err(at(Step::Intent))?;
        let alone = &wanted.addresses.fixed;
        self.claims.allow(alone, &wanted.anycast, pod.as_ref()).map_err(at(Step::Intent))?;
        self.took(Step::Intent, began, (&attachment, trace.pod.as_ref()));
        let netns = Netns::open(Path::new(&request.netns)).map_err(|e| Fault::new(Step::Receive, e))?;
        let mut sandbox = Sandbox::enter(netns, &self.visitors, call.deadline).map_err(|e| at(Step::Wire)(e.into()))?;

        let new = NewLease {
            attachment: attachment.clone(),
            network: conf.name,
            netns: request.netns.clone(),
            pod,
            mtu: view.mtu,
            gateway4: view.gateway4,
            call: request.call.clone(),
            addresses: wanted.addresses.clone(),
            anycast: wanted.anycast,
            any_source: wanted.any_source,
            audit: wanted.audit,
        };
        let began = Instant::now();
        let Begun { mut claim, warnings } = self.begin(&new, call.deadline)?;
        let warnings = match (warnings, claim.lease()) {
            (Some(warnings), _) => {
                // The claim may have been waited for, and the host may be another by now.
                if let Err(cause) = self.node.pass(call.deadline) {
                    self.undo(claim);
                    return Err(at(Step::Host)(cause));
                }
                warnings
            }
            // The same run of the plugin asks over a new connection, since its first answer was lost.
            (None, Some(lease))
                if lease.phase == Phase::Committed && lease.call.is_some() && lease.call == request.call =>
            {
                trace.addresses = lease.addresses().collect();
                return Ok(lease.clone());
            }
            (None, found) => {
                // Where the link of what was found has gone, the namespace has gone too, and its DEL never came. A DEL that found
                // this agent too busy has left a note, and has succeeded for its caller.
                if let Some(lease) = found {
                    let note = self.notes.of(&attachment).filter(|note| lease.since <= note.at);
                    let unless: &[Unless] = if note.is_some() { &[] } else { &[Unless::Stands] };
                    if let TakenDown::Spared(_) = self.make_way(&mut claim, unless, call.deadline)? {
                        return Err(at(Step::Reserve)(Cause::Attached(attachment)));
                    }
                    if let Some(note) = note {
                        self.put_away(note, trace.pod.as_ref());
                    }
                }
                Step::Host.begin();
                self.node.pass(call.deadline).map_err(at(Step::Host))?;
                Step::Reserve.begin();
                claim.reserve(new, call.deadline).map_err(at(Step::Reserve))?
            }
        };
        self.took(Step::Reserve, began, (&attachment, trace.pod.as_ref()));
        tell((&attachment, trace.pod.as_ref()), &warnings);
        trace.addresses = claim.lease().iter().flat_map(|lease| lease.addresses()).collect();
        let wired = self.wire_and_commit(call, &mut claim, &wanted.addresses, &mut sandbox);
        trace.quarantined = matches!(wired, Ok(Admitted::Quarantined));
        let lease = claim.lease().cloned();
        trace.addresses = lease.iter().flat_map(Lease::addresses).collect();
        match (wired, lease) {
            (Ok(_), Some(lease)) => {
                self.tell_routing_if(self.is_routed_apart(&lease));
                Step::Answer.begin();
                Ok(lease)
            }
            (Ok(_), None) => Err(at(Step::Answer)(Cause::Unknown(attachment))),
            (Err(fault), _) => {
                self.undo(claim);
                Err(fault)
            }
        }
    }

    /// The end of a note that has been carried out: nobody should read it beside the lease that is about to be made.
    fn put_away(&self, note: Note, pod: Option<&PodName>) {
        let attachment = note.attachment.clone();
        let line = match self.notes.done(&[note]) {
            Ok(()) => {
                self.meters.replayed.count();
                log::info("noted delete carried out")
            }
            Err(error) => log::warn("noted delete carried out, and its note stays").with("err", error),
        };
        line.with("op", Verb::Del).about((&attachment, pod)).write_limited();
    }

    /// Claims the attachment. On a host that is ready, which is the rule, the same message reserves.
    fn begin(&self, new: &NewLease, deadline: Instant) -> Result<Begun, Fault> {
        if !self.node.state().host.is_ready() {
            return Ok(Begun { claim: self.claim(&new.attachment, deadline)?, warnings: None });
        }
        Step::Host.begin();
        Step::Reserve.begin();
        self.ledger.begin(new.clone(), deadline).map_err(|cause| Fault { step: Step::Reserve, cause })
    }

    fn wire_and_commit(
        &self,
        call: &Call<'_>,
        claim: &mut Claim,
        wanted: &ipam::Request,
        sandbox: &mut Sandbox,
    ) -> Result<Admitted, Fault> {
        Step::Wire.begin();
        let began = Instant::now();
        let (host_index, admitted) = self.wire(claim, wanted, sandbox, call.deadline)?;
        claim.lease().into_iter().for_each(|lease| self.proxy_for(lease, call.deadline));
        claim.lease().into_iter().for_each(|lease| self.took(Step::Wire, began, lease));
        Step::Commit.begin();
        let began = Instant::now();
        let fail = |cause: Cause| Fault { step: Step::Commit, cause };
        if call.caller_gone() {
            return Err(fail(Cause::CallerGone));
        }
        claim.commit(Some(host_index), call.deadline).map_err(fail)?;
        claim.lease().into_iter().for_each(|lease| self.took(Step::Commit, began, lease));
        Ok(admitted)
    }

    /// Makes the link of the claim's lease. Where somebody has made a route to one of its addresses since the last look at the
    /// host, the pod gets another address.
    fn wire(
        &self,
        claim: &mut Claim,
        wanted: &ipam::Request,
        sandbox: &mut Sandbox,
        deadline: Instant,
    ) -> Result<(u32, Admitted), Fault> {
        let reserve = |cause: Cause| Fault { step: Step::Reserve, cause };
        let mut tried = 0;
        loop {
            let attachment = claim.attachment().clone();
            let lease = claim.lease().ok_or_else(|| reserve(Cause::Unknown(attachment.clone())))?;
            let admission = self.police.admit(lease, deadline).map_err(|cause| Fault { step: Step::Wire, cause })?;
            match wire(lease, sandbox, admission, (&self.remover, &self.turns), deadline) {
                Err(Fault { step, cause: Cause::AddressTaken(ip, error) }) if wanted.fixed.contains(&ip) => {
                    return Err(Fault { step, cause: Cause::NamedTaken(ip, error) });
                }
                Err(Fault { cause: Cause::AddressTaken(ip, error), .. }) if tried < ADDRESSES_TRIED => {
                    log::warn("address is somebody else's, the pod gets another one")
                        .with("op", Verb::Add)
                        .about(lease)
                        .with("addr", ip)
                        .with("err", error)
                        .write_limited();
                    unwire(lease, &self.remover, deadline)?;
                    let pod = lease.pod.clone();
                    let warnings = claim.replace(ip, wanted.clone(), deadline).map_err(reserve)?;
                    tell((&attachment, pod.as_ref()), &warnings);
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    /// Takes back a failed ADD, on time of its own: the request's may be over.
    fn undo(&self, claim: Claim) {
        let attachment = claim.attachment().clone();
        let pod = claim.lease().and_then(|lease| lease.pod.clone());
        if let Err(fault) = self.take_down(claim, &[], Instant::now() + agent_limit(Verb::Del)) {
            // The record stays, so the next DEL, round or start finds it.
            log::warn("failed ADD not undone yet")
                .with("op", Verb::Add)
                .about((&attachment, pod.as_ref()))
                .with("err", fault)
                .write_limited();
        }
    }

    /// What the pod wants, and may have by the word of the node's owner.
    pub(super) fn intent(
        &self,
        conf: &NetConf,
        (attachment, pod): (&Attachment, Option<&PodArgs>),
        view: &View,
        deadline: Instant,
    ) -> Result<Wanted, Cause> {
        let mut known = None;
        let mut look = || -> Option<Arc<Pod>> {
            let (pods, pod) = (self.pods.as_ref()?, pod?);
            known.get_or_insert_with(|| pods.find(&pod.namespace, &pod.name, pod.uid.as_deref(), deadline)).clone()
        };
        let annotations = match (&conf.annotations, &self.pods, pod) {
            (Some(told), ..) => Cow::Borrowed(told),
            // Without Kubernetes, or for a container that is none of its pods, there are no annotations.
            (None, None, _) | (None, _, None) => Cow::Owned(BTreeMap::new()),
            (None, Some(_), Some(_)) => Cow::Owned(look().ok_or(Cause::PodUnknown)?.annotations.clone()),
        };
        let (intent, warnings) = annotations::intent(&annotations, &view.config.defaults)?;
        permit(&intent, pod.map(|pod| pod.namespace.as_str()), &view.config)?;
        for warning in warnings {
            log::warn("annotation ignored")
                .with("op", Verb::Add)
                .about((attachment, pod.map(named).as_ref()))
                .with("why", &warning)
                .write_limited();
            // What is wrong with a NodeConfig is not the pod's.
            if let (Some(pod), Warning::UnknownKey(_) | Warning::IpAlgo(Level::Pod, ..)) = (pod, &warning) {
                self.telling.ignored(named(pod), warning.to_string());
            }
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
        let addresses = ipam::Request {
            ipv6: intent.ipv6.then_some(ipam::Want6 { cidrs: intent.cidr6, embed }),
            ipv4: intent.ipv4.then_some(ipam::Want4 { cidrs: intent.cidr4 }),
            fixed: intent.addresses,
        };
        Ok(Wanted { addresses, anycast: intent.anycast, any_source: intent.any_source, audit: intent.audit })
    }
}

/// Says in the log what an operator should know of the addresses that were chosen.
fn tell(subject: (&Attachment, Option<&PodName>), warnings: &[String]) {
    for warning in warnings {
        log::warn("address chosen in another way than asked")
            .with("op", Verb::Add)
            .about(subject)
            .with("why", warning)
            .write_limited();
    }
}

/// The result has the one address of each family that the pod is known by, since the API server takes no more than that into
/// `status.podIPs`. Further and anycast addresses are on the interface and in the record only.
fn result(lease: &Lease) -> Option<Box<RawValue>> {
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
