//! `flock-agent check`: each planted fault is found, named and cured by what the finding says, and nothing foreign is changed.

mod firewall;
mod node;
mod planted;
