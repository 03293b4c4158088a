//! The CNI plugin; everything is in `flock::plugin`.
fn main() -> std::process::ExitCode {
    flock::plugin::run()
}
