//! What lines of the log about an attachment have in common: `cid`, `ifname` and, where it is known, `pod`. Whoever searches the
//! log for a pod finds all that became of it.
//!
//! Must not decide what is said.

use crate::agent::fault::Holder;
use crate::process::log::line::{Line, Subject};
use model::addr::Attachment;
use model::lease::{Lease, PodName};

impl Subject for Attachment {
    fn of(&self, line: Line) -> Line {
        line.with("cid", &self.container_id).with("ifname", &self.ifname)
    }
}

impl Subject for (&Attachment, Option<&PodName>) {
    fn of(&self, line: Line) -> Line {
        line.about(self.0).with_some("pod", self.1)
    }
}

impl Subject for Lease {
    fn of(&self, line: Line) -> Line {
        line.about((&self.attachment, self.pod.as_ref()))
    }
}

impl Subject for Holder {
    fn of(&self, line: Line) -> Line {
        line.about((&self.attachment, self.pod.as_ref()))
    }
}
