//! The client: one request at a time per caller, any number of callers, and one call that ends them all.
//!
//! Answers are values whatever their status. Nothing is repeated and nothing is redirected. Bodies, lines and times have
//! limits. Whatever says how to reach the server is followed while it changes, by one rule: it is looked at for each
//! request; what is good counts from then on; what is broken is said, and what was good before stays in use. Only another
//! certificate or authority needs new connections, and another server ends those to the former one. Must not know what is asked
//! and answered.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use ureq::http::{HeaderValue, Request, Response};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _};
use ureq::{Agent, AsSendBody, Body, BodyReader, Timeout};

use crate::kube::access::{Access, AccessError, Kubeconfig};
use crate::kube::asked::Asked;
use crate::kube::connect::{Names, Tcp, Tls};
use crate::kube::credentials::{Contents, Credentials, CredentialsError};
use crate::kube::dates;
use crate::kube::expiry::Expiry;
use crate::kube::explained;
use crate::kube::kind::Form;
use crate::kube::kubeconfig;
use crate::kube::proxy::{self, Proxy, ProxyError};
use crate::kube::server::{Scheme, Server};
use crate::process::lock::Lock;
use crate::process::shutdown::{Stop, Stoppable};

/// Longest part of a body that is kept where the body only explains a refusal, 64 KiB.
const REFUSAL_MAX: usize = 64 << 10;

/// Deadline for such a body, 10 s.
const REFUSAL_TIME: Duration = Duration::from_secs(10);

/// Longest time for which a server can ask to be left alone, a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is understood.
const JSON: &str = "application/json";

/// The same for events that hold no more than the `metadata` of their objects.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=1,application/json";

/// The same for a list.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=1,application/json";

/// How long the parts of a request may take, and how large an answer may be.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// Looking up a name.
    pub lookup: Duration,
    /// Connecting, with the proxy's part and the TLS handshake.
    pub connect: Duration,
    /// From the request to the end of the answer's headers.
    pub headers: Duration,
    /// The whole of a request that is not a watch.
    pub total: Duration,
    /// The server says nothing in the middle of an answer that is not a watch.
    pub silence: Duration,
    /// A credential plugin.
    pub plugin: Duration,
    /// One line of a watch, in bytes.
    pub line: usize,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            lookup: Duration::from_secs(11), // two tries of the C library, 5 s each
            connect: Duration::from_secs(15),
            headers: Duration::from_secs(30),
            total: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            plugin: Duration::from_secs(30),
            line: 8 << 20,
        }
    }
}

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Change a part.
    Patch,
    /// Create.
    Post,
    /// Replace.
    Put,
}

/// An answer, whatever its status.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long the server wants to be left alone. At most a day.
    pub retry_after: Option<Duration>,
    /// The body, not unpacked in any way.
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies are objects of the cluster, secret ones too.
        write!(f, "Answer({}, {:?}, {} bytes)", self.status, self.retry_after, self.body.len())
    }
}

/// What became of a request for something long.
#[derive(Debug)]
pub enum Download {
    /// Status 200: the body follows.
    Body(Box<LongBody>),
    /// Any other status. The body may have been cut.
    Refused(Answer),
}

