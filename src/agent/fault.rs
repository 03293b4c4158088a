//! A request that failed: at which step, why, and the one map from reasons to CNI codes and words.
//!
//! The only place of the agent that knows codes. Must not decide anything else.

use std::fmt;
use std::net::IpAddr;

use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::apply::ApplyError;
use crate::kernel::netns::NetnsError;
use crate::kernel::nftables::NftError;
use crate::kernel::sysctl::SysctlError;
use crate::process::failpoint;
use crate::record::disk::DiskError;
use crate::rpc::message::Response;
use cni::error::{Code, Error};
use model::addr::{Attachment, IfName};
use model::annotations::AnnotationError;
use model::claims::Obstacle;
use model::ipam::IpamError;
use model::lease::{Lease, PodName};

/// What an operator reads of an address that a pod names and cannot have now.
const TAKEN: &str = "address is another's";

/// The steps of a request, in the order of an ADD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read what was asked.
    Receive,
    /// Find out what the pod wants.
    Intent,
    /// Take addresses and record them.
    Reserve,
    /// Make the node forward.
    Host,
    /// Make the link.
    Wire,
    /// Record that the link stands.
    Commit,
    /// Tell the caller.
    Answer,
    /// Remove the link.
    Unwire,
    /// End the lease.
    Release,
    /// CHECK and GC: compare what stands with what should.
    Compare,
}

impl Step {
    /// Marks that the step begins here, for tests that kill or hold the agent at each.
    pub fn begin(self) {
        failpoint::pass(self.name()).ok();
    }

