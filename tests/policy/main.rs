//! Who may talk to whom, answered three times and compared. Run by `make test-policy`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod by_hand;
mod cases;
mod cluster;
mod compare;
mod cyclonus;
mod evaluator;
mod node;
mod policed;
mod prober;
mod random;
mod stories;
mod streams;
#[path = "../support/mod.rs"]
mod support;