/// What became of a watch.
#[derive(Debug)]
pub enum Watch {
    /// Status 200: lines follow.
    Stream(Lines),
    /// Any other status. The body may have been cut.
    Refused(Answer),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum KubeError {
    /// There are no usable credentials at the moment.
    Credentials(CredentialsError),
    /// The proxy that is configured cannot be used.
    Proxy(ProxyError),
    /// An argument or a configured value that cannot be sent.
    BadRequest(&'static str),
    /// No connection, no TLS, or not HTTP.
    Io {
        /// The server.
        server: String,
        /// Why.
        error: io::Error,
    },
    /// Too slow.
    TimedOut {
        /// The server.
        server: String,
        /// During what.
        during: &'static str,
    },
    /// The body has more than this many bytes.
    TooLong(usize),
    /// The client was shut down.
    Stopped,
}

impl KubeError {
    /// The client was shut down: nothing more will come.
    pub fn is_stopped(&self) -> bool {
        matches!(self, KubeError::Stopped)
    }
}

impl fmt::Display for KubeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KubeError::Credentials(error) => error.fmt(f),
            KubeError::Proxy(error) => error.fmt(f),
            KubeError::BadRequest(what) => write!(f, "{what} cannot be sent"),
            KubeError::Io { server, .. } => write!(f, "cannot talk to {server}"),
            KubeError::TimedOut { server, during } => write!(f, "{server} took too long to {during}"),
            KubeError::TooLong(limit) => write!(f, "the answer is longer than {limit} bytes"),
            KubeError::Stopped => f.write_str("the client was shut down"),
        }
    }
}

impl std::error::Error for KubeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KubeError::Credentials(error) => error.source(),
            KubeError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why a watch has no next line.
#[derive(Debug)]
pub enum StreamError {
    /// Nothing came for so long.
    Idle(Duration),
    /// The stream broke off: in a line, or without the end that HTTP prescribes.
    BrokenOff,
    /// A line has more than this many bytes.
    TooLong(usize),
    /// The connection failed.
    Io(io::Error),
    /// The client was shut down.
    Stopped,
}

impl StreamError {
    /// The client was shut down: nothing more will come.
    pub fn is_stopped(&self) -> bool {
        matches!(self, StreamError::Stopped)
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Idle(limit) => write!(f, "the watch was silent for {} s", limit.as_secs()),
            StreamError::BrokenOff => f.write_str("the watch broke off"),
            StreamError::TooLong(limit) => write!(f, "a line of the watch is longer than {limit} bytes"),
            StreamError::Io(_) => f.write_str("the watch failed"),
            StreamError::Stopped => f.write_str("the client was shut down"),
        }
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StreamError::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Something for the log about what says how to reach the server. Each is told once, not with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tidings {
    /// A part has changed and is broken. What was good before is in use.
    Kept {
        /// The part of the access: `kubeconfig`, `token` or `certificates`.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A part is good again, or has changed.
    Good {
        /// The part, as above.
        what: &'static str,
        /// The server that is asked now.
        server: String,
    },
}

type Tell = Box<dyn Fn(Tidings) + Send + Sync>;

/// A client of one API server. Shared by threads.
pub struct Client {
    user_agent: HeaderValue,
    limits: ClientLimits,
    state: Lock<Following>,
    moves: AtomicU64,
    asked: Asked,
    stop: Arc<Stop>,
    tell: Tell,
}

/// The server that is asked now, and the kubeconfig that may name another one later.
struct Following {
    target: Target,
    /// The kubeconfig that is followed; none in a pod.
    kubeconfig: Option<Kubeconfig>,
    /// What the kubeconfig asks for and cannot be used yet, or what is wrong with it.
    next: Option<Result<Target, String>>,
    /// What is broken at the moment.
    broken: [Option<String>; 3],
}

/// Whom to ask, and as whom.
struct Target {
    server: Arc<Server>,
    server_name: ServerName<'static>,
    proxy: Option<Proxy>,
    credentials: Credentials,
    /// The agent, and what its TLS configuration was made of.
    current: Option<(Contents, Agent)>,
    /// What ends when another server takes the place of this one.
    stop: Arc<Stop>,
}

/// What a request that is made now needs.
struct Ready {
    agent: Agent,
    authorization: Option<HeaderValue>,
    server: Arc<Server>,
}

/// Places in [`Following::broken`].
const PARTS: [&str; 3] = ["kubeconfig", "token", "certificates"];
const KUBECONFIG: usize = 0;
const TOKEN: usize = 1;
const CERTIFICATES: usize = 2;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("user_agent", &self.user_agent).finish_non_exhaustive()
    }
}

