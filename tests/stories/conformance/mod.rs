//! The statements of the CNI specification and of the runtimes' habits, one by one, against the real plugin.
//!
//! A line `covers:` above a test names the rows of `docs/conformance.md` that it shows; `tests/conformance_doc.rs` holds
//! both together. Where the plugin alone is the subject, a scripted agent answers it; elsewhere it is the real one.

mod add;
mod chain;
mod check;
mod configuration;
mod del;
mod environment;
mod gc;
mod output;
mod status;
