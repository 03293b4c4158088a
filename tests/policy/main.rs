//! Who may talk to whom, answered three times and compared. Run by `make test-policy`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod by_hand;
mod cluster;
mod compare;
mod cyclonus;
mod evaluator;
mod node;
mod prober;
#[path = "../support/mod.rs"]
mod support;
