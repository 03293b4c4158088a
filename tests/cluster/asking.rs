//! Questions by HTTP: from a host, and from a pod that asks in our stead. What should be answered, the stories say.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use flock::kernel::netns::Netns;
use serde_json::Value;

use crate::cluster::{Cluster, Pod};
use crate::support::host::Host;
use crate::support::inside::Inside as _;

/// Where the pods' servers listen.
pub(crate) const PORT: u16 = 8080;

/// How long somebody waits who may be left without an answer.
const BRIEFLY: Duration = Duration::from_secs(3);

fn within(netns: &Path, to: SocketAddr, path: &str, patience: Duration) -> Result<String, String> {
    let netns = Netns::open(netns).expect("a namespace");
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = netns.run(ask).expect("entered").map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer of HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 200 ") { Ok(body.to_owned()) } else { Err(format!("{status}: {body}")) }
}

impl Host {
    /// What a server answers to this host, or why it does not.
    pub(crate) fn asks(&self, to: IpAddr, port: u16, path: &str) -> Result<String, String> {
        within(&self.netns(), SocketAddr::new(to, port), path, BRIEFLY)
    }
}

impl Cluster<'_> {
    /// What a server answers to this pod, whose own server asks it: under `to`, which may be a name, and from which address.
    pub(crate) fn pod_asks(&self, pod: &Pod, to: &str, port: u16, request: &str) -> Result<String, String> {
        let host = to.replace(':', "%3A");
        let path = format!("/dial?host={host}&port={port}&request={request}&protocol=http&tries=1");
        // Of its own node, where no policy is between them. A pod that gets no answer needs ten seconds to know.
        let netns = self.node(&pod.node).host.netns();
        let text = within(&netns, SocketAddr::new(pod.ips[0], PORT), &path, Duration::from_secs(30))?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let first = |key: &str| answer[key][0].as_str().map(str::to_owned);
        first("responses").ok_or_else(|| first("errors").unwrap_or_default())
    }
}

/// The address in an answer to `clientip`, which has a port behind it.
pub(crate) fn address_of(answer: &str) -> IpAddr {
    let socket: SocketAddr = answer.parse().unwrap_or_else(|_| panic!("{answer:?} is no address with a port"));
    socket.ip().to_canonical()
}
