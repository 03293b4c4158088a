//! What is common to all that an agent writes to the API server: how a refusal is told, and when the next try is due.
//!
//! Must not know what is written, nor write it.

use std::time::Duration;

use serde_json::Value;

use crate::agent::node::cluster::advice;
use crate::kube::client::Answer;
use crate::kube::reflect::chance;
use model::excerpt::Excerpt;

/// Pause after a request that the server did not take, 15 s, with jitter that doubles it at most.
pub const RETRY: Duration = Duration::from_secs(15);

/// Longest pause that a server can ask for, 5 min.
pub const RETRY_MAX: Duration = Duration::from_secs(300);

/// Longest message of the server that is repeated, in bytes.
const MESSAGE_MAX: usize = 300;

/// Why there is no report.
#[derive(Debug)]
pub enum Unreported {
    /// The object is not there any more, or another one has its name. The watch brings the news.
    Gone,
    /// The server did not take it.
    Failed {
        /// Why, in words for an operator.
        why: String,
        /// The pause that the server asks for.
        wait: Option<Duration>,
    },
}

/// `wait`, and at random up to a `parts`-th of it more: what all nodes do at once, they do not do in step.
pub fn jittered(wait: Duration, parts: u32) -> Duration {
    wait + up_to(wait / parts)
}

/// At random less than `most`, or nothing.
pub fn up_to(most: Duration) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(chance() % most)
}

/// What the answer of a server means that did not do what `verb` asks of `resource`, in RBAC's words.
pub fn refused(verb: &'static str, resource: &'static str, answer: &Answer) -> Unreported {
    let message = excerpt(&answer.body);
    let why = match advice(verb, resource, answer.status, &message) {
        Some(advice) => format!("{} ({}: {message}); {}", advice.what, answer.status, advice.remedy),
        None => format!("{}: {message}", answer.status),
    };
    // An answer that names the object means that the CRD is there and the object is not.
    let gone = answer.status == 404 && message.contains("not found") && message.contains('"');
    if gone { Unreported::Gone } else { Unreported::Failed { why, wait: answer.retry_after } }
}

fn excerpt(body: &[u8]) -> String {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = status.get("message").and_then(Value::as_str).map(str::to_owned);
    Excerpt::line(&text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()), MESSAGE_MAX).into()
}
