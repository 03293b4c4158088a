//! Connections: TCP that notices when the other side is gone, then TLS with a configuration of our own.
//!
//! Everything that can block here is known to [`Stop`] before it blocks, so that a shutdown from another thread ends it
//! at once: lookups of names, TCP connects, handshakes, reads. ureq's own parts cannot be told the server's name, panic
//! on a key that does not fit its certificate, and set no keepalive. Must not know HTTP or Kubernetes.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socket_with, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::{Duration as MaybeDuration, Instant as MaybeInstant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::process::shutdown::{Stop, Stoppable, Stopped};

/// Interval between questions whether a silent connection is still there, 5 s.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Number of such questions without an answer after which a connection is given up.
const PROBES: u32 = 3;
/// Longest time for which what was sent may stay unconfirmed, 15 s; then the connection is given up. Keepalive does not run
/// while something is unconfirmed.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(15);

fn stopped(_: Stopped) -> ureq::Error {
    io::Error::from(io::ErrorKind::NotConnected).into()
}

/// Names to addresses. An address needs no lookup.
pub(super) struct Names(pub(super) Arc<Stop>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// A lookup in progress. The C library cannot be interrupted: its thread is left to end by itself.
struct Lookup(Sender<io::Result<Vec<SocketAddr>>>);

impl Stoppable for Lookup {
    fn stop(&self) {
        self.0.send(Err(io::ErrorKind::NotConnected.into())).ok();
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let mut addresses = self.empty();
        if let Ok(address) = host.parse::<IpAddr>() {
            addresses.push(SocketAddr::new(address, port));
            return Ok(addresses);
        }
        let (sender, receiver) = channel();
        let lookup = Arc::new(Lookup(sender.clone()));
        self.0.register(Arc::downgrade(&lookup) as Weak<dyn Stoppable>).map_err(stopped)?;
        let name = host.to_owned();
        thread::Builder::new().name("lookup".into()).spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Nobody listens any more after the time limit.
            sender.send(found).ok();
        })?;
        let found = receiver.recv_timeout(*timeout.after).map_err(|gone| match gone {
            RecvTimeoutError::Timeout => ureq::Error::Timeout(timeout.reason),
            RecvTimeoutError::Disconnected => ureq::Error::HostNotFound,
        })??;
        // The type has room for sixteen.
        for address in found.into_iter().take(16) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Makes TCP connections.
pub(super) struct Tcp(pub(super) Arc<Stop>);

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tcp")
    }
}

impl<In: Transport> Connector<In> for Tcp {
    type Out = Either<In, Socket>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        // What comes from before is a tunnel through a proxy.
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        let mut failure = ureq::Error::HostNotFound;
        for (tried, address) in details.addrs.iter().enumerate() {
            // Each address gets its share of what is left, so that a dead one does not use it up.
            let left = remaining(details);
            let after_this = u32::try_from(details.addrs.len().saturating_sub(tried)).unwrap_or(1).max(1);
            match self.open(*address, *left.after / after_this) {
                Ok(connection) => {
                    let config = details.config;
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Either::B(Socket { connection, buffers })));
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => failure = ureq::Error::Timeout(left.reason),
                Err(error) => failure = error.into(),
            }
            if self.0.is_stopped() {
                return Err(stopped(Stopped));
            }
        }
        Err(failure)
    }
}

impl Tcp {
    fn open(&self, address: SocketAddr, limit: Duration) -> io::Result<Arc<Connection>> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(&socket, KEEPALIVE)?;
        sockopt::set_tcp_keepcnt(&socket, PROBES)?;
        sockopt::set_tcp_user_timeout(&socket, u32::try_from(UNCONFIRMED_MAX.as_millis()).unwrap_or(u32::MAX))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let connection = Arc::new(Connection(TcpStream::from(socket)));
        let part = Arc::downgrade(&connection) as Weak<dyn Stoppable>;
        self.0.register(part).map_err(|Stopped| io::Error::from(io::ErrorKind::NotConnected))?;
        match rustix::net::connect(&connection.0, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => wait_for_connection(&connection.0, limit)?,
            Err(error) => return Err(error.into()),
        }
        connection.0.set_nonblocking(false)?;
        Ok(connection)
    }
}

