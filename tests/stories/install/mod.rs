//! `flock-agent install` and `flock-agent uninstall`, into images and on a running node: what they leave, what they refuse, and
//! what is there when they are killed.

mod dist;
mod image;
mod node;
mod platforms;
