//! The node daemon: its threads, and how its parts are put together.
//!
//! | thread | owns |
//! |---|---|
//! | main | the start, signals, the end |
//! | `ledger` | allocator and store; the single writer |
//! | `conn`, one per request (at most 384), and one that waits for the next (8 rest) | nothing: values in, values out |
//! | `log` | standard error: the only thread that waits for whoever reads it |
//! | `link-events` | the kernel's announcements of removed links |
//! | `host-events` | the kernel's announcements of what others change; wakes `node` and `reconcile` |
//! | `remove`, one per removal (at most 256; 8 rest) | the wait in the kernel |
//! | `node` | the NodeConfig and the host's facts; writes the view, the host's settings and the node's own routes |
//! | `watch-nodeconfigs`, `watch-nodepeers`, `watch-pods` | one watch machine each; only with Kubernetes |
//! | `watch-node` | the watch machine of this node's Node; only where its podCIDRs are asked for |
//! | `bird` | the configuration of BIRD, and what is known of the sessions with the peers |
//! | `watchdog` | the state that the service manager has of the agent; only with one |
//! | `status` | the status that the API server has of this node; only with Kubernetes |
//! | `nodepeer` | what the API server has of this node for the others; only with Kubernetes |
//! | `events` | what was told of this node and its pods by Events; only with Kubernetes |
//! | `reconcile` | nothing: compares, and acts through the verbs |
//! | `routing` | table 102, routes to other nodes and of anycast addresses |
//! | `policing` | the tables of the packet filter |
//! | `policy-dir` | what the files of the policies of a node without Kubernetes have told |
//! | `watches` | which watches there are for policies; only with Kubernetes |
//! | `watch-policies`, `watch-spaces`, `watch-pods-of` per selection (at most 16) | one watch machine each, if needed |
//! | `ruleset-events` | the kernel's announcements of what others change in these tables; only while there are any |
//! | `metrics`, one `scrape` per connection (at most 4) | the port at which metrics are asked for; only if there is one |
//! | `netns`, one per visit to a pod's namespace (4 rest) | the visit |
//! | `lookup`, throw-away | one name look-up of the API client; only with Kubernetes |
//!
//! `start` puts the parts together; everything else is a part. Must not be used by anything but the command line.
//!
//! A panic anywhere aborts the process: a daemon that lost one thread is worse than a restart, and the state bears it.

pub mod again;
pub mod board;
pub mod boards;
pub mod draw;
pub mod entrance;
pub mod events;
pub mod fault;
pub mod history;
pub mod identity;
pub mod kubernetes;
pub mod ledger;
pub mod metrics;
pub mod neighbours;
pub mod node;
pub mod notices;
pub mod observe;
pub mod policing;
pub mod reconcile;
pub mod reply;
pub mod report;
pub mod requirements;
pub mod routing;
pub mod settings;
pub mod start;
pub mod subject;
pub mod suspicion;
pub mod threads;
pub mod verbs;
pub mod watchdog;
pub mod watched;

use std::fmt;

use crate::agent::identity::Identity;
use crate::agent::settings::Settings;
use crate::agent::start::{Opened, StartError};
use crate::process::exit::Exit;
use crate::process::log;

/// Runs the agent until SIGTERM or SIGINT; SIGHUP makes it look again at everything. [`Exit::Misused`] when the settings name no
/// usable source of the NodeConfig or no usable node name: then nothing has been touched.
pub fn run(settings: Settings) -> Exit {
    let identity = match Identity::of(&settings) {
        Ok(identity) => identity,
        Err(mistake) => {
            complain(mistake);
            return Exit::Misused;
        }
    };
    if let Err(error) = log::start(settings.log_level, settings.log_format) {
        complain(StartError::Thread(error));
        return Exit::Failed;
    }
    let exit = match serve(settings, identity) {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::error("flock-agent cannot run").with("err", &error).write();
            Exit::Failed
        }
    };
    log::flush();
    exit
}

fn serve(settings: Settings, identity: Identity) -> Result<(), StartError> {
    Opened::open(settings)?.recover(identity)?.serve()?.until_told_to_stop();
    Ok(())
}

/// Says on standard error why the agent does not start, before there is a log.
fn complain(why: impl fmt::Display) {
    log::last_words(format!("flock-agent: {why}\n"));
}