fn wait_for_connection(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit.min(Duration::from_secs(600));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        match poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return stream.take_error()?.map_or(Ok(()), Err),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A connection, which any thread may end.
#[derive(Debug)]
struct Connection(TcpStream);

impl Stoppable for Connection {
    fn stop(&self) {
        // An error means that it has ended already.
        self.0.shutdown(Shutdown::Both).ok();
    }
}

/// A TCP connection with its buffers.
#[derive(Debug)]
pub(super) struct Socket {
    connection: Arc<Connection>,
    buffers: LazyBuffers,
}

/// The limit of one system call; None for no limit.
fn call_limit(timeout: NextTimeout) -> Result<Option<Duration>, ureq::Error> {
    match timeout.after {
        MaybeDuration::NotHappening => Ok(None),
        // The kernel takes zero for no limit.
        MaybeDuration::Exact(Duration::ZERO) => Err(ureq::Error::Timeout(timeout.reason)),
        MaybeDuration::Exact(limit) => Ok(Some(limit)),
    }
}

/// The kernel reports a limit of ours as "would block". Its "timed out" is something else: the other side is gone.
fn call_error(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        let mut stream = &self.connection.0;
        stream.set_write_timeout(call_limit(timeout)?)?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        stream.write_all(output).map_err(|error| call_error(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let mut timeout = timeout.for_read();
        let began = Instant::now();
        let whole = timeout.after;
        loop {
            let mut stream = &self.connection.0;
            stream.set_read_timeout(call_limit(timeout)?)?;
            match stream.read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if let MaybeDuration::Exact(whole) = whole {
                        timeout.after = whole.saturating_sub(began.elapsed()).into();
                    }
                }
                Err(error) => return Err(call_error(error, timeout)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // A connection that may be used again is one with nothing to read: neither an end nor what nobody asked for.
        let mut byte = [0];
        let read = rustix::net::recv(&self.connection.0, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(read, Err(Errno::AGAIN))
    }
}

/// What is left of the time for connecting.
fn remaining(details: &ConnectionDetails) -> NextTimeout {
    let mut timeout = details.timeout;
    if let (MaybeDuration::Exact(after), MaybeInstant::Exact(began)) = (timeout.after, details.now) {
        timeout.after = after.saturating_sub(began.elapsed()).into();
    }
    timeout
}

/// Wraps connections in TLS.
pub(super) struct Tls {
    /// None for a server that speaks plain http.
    pub(super) config: Option<Arc<ClientConfig>>,
    /// Host and port of the API server, as in its URL.
    pub(super) authority: String,
    /// The name that the API server's certificate must have.
    pub(super) name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(below) = chained else { return Ok(None) };
        let Some(config) = self.config.as_ref().filter(|_| details.needs_tls() && !below.is_tls()) else {
            return Ok(Some(Either::A(below)));
        };
        // An https proxy goes by its own name.
        let name = match details.uri.authority() {
            Some(authority) if authority.as_str() != self.authority => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
                ServerName::try_from(host).map_err(|_| ureq::Error::Tls("the proxy's name is not one"))?
            }
            _ => self.name.clone(),
        };
        let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut socket = TransportAdapter::new(Box::new(below) as Box<dyn Transport>, details.current_time.clone());
        socket.set_timeout(remaining(details));
        connection.complete_io(&mut socket)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A connection with TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    // covers: FM-D01
    #[test]
    fn a_connection_notices_within_twenty_seconds_that_the_other_side_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let connection = Tcp(Arc::default()).open(address, Duration::from_secs(10)).expect("connected");
        let socket = &connection.0;
        assert!(sockopt::socket_keepalive(socket).expect("an option"));
        let idle = sockopt::tcp_keepidle(socket).expect("an option");
        let interval = sockopt::tcp_keepintvl(socket).expect("an option");
        let probes = sockopt::tcp_keepcnt(socket).expect("an option");
        assert!(idle + interval * probes <= Duration::from_secs(20));
        assert!((15_000..=20_000).contains(&sockopt::tcp_user_timeout(socket).expect("an option")));
        assert!(sockopt::tcp_nodelay(socket).expect("an option"));
    }

    #[test]
    fn nothing_begins_after_the_end() {
        let stop = Arc::new(Stop::default());
        stop.stop();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        assert!(Tcp(stop.clone()).open(address, Duration::from_secs(10)).is_err());
        let uri: Uri = "https://localhost:1".parse().expect("a URL");
        let config = ureq::Agent::config_builder().build();
        assert!(Names(stop).resolve(&uri, &config, NextTimeout::default()).is_err());
    }
}
