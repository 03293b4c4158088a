//! The node daemon; everything is in `flock::agent`.
fn main() -> std::process::ExitCode {
    flock::agent::run()
}
