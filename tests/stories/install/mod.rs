//! `flock-agent install` and `flock-agent uninstall`, into images and on a running node: what they leave, what they refuse, and
//! what is there when they are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod dist;
mod image;
mod node;
