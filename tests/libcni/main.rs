//! Stories with the real libcni, release by release, and with the reference plugins around flock. Run by
//! `make test-libcni`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod beside;
mod calls;
mod chain;
mod node;
mod releases;
#[path = "../support/mod.rs"]
mod support;