impl Client {
    /// A client with the usual limits. Nothing is connected yet.
    ///
    /// # Errors
    /// What is configured can never work. What stands in files is looked at later, since it may become good.
    pub fn new(access: &Access, user_agent: &str) -> Result<Client, KubeError> {
        Client::with_limits(access, user_agent, ClientLimits::default())
    }

    /// A client with limits of its own.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_limits(access: &Access, user_agent: &str, limits: ClientLimits) -> Result<Client, KubeError> {
        let user_agent = HeaderValue::from_str(user_agent).map_err(|_| KubeError::BadRequest("the user agent"))?;
        let stop = Arc::default();
        let target = Target::new(access, &limits, &stop)?;
        Ok(Client {
            user_agent,
            state: Lock::new(Following {
                target,
                kubeconfig: access.kubeconfig.clone(),
                next: None,
                broken: Default::default(),
            }),
            limits,
            moves: AtomicU64::new(0),
            asked: Asked::default(),
            stop,
            tell: Box::new(|_| ()),
        })
    }

    /// With somebody who listens to [`Tidings`].
    #[must_use]
    pub fn telling(self, tell: impl Fn(Tidings) + Send + Sync + 'static) -> Client {
        Client { tell: Box::new(tell), ..self }
    }

    /// How many times another server has taken the place of the one before. Versions of objects mean nothing to it.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// How often it has asked each verb, and with what HTTP status it was answered; none where there was no answer.
    pub fn asked(&self) -> Vec<(&'static str, Option<u16>, u64)> {
        self.asked.shown()
    }

    /// Looks at the kubeconfig as each request does, for times in which there is none.
    pub fn look(&self) {
        let mut tidings = Vec::new();
        self.state.lock().follow(self, &mut tidings);
        tidings.into_iter().for_each(&self.tell);
    }

    /// When the credentials end that the last request was made with.
    pub fn expiries(&self) -> Vec<Expiry> {
        let state = self.state.lock();
        state.target.credentials.expiries(state.target.current.as_ref().map(|(contents, _)| contents))
    }

    /// Asks for what stands at `path_and_query`, and takes at most so many bytes.
    ///
    /// # Errors
    /// There is no whole answer.
    pub fn get(&self, path_and_query: &str, limit_bytes: usize) -> Result<Answer, KubeError> {
        self.call(self.ready()?, "GET", path_and_query, None, (), limit_bytes)
    }

    /// Asks for the list at `path_and_query`, to be read as it comes, and lets at most so many bytes of it come.
    ///
    /// # Errors
    /// There is no answer.
    pub fn download(&self, path_and_query: &str, form: Form, limit_bytes: usize) -> Result<Download, KubeError> {
        let ready = self.ready()?;
        let accept = match form {
            Form::Whole => JSON,
            Form::Metadata => METADATA_LIST,
        };
        let response = self.respond(&ready, "GET", path_and_query, accept, None, ());
        let response = self.counted("list", response)?;
        if response.status() != 200 {
            return Ok(Download::Refused(self.refusal(response)?));
        }
        Ok(Download::Body(Box::new(LongBody {
            reader: response.into_body().into_reader(),
            left: limit_bytes,
            limit: limit_bytes,
            server: ready.server,
            stop: self.stop.clone(),
            failure: None,
        })))
    }

    /// Writes.
    ///
    /// # Errors
    /// There is no whole answer. Whether the server did it is then unknown.
    pub fn send(&self, method: Method, path: &str, content_type: &str, body: &[u8]) -> Result<Answer, KubeError> {
        let method = match method {
            Method::Patch => "PATCH",
            Method::Post => "POST",
            Method::Put => "PUT",
        };
        self.call(self.ready()?, method, path, Some(content_type), body, self.limits.line)
    }

    /// Asks for a stream of lines. `idle` is how long the server may be silent in it; the stream as a whole may last.
    ///
    /// # Errors
    /// There is no answer.
    pub fn watch(&self, path_and_query: &str, form: Form, idle: Duration) -> Result<Watch, KubeError> {
        let ready = self.ready()?;
        let accept = match form {
            Form::Whole => JSON,
            Form::Metadata => METADATA,
        };
        let request = self.request(&ready, "GET", path_and_query, accept, None, ())?;
        let request = ready.agent.configure_request(request).timeout_per_read(Some(idle)).build();
        let response = ready.agent.run(request).map_err(|error| self.error(&ready, error));
        let response = self.counted("watch", response)?;
        self.notice(&response, ready.authorization.as_ref());
        if response.status() == 200 {
            let reader = BufReader::with_capacity(16 << 10, response.into_body().into_reader());
            let stop = self.stop.clone();
            return Ok(Watch::Stream(Lines {
                reader,
                line: Vec::new(),
                limit: self.limits.line,
                idle,
                stop,
                end: None,
            }));
        }
        Ok(Watch::Refused(self.refusal(response)?))
    }

    /// An answer that is none of what was asked for.
    fn refusal(&self, response: Response<Body>) -> Result<Answer, KubeError> {
        let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
        let (mut body, deadline) = (Vec::new(), Instant::now() + REFUSAL_TIME);
        let mut reader = response.into_body().into_reader().take(REFUSAL_MAX as u64);
        let mut buffer = [0; 4096];
        // The status has said what matters: an explanation that breaks off is one that is short.
        while let Ok(len @ 1..) = reader.read(&mut buffer) {
            body.extend(buffer.iter().take(len));
            if Instant::now() > deadline {
                break;
            }
        }
        if self.stop.is_stopped() { Err(KubeError::Stopped) } else { Ok(Answer { status, retry_after, body }) }
    }

    /// Ends everything that other threads wait for in this client, within milliseconds, and every later call at once.
    pub fn shutdown(&self) {
        self.stop.stop();
    }

    fn request<B>(
        &self,
        ready: &Ready,
        method: &str,
        path_and_query: &str,
        accept: &'static str,
        content_type: Option<&str>,
        body: B,
    ) -> Result<Request<B>, KubeError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path_and_query}", ready.server))
            .header("user-agent", self.user_agent.clone())
            .header("accept", accept);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        if let Some(authorization) = &ready.authorization {
            request = request.header("authorization", authorization.clone());
        }
        request.body(body).map_err(|_| KubeError::BadRequest("the path or a header"))
    }

    fn call(
        &self,
        ready: Ready,
        method: &str,
        path_and_query: &str,
        content_type: Option<&str>,
        body: impl AsSendBody,
        limit: usize,
    ) -> Result<Answer, KubeError> {
        let verb = match method {
            "PATCH" => "patch",
            "POST" => "create",
            "PUT" => "update",
            _ => "get",
        };
        let response = self.counted(verb, self.respond(&ready, method, path_and_query, JSON, content_type, body))?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
        let mut body = Vec::new();
        let reader = response.into_body().into_reader();
        let read = reader.take((limit as u64).saturating_add(1)).read_to_end(&mut body);
        read.map_err(|error| self.error(&ready, error.into()))?;
        // A connection that was shut down can look like one that has ended.
        if self.stop.is_stopped() {
            return Err(KubeError::Stopped);
        }
        if body.len() > limit { Err(KubeError::TooLong(limit)) } else { Ok(Answer { status, retry_after, body }) }
    }

    fn counted(
        &self,
        verb: &'static str,
        response: Result<Response<Body>, KubeError>,
    ) -> Result<Response<Body>, KubeError> {
        self.asked.count(verb, response.as_ref().ok().map(|response| response.status().as_u16()));
        response
    }

    /// Sends a request that is not a watch, and waits for the head of its answer.
    fn respond(
        &self,
        ready: &Ready,
        method: &str,
        path_and_query: &str,
        accept: &'static str,
        content_type: Option<&str>,
        body: impl AsSendBody,
    ) -> Result<Response<Body>, KubeError> {
        let request = self.request(ready, method, path_and_query, accept, content_type, body)?;
        let request = ready
            .agent
            .configure_request(request)
            .timeout_global(Some(self.limits.total))
            .timeout_per_read(Some(self.limits.silence))
            .build();
        let response = ready.agent.run(request).map_err(|error| self.error(ready, error))?;
        self.notice(&response, ready.authorization.as_ref());
        Ok(response)
    }

    fn ready(&self) -> Result<Ready, KubeError> {
        if self.stop.is_stopped() {
            return Err(KubeError::Stopped);
        }
        let mut tidings = Vec::new();
        let ready = self.state.lock().ready(self, &mut tidings);
        tidings.into_iter().for_each(&self.tell);
        ready.map_err(|error| if self.stop.is_stopped() { KubeError::Stopped } else { error })
    }

    fn notice(&self, response: &Response<Body>, authorization: Option<&HeaderValue>) {
        if response.status() == 401 {
            self.state.lock().target.credentials.refused(authorization);
        }
    }

    fn error(&self, ready: &Ready, error: ureq::Error) -> KubeError {
        failure(&ready.server, &self.stop, error)
    }

    fn agent(&self, target: &Target, tls: Tls) -> Result<Agent, KubeError> {
        let proxy = target.proxy.as_ref().map(|proxy| ureq::Proxy::new(proxy.url()));
        let proxy = proxy.transpose().map_err(|_| KubeError::BadRequest("the proxy's URL"))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(self.user_agent.to_str().unwrap_or_default())
            .accept_encoding("")
            .input_buffer_size(16 << 10)
            .output_buffer_size(8 << 10)
            .timeout_resolve(Some(self.limits.lookup))
            .timeout_connect(Some(self.limits.connect))
            .timeout_send_request(Some(self.limits.headers))
            .timeout_recv_response(Some(self.limits.headers))
            .build();
        let connector = ().chain(ConnectProxyConnector::default()).chain(Tcp(target.stop.clone())).chain(tls);
        Ok(Agent::with_parts(config, connector, Names(target.stop.clone())))
    }
}

