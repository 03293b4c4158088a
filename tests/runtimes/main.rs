//! Stories with real container runtimes: containerd 1 and 2 as kubelet drives them, and podman. Run by `make test-runtimes`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs
)]

mod configuration;
mod kubelet;
mod machine;
mod podman;
mod readiness;
mod sandboxes;
#[path = "../support/mod.rs"]
mod support;

use std::net::IpAddr;
use std::process::Stdio;

use machine::*;
use support::*;

/// The story, once with each release of containerd.
fn with_each(story: impl Fn(&Containerd<'_>)) {
    for release in Release::ALL {
        let machine = Machine::boot();
        let containerd = Containerd::start(&machine, release);
        story(&containerd);
    }
}

impl Machine {
    /// An agent that writes the runtime's configuration.
    fn cni_agent(&self) -> AgentBuilder<'_> {
        self.agent().args(&["--cni-conf-dir", CONF_DIR])
    }
}
