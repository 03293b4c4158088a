//! Real kernels, the oldest that flock runs on among them, with nothing in them but both programs and this one: `make
//! test-kernels`.
//!
//! On the host it packs an initramfs for each kernel, boots them in qemu without KVM and reads what they say. In the machine it is
//! the first process, which makes a host out of it and tells the stories, and it is what the kernel runs when it needs a module.
//! The last line is as cargo's own harness has it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs
)]

mod boot;
mod initramfs;
#[path = "../support/inside.rs"]
mod inside;
mod ip;
mod machine;
mod node;
mod ping;
mod policing;
mod routed;
mod stories;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        _ if std::process::id() == 1 => machine::run(),
        [quiet, end, name] if (quiet.as_str(), end.as_str()) == ("-q", "--") => machine::modprobe(name),
        _ => boot::run(arguments),
    }
}