/// What an error of a request to `server` means.
fn failure(server: &Server, stop: &Stop, error: ureq::Error) -> KubeError {
    if stop.is_stopped() {
        return KubeError::Stopped;
    }
    let server = server.to_string();
    match error {
        ureq::Error::Timeout(timeout) => KubeError::TimedOut {
            server,
            during: match timeout {
                Timeout::Resolve => "find",
                Timeout::Connect => "connect to",
                Timeout::SendRequest | Timeout::SendBody | Timeout::PerWrite => "take a request",
                Timeout::RecvResponse => "answer",
                _ => "finish an answer",
            },
        },
        error => KubeError::Io { server, error: error.into_io() },
    }
}

impl Target {
    fn new(access: &Access, limits: &ClientLimits, stop: &Arc<Stop>) -> Result<Target, KubeError> {
        let name = access.tls_server_name.as_ref().unwrap_or(&access.server.host).clone();
        let server_name = ServerName::try_from(name).map_err(|_| KubeError::BadRequest("the server's name"))?;
        let proxy_url = access.proxy_url.as_ref().map(|url| String::from_utf8_lossy(url.expose()));
        let proxy = proxy::choose(&access.server, proxy_url.as_deref(), &|name| std::env::var(name).ok());
        let proxy = proxy.map_err(KubeError::Proxy)?;
        let mut credentials = Credentials::new(access, limits.plugin);
        credentials.check_fixed(stop).map_err(KubeError::Credentials)?;
        let own = Arc::new(Stop::default());
        stop.register(Arc::downgrade(&own) as Weak<dyn Stoppable>).map_err(|_| KubeError::Stopped)?;
        Ok(Target {
            server: Arc::new(access.server.clone()),
            server_name,
            proxy,
            credentials,
            current: None,
            stop: own,
        })
    }

