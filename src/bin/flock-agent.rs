//! The node daemon, `install` and `uninstall`: one program, whose first argument says which.
//!
//! Chooses the allocator. Everything else is behind `flock::cli`; this file must not do more than call it.

// The C library's allocator gives each of many threads a heap of its own and keeps what the largest moment needed: a flood of
// long requests left 50 MiB behind, for good. This one has one heap, and gives back what is free at its end.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    flock::cli::run()
}
