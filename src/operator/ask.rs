//! One question to the agent over its socket, with a deadline, and what it means when there is no answer.
//!
//! An agent of another version is said to be one, with both versions, whether it does not know the question or answers it in a
//! way that cannot be read. Must not know what is asked, nor print anything.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::exit::Exit;
use crate::rpc::client::{self, CallError};
use crate::rpc::frame::FrameError;
use crate::rpc::message::{Answer, Query, Response};
use cni::error::Code;
use model::excerpt::Excerpt;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Longest text of a refusal, in bytes.
const REFUSAL_MAX: usize = 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The agent tells this user nothing.
    Denied(PathBuf),
    /// The agent could not be asked, or did not answer.
    Call(CallError),
    /// The agent does not know the question, or part of it.
    Unknown {
        /// The version of the agent; none of one that is too old to say it.
        theirs: Option<String>,
        /// What it says.
        why: String,
    },
    /// The agent answers in a way that cannot be read.
    Unreadable(String),
    /// The question cannot be answered as it stands.
    Misused(String),
    /// The agent cannot tell, for this reason.
    Refused(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = "systemctl restart flock-agent puts the installed one in force";
        match self {
            Unanswered::Denied(socket) => {
                write!(f, "the agent on {} answers root only: sudo flock-agent …", socket.display())
            }
            Unanswered::Call(error) => write!(f, "{error}"),
            Unanswered::Unknown { theirs: Some(theirs), why } => write!(
                f,
                "the agent that runs is version {theirs} and does not understand this question of version {VERSION} ({why}): {remedy}"
            ),
            Unanswered::Unknown { theirs: None, why } => write!(
                f,
                "the agent that runs is older than this program, which is version {VERSION}, and too old to say which version it is; \
                 it does not understand the question ({why}): {remedy}"
            ),
            Unanswered::Unreadable(why) => write!(
                f,
                "the agent that runs is of another version than this program, which is version {VERSION} and cannot read its answer \
                 ({why}): {remedy}"
            ),
            Unanswered::Misused(why) => f.write_str(why),
            Unanswered::Refused(why) => write!(f, "flock-agent cannot tell: {why}"),
        }
    }
}

impl std::error::Error for Unanswered {}

impl Unanswered {
    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            Unanswered::Denied(_) => Exit::Denied,
            Unanswered::Misused(_) => Exit::Misused,
            _ => Exit::Unanswered,
        }
    }

    fn of_call(socket: &Path, error: CallError) -> Unanswered {
        let denied = match &error {
            CallError::Absent { error, .. } => error.kind() == io::ErrorKind::PermissionDenied,
            // Whoever may connect and is not root, as on a socket whose mode somebody has changed, hears nothing.
            CallError::Lost { error: FrameError::Closed(0), .. } => !rustix::process::geteuid().is_root(),
            _ => false,
        };
        if denied { Unanswered::Denied(socket.into()) } else { Unanswered::Call(error) }
    }
}

/// Asks the agent on `socket`. One that does not listen is waited for no longer than `patience`, and the answer for `limit`.
///
/// # Errors
/// There is no answer.
pub fn ask<T: Answer>(socket: &Path, query: &Query, patience: Duration, limit: Duration) -> Result<T, Unanswered> {
    let response = client::ask(socket, query, patience, Instant::now() + limit);
    read(response.map_err(|error| Unanswered::of_call(socket, error))?)
}

fn read<T: Answer>(response: Response) -> Result<T, Unanswered> {
    let Response { result, error, code, details, version, .. } = response;
    let line = |text: &str| String::from(Excerpt::line(text, REFUSAL_MAX));
    if let Some(error) = error.filter(|error| !error.is_empty()) {
        let is = |known: Code| code == Some(known.number());
        let why = line(&details.map_or(error.clone(), |details| format!("{error}: {details}")));
        return Err(match () {
            () if is(Code::InvalidEnvironment) => Unanswered::Misused(why),
            () if is(Code::Decode) => Unanswered::Unknown { theirs: version.as_deref().map(line), why },
            () => Unanswered::Refused(why),
        });
    }
    let result = result.ok_or_else(|| Unanswered::Unreadable("it says nothing".into()))?;
    serde_json::from_str(result.get()).map_err(|error| Unanswered::Unreadable(line(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::report::NodeReport;

    fn answered(line: &str) -> Result<NodeReport, Unanswered> {
        read(serde_json::from_str(line).expect("an answer"))
    }

    fn said(line: &str) -> (Exit, String) {
        let error = answered(line).expect_err("no answer");
        (error.exit(), error.to_string())
    }

    #[test]
    fn an_agent_of_another_version_is_named_and_not_garbled() {
        // Word for word what the first agents say, which knew one question only.
        let (exit, older) = said(
            "{\"error\":\"request refused\",\"code\":6,\"details\":\"no request of flock: unknown variant `NODE`, expected one of \
             `ADD`, `DEL`, `CHECK`, `GC`, `STATUS` at line 1 column 12\"}",
        );
        assert_eq!(exit, Exit::Unanswered);
        assert!(older.contains("older than this program") && older.contains(VERSION), "{older}");
        assert!(older.contains("`NODE`") && older.contains("systemctl restart flock-agent"), "{older}");
        let (_, named) = said(r#"{"error":"request refused","code":6,"details":"x","version":"0.0.9\n"}"#);
        assert!(named.contains("is version 0.0.9 and") && named.contains(&format!("of version {VERSION}")), "{named}");
        let newer = r#"{"result":{"node":"n1","version":"9.9.9","mood":"fine","ready":true,"families":[{"family":"ipv4","hue":7}]}}"#;
        let report = answered(newer).expect("what is known of it");
        assert!((report.node.as_str(), report.ready, report.families.len()) == ("n1", true, 1), "{report:?}");
        let (exit, odd) = said(r#"{"result":{"node":["n1"]}}"#);
        assert!(exit == Exit::Unanswered && odd.contains("another version") && odd.contains(VERSION), "{odd}");
        assert!(said("{}").1.contains("it says nothing"));
    }

    #[test]
    fn what_the_agent_refuses_is_not_taken_for_another_version() {
        let (exit, text) = said(r#"{"error":"flock-agent is not ready","code":50,"details":"it has just started"}"#);
        assert_eq!(exit, Exit::Unanswered);
        assert_eq!(text, "flock-agent cannot tell: flock-agent is not ready: it has just started");
        assert_eq!(said(r#"{"error":"FROM: no such pod","code":4}"#), (Exit::Misused, "FROM: no such pod".into()));
    }

    #[test]
    fn nobody_there_and_not_for_everybody_are_two_ends() {
        let socket = std::env::temp_dir().join(format!("flock-ask-{}", std::process::id()));
        let nobody = ask::<NodeReport>(&socket, &Query::Node, Duration::ZERO, Duration::from_secs(1))
            .expect_err("nobody listens");
        assert_eq!(nobody.exit(), Exit::Unanswered);
        assert!(nobody.to_string().contains("there is no such socket"), "{nobody}");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let denied = Unanswered::of_call(&socket, CallError::Absent { socket: socket.clone(), error: denied });
        assert!(denied.exit() == Exit::Denied && denied.to_string().contains("root only"), "{denied}");
    }
}