    /// Whether both ask the same server in the same way.
    fn is_where(&self, other: &Target) -> bool {
        let url = |target: &Target| target.proxy.as_ref().map(|proxy| proxy.url().to_owned());
        (&self.server, &self.server_name, url(self)) == (&other.server, &other.server_name, url(other))
    }

    /// An agent with the certificates as they are now.
    fn renewed(&self, client: &Client) -> Result<Option<(Contents, Agent)>, KubeError> {
        let contents = self.credentials.contents().map_err(KubeError::Credentials)?;
        if self.current.as_ref().is_some_and(|(current, _)| *current == contents) {
            return Ok(None);
        }
        let config = match self.server.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(self.credentials.tls(&contents).map_err(KubeError::Credentials)?),
        };
        let (authority, name) = (self.server.authority(), self.server_name.clone());
        let agent = client.agent(self, Tls { config, authority, name })?;
        Ok(Some((contents, agent)))
    }
}

impl Following {
    /// Takes up what the kubeconfig says now.
    fn follow(&mut self, client: &Client, tidings: &mut Vec<Tidings>) {
        let Some(known) = &mut self.kubeconfig else { return };
        match kubeconfig::changed(known) {
            Ok(None) => {}
            Ok(Some(access)) => {
                let target = Target::new(&access, &client.limits, &client.stop);
                self.next = Some(target.map_err(|error| explained(&error)));
            }
            // Nothing of it was seen, so what was seen before still holds.
            Err(error @ AccessError::Read { .. }) => return self.judge(KUBECONFIG, Some(explained(&error)), tidings),
            Err(error) => self.next = Some(Err(explained(&error))),
        }
        match self.next.take() {
            None => self.judge(KUBECONFIG, None, tidings),
            Some(Err(why)) => {
                self.judge(KUBECONFIG, Some(why.clone()), tidings);
                self.next = Some(Err(why));
            }
            Some(Ok(mut target)) => match self.try_out(&mut target, client) {
                // A file that it names may be written after it.
                Err(error) if self.target.current.is_some() => {
                    self.judge(KUBECONFIG, Some(explained(&error)), tidings);
                    self.next = Some(Ok(target));
                }
                _ => self.take_up(target, client, tidings),
            },
        }
    }

