//! The Kubernetes API: how to reach it, what to ask, and what is kept of the answers.
//!
//! The watch machine and the objects are free of I/O. The client is ureq over rustls with a connector of our own. No value of
//! this module shows a secret when it is printed. Must not know the agent.

pub mod access;
pub mod account;
mod asked;
pub mod client;
mod connect;
pub mod credentials;
mod dates;
pub mod exec;
pub mod expiry;
pub mod kind;
pub mod kubeconfig;
pub mod objects;
pub mod pem;
pub mod policy_objects;
pub mod proxy;
pub mod reflect;
pub mod secret;
pub mod server;
pub mod url;
pub mod watch;

/// An error of this module with what caused it, in one line.
pub fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
