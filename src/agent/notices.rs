//! What the server notices, such as callers that it has not served, as lines of the log.
//!
//! Each kind of line is limited, since callers can trigger them at will. Must not decide who is served.

use std::sync::Arc;

use crate::process::log;
use crate::rpc::frame::FrameError;
use crate::rpc::server::{Notice, Notify};

/// What the server calls with each of its notices.
pub fn to_log() -> Notify {
    Arc::new(|notice| match notice {
        Notice::Accept(error) => log::warn("connection cannot be accepted").with("err", error).write_limited(),
        Notice::ForeignUid { uid, pid } => log::warn("caller refused: neither root nor this user")
            .number("uid", uid)
            .number_some("pid", pid)
            .write_limited(),
        // A connection that brought nothing: a plugin has only looked whether the agent listens.
        Notice::Request(FrameError::Closed(0)) => {}
        Notice::Request(error) => log::warn("request did not arrive").with("err", error).write_limited(),
        Notice::Abandoned(op) => {
            log::warn("request not carried out, its caller has gone").with("op", op).write_limited()
        }
        Notice::Answer(error) => log::warn("answer did not leave").with("err", error).write_limited(),
        Notice::Mode(was) => log::warn("permissions of the socket were changed, and are as before")
            .with("were", format!("{was:04o}"))
            .write_limited(),
    })
}