    /// What failed, in an operator's words, when the kernel did not do its part of the step.
    fn kernel_refused(self) -> &'static str {
        match self {
            Step::Unwire => "link cannot be removed",
            Step::Host => "host cannot be prepared",
            Step::Compare => "kernel cannot be asked",
            _ => "link cannot be programmed",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Step::Receive => "receive",
            Step::Intent => "intent",
            Step::Reserve => "reserve",
            Step::Host => "host",
            Step::Wire => "wire",
            Step::Commit => "commit",
            Step::Answer => "answer",
            Step::Unwire => "unwire",
            Step::Release => "release",
            Step::Compare => "compare",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a step failed.
#[derive(Debug)]
pub enum Cause {
    /// What the runtime sent cannot be used; worded where it was read.
    Request(Error),
    /// No usable NodeConfig yet.
    NotConfigured,
    /// The API server has not told of the pod yet, and nobody else tells its annotations.
    PodUnknown,
    /// The agent is ending.
    Stopping,
    /// The request's time is over.
    Late,
    /// The caller has gone away.
    CallerGone,
    /// The attachment exists.
    Attached(Attachment),
    /// The pod has an interface of this name, not made by flock.
    InterfaceExists(IfName),
    /// The host has a link of this name, not made by flock.
    HostLinkExists(IfName),
    /// An annotation of the pod cannot be used.
    Annotation(Box<AnnotationError>),
    /// There is no address for the pod.
    Ipam(IpamError),
    /// An address that the pod names is another pod's of this node.
    Held {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        holder: Box<Holder>,
    },
    /// An address that the pod names is not to be had, as other nodes have it.
    Elsewhere(Box<Obstacle>),
    /// Somebody has a route to an address that the pod names.
    NamedTaken(IpAddr, NetlinkError),
    /// The record could not be written.
    Store(DiskError),
    /// The pod's namespace cannot be used.
    Netns(NetnsError),
    /// The kernel refused, or did not answer in time.
    Netlink(NetlinkError),
    /// What the pod may send and receive cannot be had in force.
    Nftables(NftError),
    /// Somebody has a route to an address that was to be the pod's.
    AddressTaken(IpAddr, NetlinkError),
    /// A kernel setting could not be read or written.
    Sysctl(SysctlError),
    /// CHECK: no record.
    Unknown(Attachment),
    /// CHECK: record or kernel differ from the result of ADD; what is missing or wrong.
    Differs(String),
    /// GC: attachments that stand and are not in the runtime's list, or could not be removed.
    Kept(Vec<String>),
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The attachment.
    pub attachment: Attachment,
    /// The pod, if the runtime has named one.
    pub pod: Option<PodName>,
}

impl Holder {
    /// The holder of what `lease` has.
    pub fn of(lease: &Lease) -> Holder {
        Holder { attachment: lease.attachment.clone(), pod: lease.pod.clone() }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attachment { container_id, ifname } = &self.attachment;
        match &self.pod {
            Some(pod) => write!(f, "{pod} (container {container_id}, interface {ifname})"),
            None => write!(f, "container {container_id}, interface {ifname}"),
        }
    }
}

/// A failed request.
#[derive(Debug)]
pub struct Fault {
    /// The step that failed.
    pub step: Step,
    /// Why it failed.
    pub cause: Cause,
}

impl Fault {
    /// A cause at a step.
    pub fn new(step: Step, cause: impl Into<Cause>) -> Fault {
        Fault { step, cause: cause.into() }
    }

    /// The error object for the runtime: code, a short text that is the same for many pods, and the particulars.
    pub fn to_error(&self) -> Error {
        let (code, msg, details) = match &self.cause {
            Cause::Request(error) => return error.clone(),
            Cause::NotConfigured => (
                Code::TryAgainLater,
                "node is not configured yet",
                "flock-agent has no valid NodeConfig; its log says why".to_owned(),
            ),
            Cause::PodUnknown => (
                Code::TryAgainLater,
                "pod is not known yet",
                "its annotations come neither from the runtime nor, so far, from the API server".to_owned(),
            ),
            Cause::Stopping => (Code::TryAgainLater, "flock-agent is stopping", String::new()),
            Cause::Late => (Code::TryAgainLater, "time limit reached", format!("at step {}", self.step)),
            Cause::CallerGone => (Code::TryAgainLater, "caller has gone away", format!("at step {}", self.step)),
            Cause::Attached(attachment) => (
                Code::InvalidEnvironment,
                "CNI_IFNAME is attached already",
                format!("container {} has interface {}; DEL comes first", attachment.container_id, attachment.ifname),
            ),
            Cause::InterfaceExists(ifname) => (
                Code::InvalidEnvironment,
                "CNI_IFNAME exists in CNI_NETNS",
                format!("interface {ifname} was not made by flock and stays as it is"),
            ),
            Cause::HostLinkExists(name) => (
                Code::Internal,
                "host link name is taken",
                format!("link {name} was not made by flock and stays as it is; remove it if nobody needs it"),
            ),
            Cause::Annotation(error) => (Code::InvalidConfig, "pod annotation cannot be used", error.to_string()),
            Cause::Ipam(error) => match error {
                IpamError::Exhausted { .. }
                | IpamError::Resting { .. }
                | IpamError::Held(_)
                | IpamError::Reserved(_) => (Code::TryAgainLater, "no free address", error.to_string()),
                _ => (Code::InvalidConfig, "no address can be allocated", error.to_string()),
            },
            // Whoever has it may be about to go, as the former pod of a StatefulSet is.
            Cause::Held { ip, holder } => (Code::TryAgainLater, TAKEN, format!("{ip} is held by {holder}")),
            Cause::Elsewhere(obstacle) => (Code::TryAgainLater, TAKEN, obstacle.to_string()),
            Cause::NamedTaken(ip, error) => {
                (Code::TryAgainLater, TAKEN, format!("{ip} is the destination of somebody else's route: {error}"))
            }
            Cause::Store(error) => (Code::TryAgainLater, "state cannot be recorded", error.to_string()),
            Cause::Netns(error) if error.is_shortage() => {
                (Code::TryAgainLater, "flock-agent has run out of a resource", error.to_string())
            }
            Cause::Netns(error) => {
                let code = match error {
                    NetnsError::Own(_) => Code::InvalidNetns,
                    _ => Code::InvalidEnvironment,
                };
                (code, "CNI_NETNS cannot be used", format!("{error}{}", netns_remedy(error)))
            }
            Cause::Netlink(error) | Cause::AddressTaken(_, error) => {
                let code = if error.is_transient() { Code::TryAgainLater } else { Code::Internal };
                (code, self.step.kernel_refused(), format!("{error}{}", remedy(error)))
            }
            Cause::Nftables(error) => {
                let code = if error.is_transient() { Code::TryAgainLater } else { Code::Internal };
                (code, "source check and policies cannot be set", format!("{error}{}", filter_remedy(error)))
            }
            Cause::Sysctl(error) if error.is_shortage() => {
                (Code::TryAgainLater, "flock-agent has run out of a resource", error.to_string())
            }
            Cause::Sysctl(error) => (Code::Internal, "kernel setting cannot be changed", error.to_string()),
            Cause::Unknown(attachment) => {
                (Code::UnknownContainer, "container is unknown", format!("no record of {attachment}"))
            }
            Cause::Differs(what) => (Code::Internal, "attachment is damaged", what.clone()),
            Cause::Kept(what) => (Code::Internal, "some attachments were kept", what.join("; ")),
        };
        Error::new(code, msg).with_details(details)
    }

    /// The answer to the plugin.
    pub fn to_response(&self) -> Response {
        let error = self.to_error();
        Response::failed(error.code().number(), error.msg(), error.details())
    }
}

/// What to do about an error of the kernel; empty where that is not known.
fn remedy(error: &NetlinkError) -> &'static str {
    if error.is_denied() {
        "; flock-agent needs CAP_NET_ADMIN"
    } else if error.is_exists() {
        "; what is in the way was not made by flock and stays as it is"
    } else {
        ""
    }
}

/// What to do about an error of the packet filter; empty where that is not known.
fn filter_remedy(error: &NftError) -> &'static str {
    if error.is_denied() {
        "; flock-agent needs CAP_NET_ADMIN"
    } else if error.is_absent() {
        ", or let pods send and receive what they like: spec.sourceCheck: false and spec.policy.mode: none of the NodeConfig"
    } else if error.is_gone() {
        "; this kernel may lack a part of nf_tables that it has as a module: modprobe -a nft_ct nft_limit nft_counter nft_log nft_masq \
         nft_chain_nat"
    } else {
        ""
    }
}

