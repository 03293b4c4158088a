//! The environment of a call: `NAME=VALUE` with a zero byte behind each, as in `/proc/PID/environ`.

use cni::env::{ARGS_MAX, Call, Invocation, NETNS_MAX, parse};
use cni::error::{Code, Error};
use cni::verb::Verb;
use model::addr::{Attachment, CONTAINER_ID_MAX, IF_NAME_MAX, IfName, LinkEnd};

use super::assert_fit_for_a_runtime;

type Outcome = Result<Option<Invocation>, Error>;

pub(crate) fn check(data: &[u8]) {
    let pairs: Vec<(&[u8], &[u8])> = data
        .split(|byte| *byte == 0)
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            Some((&pair[..equals], &pair[equals + 1..]))
        })
        .collect();
    let get = |wanted: &str| {
        let found = pairs.iter().find(|(name, _)| *name == wanted.as_bytes());
        found.map(|(_, value)| value.to_vec())
    };
    sound(&parse(get));
    let with = |command: Verb| {
        let outcome = parse(|name| if name == "CNI_COMMAND" { Some(command.as_str().into()) } else { get(name) });
        sound(&outcome);
        if let Ok(invocation) = &outcome {
            assert_eq!(invocation.as_ref().map(Invocation::verb), Some(command));
        }
        outcome
    };
    let [add, del, check, _gc, status, version] = Verb::ALL.map(with);
    assert_eq!(add.is_ok(), check.is_ok(), "ADD and CHECK ask for the same");
    assert!(status.is_ok() && version.is_ok(), "STATUS and VERSION ask for nothing");
    if let Ok(Some(add)) = add {
        let del = del.expect("what could be added can be deleted").expect("a verb");
        assert_eq!((del.attachment(), del.netns()), (add.attachment(), add.netns()));
    }
}

fn sound(outcome: &Outcome) {
    match outcome {
        Ok(None) => {}
        Ok(Some(invocation)) => sound_call(invocation),
        Err(error) => {
            assert_eq!(error.code(), Code::InvalidEnvironment);
            assert_fit_for_a_runtime(error);
            assert!(error.msg().contains("CNI_"), "which variable? {error}");
        }
    }
}

fn sound_call(invocation: &Invocation) {
    assert!(invocation.args.len() <= ARGS_MAX && invocation.path.len() <= ARGS_MAX);
    if let Some(netns) = invocation.netns() {
        assert!(netns.starts_with('/') && netns.len() <= NETNS_MAX && !netns.contains('\0'), "{netns:?}");
    }
    let Some(attachment) = invocation.attachment() else {
        return assert!(matches!(invocation.call, Call::Gc | Call::Status | Call::Version));
    };
    let (id, ifname) = (attachment.container_id.as_str(), attachment.ifname.as_str());
    assert!((1..=CONTAINER_ID_MAX).contains(&id.len()) && (1..=IF_NAME_MAX).contains(&ifname.len()));
    // Both become parts of paths and of the kernel's names.
    assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)), "{id:?}");
    assert!(id.starts_with(|c: char| c.is_ascii_alphanumeric()), "{id:?}");
    assert!(!ifname.contains(['/', '\0', ':', '%']) && !ifname.contains(char::is_whitespace), "{ifname:?}");
    assert!(ifname != "." && ifname != "..");
    assert_eq!(attachment.to_string().parse::<Attachment>().as_ref(), Ok(attachment));
    for attempt in 0..3 {
        let link = attachment.host_link(attempt);
        assert_eq!(link.as_str().parse::<IfName>().as_ref(), Ok(&link));
    }
    assert_ne!(attachment.mac(LinkEnd::Host), attachment.mac(LinkEnd::Pod));
}
