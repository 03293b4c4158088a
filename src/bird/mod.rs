//! BIRD 2, the routing daemon that tells routers what this node announces: the text of its configuration, and its control socket.
//!
//! What is announced is in kernel table 102 and never in the configuration, so a pod that comes or goes needs no word here. An
//! edge: must not decide what a node announces, nor start or end the daemon.

pub mod conf;
pub mod keeper;
pub mod password;
pub mod reply;
pub mod sessions;
pub mod socket;