    /// Whether there is all that a request to this target needs.
    fn try_out(&self, target: &mut Target, client: &Client) -> Result<(), KubeError> {
        target.credentials.inherit(&self.target.credentials);
        if target.is_where(&self.target) {
            target.current.clone_from(&self.target.current);
            target.stop.clone_from(&self.target.stop);
        }
        target.credentials.authorization(&client.stop).map_err(KubeError::Credentials)?;
        if let Some(renewed) = target.renewed(client)? {
            target.current = Some(renewed);
        }
        Ok(())
    }

    fn take_up(&mut self, target: Target, client: &Client, tidings: &mut Vec<Tidings>) {
        if !target.is_where(&self.target) {
            client.moves.fetch_add(1, Ordering::Release);
            self.target.stop.stop();
        }
        self.target = target;
        self.broken = Default::default();
        tidings.push(Tidings::Good { what: PARTS[KUBECONFIG], server: self.target.server.to_string() });
    }

    /// Tells that a part has become broken or good.
    fn judge(&mut self, part: usize, broken: Option<String>, tidings: &mut Vec<Tidings>) {
        let (Some(now), Some(what)) = (self.broken.get_mut(part), PARTS.get(part)) else { return };
        if *now == broken {
            return;
        }
        tidings.push(match &broken {
            Some(why) => Tidings::Kept { what, why: why.clone() },
            None => Tidings::Good { what, server: self.target.server.to_string() },
        });
        *now = broken;
    }

