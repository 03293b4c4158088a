//! What the agent needs of the kernel. It looks once, when it starts, and logs each thing that is missing, with what to do.
//!
//! The start fails only where no pod of this boot can have been attached, nor ever can be: a kernel does not get younger or
//! gain namespaces while it runs, so no delete is kept from anybody. Whatever an operator can add to a running host is only a
//! line of the log; the ADD that needs it fails with the same words, and works once it is there. docs/requirements.md has the
//! whole list. Must not change anything.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::process::log;

/// The oldest kernel that flock is tried on (`make test-kernels`): the oldest long-term kernel that has all that flock needs.
pub const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Deadline for the kernel to look for a module, 10 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Why no pod can be attached here, whatever is done while this kernel runs.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The kernel is too old; this is its release.
    Old(String),
    /// The kernel was built without network namespaces.
    NoNamespaces,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = OLDEST_KERNEL;
        match self {
            Unfit::Old(release) => write!(f, "this kernel is Linux {release}, and flock needs {major}.{minor} or newer"),
            Unfit::NoNamespaces => f.write_str(
                "this kernel has no network namespaces, in which pods live (/proc/thread-self/ns/net is missing): start one that was \
                 built with CONFIG_NET_NS",
            ),
        }
    }
}

/// What the kernel shows of what flock needs.
#[derive(Debug)]
struct Seen {
    release: String,
    namespaces: bool,
    ipv4: bool,
    ipv6: bool,
    veth: Result<bool, NetlinkError>,
}

/// Something that is missing and that can be added.
#[derive(Debug, PartialEq, Eq)]
struct Lack {
    what: String,
    remedy: &'static str,
    /// Whether nodes may well do without it.
    optional: bool,
}

/// Looks at the kernel, and logs what is missing.
///
/// # Errors
/// [`Unfit`]: there is no use in going on.
pub fn look() -> Result<(), Unfit> {
    let exists = |path: &str| fs::exists(path).unwrap_or(false);
    let seen = Seen {
        release: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        namespaces: exists("/proc/thread-self/ns/net"),
        ipv4: exists("/proc/sys/net/ipv4"),
        ipv6: exists("/proc/sys/net/ipv6"),
        veth: Conn::open(Instant::now() + LIMIT).and_then(|mut conn| conn.knows_veth()),
    };
    for Lack { what, remedy, optional } in judge(&seen)? {
        let line =
            if optional { log::warn("kernel lacks something") } else { log::error("kernel lacks what pods need") };
        line.with("what", what).with("do", remedy).write();
    }
    Ok(())
}

fn judge(seen: &Seen) -> Result<Vec<Lack>, Unfit> {
    // A release that is no number tells no age.
    if release(&seen.release).is_some_and(|release| release < OLDEST_KERNEL) {
        return Err(Unfit::Old(seen.release.clone()));
    }
    if !seen.namespaces {
        return Err(Unfit::NoNamespaces);
    }
    let mut lacks = Vec::new();
    let mut lack = |what: String, remedy, optional| lacks.push(Lack { what, remedy, optional });
    match &seen.veth {
        Ok(true) => {}
        Ok(false) => lack(
            "veth, the links of pods".into(),
            "modprobe veth, and for the next boots: echo veth > /etc/modules-load.d/flock.conf",
            false,
        ),
        Err(error) if error.is_denied() => lack(format!("{error}"), "give flock-agent CAP_NET_ADMIN", false),
        Err(error) => lack(format!("{error}"), "nothing yet: an ADD that needs it says so again", true),
    }
    if !seen.ipv4 {
        lack(
            "IPv4 (/proc/sys/net/ipv4 is missing)".into(),
            "show the agent /proc/sys/net, or give this node no cidr4",
            true,
        );
    }
    if !seen.ipv6 {
        lack(
            "IPv6 (/proc/sys/net/ipv6 is missing)".into(),
            "boot without ipv6.disable=1, and load the module where it is one, or give this node no cidr6",
            true,
        );
    }
    Ok(lacks)
}

/// The first two numbers of a release such as `5.10.0-32-cloud-amd64`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::kernel::netlink::Cause;

    fn whole() -> Seen {
        Seen { release: "6.1.0".into(), namespaces: true, ipv4: true, ipv6: true, veth: Ok(true) }
    }

    fn netlink(errno: i32) -> NetlinkError {
        NetlinkError {
            what: "ask for veth".into(),
            cause: Cause::Kernel { errno: Errno::from_raw_os_error(errno), text: None },
        }
    }

    #[test]
    fn the_oldest_kernel_is_compared_by_number_and_only_numbers_count() {
        for old in ["5.9.16", "5.4.0-150-generic", "4.18.0-553.el8_10.x86_64", "3.10.0-1160", "5.9", "5.0-rc1"] {
            let error = judge(&Seen { release: old.into(), ..whole() }).expect_err("too old").to_string();
            assert_eq!(error, format!("this kernel is Linux {old}, and flock needs 5.10 or newer"));
        }
        for fit in
            ["5.10.0-32-cloud-amd64", "5.10", "5.14.0-427.el9", "6.1.0", "6.18.44-x", "10.0", "", "custom", "6", "x.y"]
        {
            assert_eq!(judge(&Seen { release: fit.into(), ..whole() }), Ok(Vec::new()), "{fit}");
        }
    }

    #[test]
    fn what_can_be_added_is_a_line_with_a_remedy_and_ends_nothing() {
        let said = |seen: Seen| {
            judge(&seen).expect("it goes on").into_iter().map(|lack| (lack.what, lack.remedy, lack.optional))
        };
        let one = |seen: Seen| {
            let [lack] = <[_; 1]>::try_from(said(seen).collect::<Vec<_>>()).expect("one thing");
            lack
        };
        let (what, remedy, optional) = one(Seen { veth: Ok(false), ..whole() });
        assert!(what.contains("veth") && remedy.contains("modprobe veth") && !optional);
        let (what, remedy, optional) = one(Seen { veth: Err(netlink(1)), ..whole() });
        assert!(what.contains("Operation not permitted") && remedy.contains("CAP_NET_ADMIN") && !optional);
        let (what, _, optional) = one(Seen { veth: Err(netlink(105)), ..whole() });
        assert!(what.starts_with("ask for veth: ") && optional);
        let (what, remedy, optional) = one(Seen { ipv6: false, ..whole() });
        assert!(what.contains("IPv6") && remedy.contains("ipv6.disable=1") && remedy.contains("cidr6") && optional);
        let (what, remedy, optional) = one(Seen { ipv4: false, ..whole() });
        assert!(what.contains("IPv4") && remedy.contains("cidr4") && optional);
        assert_eq!(said(Seen { ipv4: false, ipv6: false, veth: Ok(false), ..whole() }).count(), 3);
        assert_eq!(judge(&Seen { namespaces: false, veth: Ok(false), ..whole() }), Err(Unfit::NoNamespaces));
    }
}