/// Runtimes that make no file for a namespace name it by a process in it, which the kernel opens to few.
fn netns_remedy(error: &NetnsError) -> &'static str {
    match error {
        NetnsError::Open { path, error }
            if error.kind() == std::io::ErrorKind::PermissionDenied && path.starts_with("/proc") =>
        {
            "; the kernel opens the namespace of a process only to who may trace it: let the runtime name namespaces by files \
             (below /run/netns), or give flock-agent CAP_SYS_PTRACE (systemctl edit flock-agent: AmbientCapabilities= and \
             CapabilityBoundingSet=)"
        }
        _ => "",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_error())
    }
}

impl std::error::Error for Fault {}

impl From<ApplyError> for Cause {
    fn from(error: ApplyError) -> Cause {
        match error.taken {
            Some(ip) => Cause::AddressTaken(ip, error.error),
            None => Cause::Netlink(error.error),
        }
    }
}

impl From<AnnotationError> for Cause {
    fn from(error: AnnotationError) -> Cause {
        Cause::Annotation(Box::new(error))
    }
}

macro_rules! from {
    ($($source:ty => $variant:ident),* $(,)?) => {
        $(impl From<$source> for Cause {
            fn from(error: $source) -> Cause {
                Cause::$variant(error)
            }
        })*
    };
}

from! {
    Error => Request,
    IpamError => Ipam,
    DiskError => Store,
    NetnsError => Netns,
    NetlinkError => Netlink,
    NftError => Nftables,
    SysctlError => Sysctl,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use rustix::io::Errno;

    use super::*;
    use crate::kernel::nftables;

    #[test]
    fn whoever_lacks_a_module_of_the_packet_filter_is_told_all_that_there_are() {
        let cause = nftables::Cause::Kernel { errno: Errno::NOENT, text: None, part: None };
        let remedy = filter_remedy(&NftError { what: "table inet flock".into(), cause });
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/requirements.md");
        let text = fs::read_to_string(path).expect("documented");
        let row = text.lines().find(|line| line.starts_with("| the packet filter")).expect("a row");
        let needed: BTreeSet<&str> = row.split('`').filter(|word| word.starts_with("nft_")).collect();
        let told: BTreeSet<&str> = remedy.split(' ').filter(|word| word.starts_with("nft_")).collect();
        assert!(needed.len() > 4, "{row}");
        assert_eq!(told, needed);
    }
}