    fn ready(&mut self, client: &Client, tidings: &mut Vec<Tidings>) -> Result<Ready, KubeError> {
        self.follow(client, tidings);
        let authorization = self.target.credentials.authorization(&client.stop).map_err(KubeError::Credentials)?;
        self.judge(TOKEN, self.target.credentials.stale_token().map(str::to_owned), tidings);
        let broken = match self.target.renewed(client) {
            Ok(None) => None,
            Ok(Some(renewed)) => {
                self.target.current = Some(renewed);
                None
            }
            Err(error) if self.target.current.is_some() => Some(explained(&error)),
            Err(error) => return Err(error),
        };
        self.judge(CERTIFICATES, broken, tidings);
        match &self.target.current {
            Some((_, agent)) => Ok(Ready { agent: agent.clone(), authorization, server: self.target.server.clone() }),
            None => Err(KubeError::Stopped),
        }
    }
}

/// `Retry-After` in either of its forms. What is neither says nothing.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?.trim();
    let wanted = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit mean a long time.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        dates::http(text)?.duration_since(SystemTime::now()).unwrap_or_default()
    };
    Some(wanted.min(RETRY_AFTER_MAX))
}

/// A body that is read as it comes, so that it is never held as a whole.
pub struct LongBody {
    reader: BodyReader<'static>,
    /// How many bytes may come yet, of how many.
    left: usize,
    limit: usize,
    server: Arc<Server>,
    stop: Arc<Stop>,
    failure: Option<KubeError>,
}

impl fmt::Debug for LongBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongBody")
    }
}

impl LongBody {
    /// Why it could not be read to its end, if that is so.
    pub fn failure(self) -> Option<KubeError> {
        self.failure
    }
}

impl io::Read for LongBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        let failure = match read {
            // A connection that was shut down can look like one that has ended.
            _ if self.stop.is_stopped() => KubeError::Stopped,
            Ok(len) if len > self.left => KubeError::TooLong(self.limit),
            Ok(len) => {
                self.left -= len;
                return Ok(len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => failure(&self.server, &self.stop, error.into()),
        };
        self.failure = Some(failure);
        Err(io::Error::other("the body broke off"))
    }
}

/// The lines of a watch. Dropping it closes the connection.
pub struct Lines {
    reader: BufReader<BodyReader<'static>>,
    line: Vec<u8>,
    limit: usize,
    idle: Duration,
    stop: Arc<Stop>,
    end: Option<End>,
}

/// How a stream ended.
enum End {
    Clean,
    Broken,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    /// The next line without its end; None at a clean end. Blank lines are skipped.
    ///
    /// # Errors
    /// The stream is over, for another reason than its clean end.
    #[allow(
        clippy::should_implement_trait,
        reason = "an end and a failure are told apart by `?`, not by Option<Result>"
    )]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, StreamError> {
        match self.end {
            None => {}
            Some(End::Clean) => return Ok(None),
            Some(End::Broken) => return Err(StreamError::BrokenOff),
        }
        let next = self.read();
        if self.stop.is_stopped() {
            self.end = Some(End::Broken);
            return Err(StreamError::Stopped);
        }
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.end = Some(End::Clean),
            Err(_) => self.end = Some(End::Broken),
        }
        next
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>, StreamError> {
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.error(error)),
            };
            if available.is_empty() {
                return if self.line.is_empty() { Ok(None) } else { Err(StreamError::BrokenOff) };
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            self.line.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if self.line.len() > self.limit {
                return Err(StreamError::TooLong(self.limit));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
            }
        }
    }

    fn error(&self, error: io::Error) -> StreamError {
        // A limit arrives as an error of kind "other" with ureq's error in it.
        match ureq::Error::from(error) {
            ureq::Error::Timeout(_) => StreamError::Idle(self.idle),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => StreamError::BrokenOff,
            error => StreamError::Io(error.into_io()),
        }
    }
}
