//! `flock-agent status -o prometheus`: the metrics of the agent, for nodes on which nobody may listen at a port and the textfile
//! collector of node_exporter is used instead.
//!
//! Prints the page whole or not at all. Must not know what is counted.

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
        Ok(page) => Told { exit: Exit::Done, text: page.text, asides: Vec::new() },
        Err(why) => Told::failed(why.exit(), &why),
    }
}
