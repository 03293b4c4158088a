//! The fuzzer: libFuzzer drives the check that `FUZZ_TARGET` names. `make fuzz` runs them all.
//!
//! One program for all targets, since linking takes longer than most findings. It must not hold any check itself: those are
//! in `targets/`, where stable Rust can run them, too.
#![no_main]

mod targets;

use std::sync::LazyLock;

use targets::{ALL, Check};

static CHECK: LazyLock<Check> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    let found = ALL.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET must be one of {}, not {wanted:?}", names.join(", "))).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHECK(data));
