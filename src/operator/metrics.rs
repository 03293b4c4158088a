//! `flock-agent status -o prometheus`: the metrics of the agent, for nodes on which nobody may listen at a port and the textfile
//! collector of node_exporter is used instead.
//!
//! Prints the page of one moment, or nothing. Must not know what is counted.

use std::path::Path;
use std::time::Duration;

use crate::operator::Told;
use crate::operator::ask;
use crate::process::exit::Exit;
use crate::rpc::QUERY_LIMIT;
use crate::rpc::message::Query;
use crate::rpc::report::MetricsPage;

/// Asks the agent on `socket` once: whoever calls this does so every minute.
pub fn run(socket: &Path) -> Told {
    match ask::ask::<MetricsPage>(socket, &Query::Metrics, Duration::ZERO, QUERY_LIMIT) {
        Ok(page) => Told { exit: Exit::Done, text: of_flock(&page.text), asides: Vec::new() },
        Err(why) => Told::failed(why.exit(), &why),
    }
}

/// The page without what each process says of itself: node_exporter has the same of its own, and refuses a second one.
fn of_flock(page: &str) -> String {
    let name =
        |line: &str| ["# HELP ", "# TYPE "].iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line).to_owned();
    let lines = page.lines().filter(|line| !name(line).starts_with("process_"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_process_says_of_itself_is_left_out() {
        let own = "# HELP flock_node_ready Whether process_x.\n# TYPE flock_node_ready gauge\nflock_node_ready 1\n";
        let process = "# HELP process_threads Threads.\n# TYPE process_threads gauge\nprocess_threads 17\n";
        assert_eq!(of_flock(&format!("{own}{process}")), own);
    }
}
