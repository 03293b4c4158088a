//! This process and the programs that it runs: its log, its locks, its signs of life, its shutdown, and files that others write.
//!
//! Must not know what the process is for.

pub mod crew;
pub mod dates;
pub mod exit;
pub mod failpoint;
pub mod foreign_file;
pub mod lock;
pub mod log;
pub mod meter;
pub mod notify;
pub mod program;
pub mod progress;
pub mod shutdown;
pub mod turns;
