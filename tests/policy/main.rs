//! Who may talk to whom, answered three times and compared: by packets between pods of a real agent, by a plain evaluator that is
//! written from the documentation alone, and by cyclonus. Run by `make test-policy`.
//!
//! Where two of the three differ, the words of the Kubernetes documentation decide, and the case is a row in `readings`. Rulesets
//! that are written by hand, right and wrong, show in `by_hand` that the comparison finds what is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod beside;
mod by_hand;
mod cases;
mod cluster;
mod compare;
mod cyclonus;
mod evaluator;
mod explain;
mod node;
mod outside;
mod policed;
mod prober;
mod random;
mod readings;
mod stories;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod written;
