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
mod containerd;
mod kubelet;
mod podman;
mod readiness;
mod sandboxes;
#[path = "../support/mod.rs"]
mod support;

use crate::containerd::{CONF_DIR, Containerd, ContainerdRelease};
use crate::support::agent::AgentBuilder;
use crate::support::host::Host;

/// The story, once with each release of containerd.
fn with_each(story: impl Fn(&Containerd<'_>)) {
    for release in ContainerdRelease::ALL {
        let host = Host::with_runtimes();
        let containerd = Containerd::start(&host, release);
        story(&containerd);
    }
}

impl Host {
    /// An agent that writes the runtime's configuration.
    fn cni_agent(&self) -> AgentBuilder<'_> {
        self.agent().args(&["--cni-conf-dir", CONF_DIR])
    }
}
