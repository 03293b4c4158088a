//! The CNI plugin. Everything is in `flock::plugin`; this file must not do more than call it.
fn main() -> std::process::ExitCode {
    flock::plugin::run()
}
