//! Requests and responses as they stand on the wire.
//!
//! The keys are those of the Go flock, so that either half can be replaced first: `op`, `container_id`, `netns`, `ifname`, `args`,
//! `path`, `stdin_data` (base64); `result`, `error`. Added here, and ignored by the Go flock: `call`, `left_ms`, `sent_ms`,
//! `code`, `details`. Unknown keys are ignored on both sides. Must not judge what a request says: that is the verbs'.
//!
//! The same socket takes the questions of an operator, whose `op` is none of the verbs. An agent that knows no such question
//! refuses it by its `op`, and one that does not know all that is asked refuses it by the key; since it says its version with
//! that, both can be named.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use cni::verb::Verb;

/// One call: the CNI environment and standard input, as the runtime gave them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The verb.
    pub op: Verb,
    /// `CNI_CONTAINERID`.
    #[serde(default)]
    pub container_id: String,
    /// `CNI_NETNS`.
    #[serde(default)]
    pub netns: String,
    /// `CNI_IFNAME`.
    #[serde(default)]
    pub ifname: String,
    /// `CNI_ARGS`, unparsed.
    #[serde(default)]
    pub args: String,
    /// `CNI_PATH`.
    #[serde(default)]
    pub path: String,
    /// The network configuration, byte by byte.
    #[serde(default, serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub stdin_data: Vec<u8>,
    /// Marks one run of the plugin: a call that is repeated over a new connection is the same call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// How long the caller is going to wait from [`Request::sent_ms`] on, in milliseconds. The agent does nothing for longer than
    /// that, whatever its own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// When the request was sent, in milliseconds of the boot clock: it may wait in the socket's backlog before it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_ms: Option<u64>,
}

/// What an operator can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryOp {
    /// May these two talk, and what decides it?
    #[serde(rename = "EXPLAIN")]
    Explain,
    /// How is the node?
    #[serde(rename = "NODE")]
    Node,
    /// Compare record, kernel and host at once, put right what is yours, and tell when that is done.
    #[serde(rename = "ROUND")]
    Round,
    /// What is counted?
    #[serde(rename = "METRICS")]
    Metrics,
    /// What does the agent alone know of an address, or of a pod?
    #[serde(rename = "WHOSE")]
    Whose,
}

/// A question of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// [`QueryOp::Explain`]
    Passage(Passage),
    /// [`QueryOp::Node`]
    Node,
    /// [`QueryOp::Round`]
    Round,
    /// [`QueryOp::Metrics`]
    Metrics,
    /// [`QueryOp::Whose`]
    Whose(Whose),
}

impl Query {
    /// The question as a line.
    ///
    /// # Errors
    /// None that a question can cause.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Query::Passage(passage) => encode(passage),
            Query::Node => encode(&Plain { op: QueryOp::Node }),
            Query::Round => encode(&Plain { op: QueryOp::Round }),
            Query::Metrics => encode(&Plain { op: QueryOp::Metrics }),
            Query::Whose(whose) => encode(whose),
        }
    }
}

/// A question that is its operation and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    /// What is asked.
    op: QueryOp,
}

/// What does the agent alone know of an address, or of a pod?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// [`QueryOp::Whose`]
    pub op: QueryOp,
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The pod's namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<(String, String)>,
}

/// May these two talk, in the words of the operator's command line?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    /// [`QueryOp::Explain`]
    pub op: QueryOp,
    /// Who begins the connection.
    pub from: String,
    /// Who gets it.
    pub to: String,
    /// Protocol and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// What a question is answered with: the `result`.
pub trait Answer: Serialize + for<'de> Deserialize<'de> {}

impl Answer for Explanation {}

/// The answer to a [`Passage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether packets pass.
    pub passes: bool,
    /// Why, in lines.
    pub text: String,
}

/// What a caller sends.
#[derive(Debug)]
pub enum Incoming {
    /// A call of the plugin.
    Request(Box<Request>),
    /// A question.
    Query(Query),
}

impl Incoming {
    /// Reads a line.
    ///
    /// # Errors
    /// It is neither.
    pub fn read(line: &[u8]) -> Result<Incoming, serde_json::Error> {
        /// No more than is needed to know what a line was meant to be.
        #[derive(Deserialize)]
        struct Meant {
            op: QueryOp,
        }
        let error = match serde_json::from_slice(line) {
            Ok(request) => return Ok(Incoming::Request(Box::new(request))),
            Err(error) => error,
        };
        // A call of the plugin is by far the more frequent, and is read once.
        let query = match serde_json::from_slice::<Meant>(line) {
            Ok(Meant { op: QueryOp::Explain }) => Query::Passage(serde_json::from_slice(line)?),
            Ok(Meant { op: QueryOp::Whose }) => Query::Whose(serde_json::from_slice(line)?),
            Ok(Meant { op: QueryOp::Node }) => serde_json::from_slice::<Plain>(line).map(|_| Query::Node)?,
            Ok(Meant { op: QueryOp::Round }) => serde_json::from_slice::<Plain>(line).map(|_| Query::Round)?,
            Ok(Meant { op: QueryOp::Metrics }) => serde_json::from_slice::<Plain>(line).map(|_| Query::Metrics)?,
            Err(_) => return Err(error),
        };
        Ok(Incoming::Query(query))
    }
}

/// The answer to a [`Request`] or a [`Query`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Response {
    /// Of an ADD, a CNI result in the 1.0/1.1 form, unparsed; of a question, an [`Explanation`] or a value of `report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// What went wrong; empty or absent for success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The CNI error code of `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// More about `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// The version of the agent, where it did not understand what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When the attachment was made that `result` is of, in milliseconds of the boot clock: for the agent itself, in case the
    /// answer cannot be delivered.
    #[serde(skip)]
    pub since: Option<u64>,
}

impl Response {
    /// Success of a verb without result.
    pub fn done() -> Response {
        Response::default()
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// None that an answer of `rpc` can cause.
    pub fn told(answer: &impl Serialize) -> Result<Response, serde_json::Error> {
        Ok(Response { result: Some(serde_json::value::to_raw_value(answer)?), ..Response::default() })
    }

    /// What was asked is not understood; `why`.
    pub fn not_understood(code: u32, why: impl Into<String>) -> Response {
        let version = Some(env!("CARGO_PKG_VERSION").to_owned());
        Response { version, ..Response::failed(code, "request refused", why) }
    }

    /// A failure.
    pub fn failed(code: u32, error: impl Into<String>, details: impl Into<String>) -> Response {
        Response {
            error: Some(error.into()),
            code: Some(code),
            details: Some(details.into()).filter(|details| !details.is_empty()),
            ..Response::default()
        }
    }
}

/// A message as one line. Line ends inside texts are escaped by JSON, so the only one is at the end.
///
/// # Errors
/// None that a message of this file can cause.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    // Go writes an empty slice that was never made as null.
    let text: Option<String> = Option::deserialize(deserializer)?;
    STANDARD.decode(text.unwrap_or_default()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            op: Verb::Add,
            container_id: "abc".into(),
            netns: "/run/netns/x".into(),
            ifname: "eth0".into(),
            args: "K8S_POD_NAME=p".into(),
            path: "/opt/cni/bin".into(),
            stdin_data: b"{\n\"a\": \"\xe2\x80\xa8\"}".to_vec(),
            call: None,
            left_ms: None,
            sent_ms: None,
        }
    }

    #[test]
    fn the_wire_is_what_the_go_flock_reads() {
        let line = encode(&request()).expect("encodes");
        assert_eq!(
            String::from_utf8_lossy(&line),
            "{\"op\":\"ADD\",\"container_id\":\"abc\",\"netns\":\"/run/netns/x\",\"ifname\":\"eth0\",\"args\":\"K8S_POD_NAME=p\",\
             \"path\":\"/opt/cni/bin\",\"stdin_data\":\"ewoiYSI6ICLigKgifQ==\"}\n"
        );
        assert_eq!(encode(&Response::done()).expect("encodes"), b"{}\n");
        let failed = encode(&Response::failed(11, "not ready", "")).expect("encodes");
        assert_eq!(failed, b"{\"error\":\"not ready\",\"code\":11}\n");
    }

    // covers: FM-C07
    #[test]
    fn what_the_go_flock_writes_is_read() {
        let go =
            r#"{"op":"DEL","container_id":"abc","netns":"","ifname":"eth0","args":"","path":"","stdin_data":null}"#;
        let request: Request = serde_json::from_str(go).expect("decodes");
        assert_eq!((request.op, request.stdin_data.len()), (Verb::Del, 0));
        let response: Response = serde_json::from_str(r#"{"result":{"cniVersion":"1.0.0"}}"#).expect("decodes");
        assert_eq!(response.result.map(|r| r.get().to_owned()).as_deref(), Some(r#"{"cniVersion":"1.0.0"}"#));
        let response: Response = serde_json::from_str(r#"{"result":null,"error":""}"#).expect("decodes");
        assert!(response.result.is_none());
        let response: Response = serde_json::from_str(r#"{"error":"boom","later":[1]}"#).expect("decodes");
        assert_eq!((response.error.as_deref(), response.code), (Some("boom"), None));
    }

    // covers: S-18
    #[test]
    fn every_message_comes_back_as_it_was() {
        for op in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
            let sent = Request { op, call: Some("c".into()), left_ms: Some(7), sent_ms: Some(u64::MAX), ..request() };
            let line = encode(&sent).expect("encodes");
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Request>(&line).expect("decodes"), sent);
        }
        for sent in [
            Response::done(),
            Response::failed(7, "a\nb", "c"),
            Response {
                result: Some(RawValue::from_string(r#"{"ips":[]}"#.into()).expect("JSON")),
                ..Response::default()
            },
        ] {
            let line = encode(&sent).expect("encodes");
            let got: Response = serde_json::from_slice(&line).expect("decodes");
            assert_eq!(encode(&got).expect("encodes"), line);
        }
    }

    #[test]
    fn a_question_is_no_call_of_the_plugin_and_one_that_asks_for_more_than_is_known_is_refused_by_its_key() {
        let query =
            Passage { op: QueryOp::Explain, from: "a/b".into(), to: "node".into(), port: Some("TCP/80".into()) };
        let line = Query::Passage(query.clone()).encode().expect("encodes");
        assert_eq!(line, b"{\"op\":\"EXPLAIN\",\"from\":\"a/b\",\"to\":\"node\",\"port\":\"TCP/80\"}\n");
        assert!(matches!(Incoming::read(&line), Ok(Incoming::Query(Query::Passage(read))) if read == query));
        let node = Query::Node.encode().expect("encodes");
        assert_eq!(node, b"{\"op\":\"NODE\"}\n");
        assert!(matches!(Incoming::read(&node), Ok(Incoming::Query(Query::Node))));
        let round = Query::Round.encode().expect("encodes");
        assert_eq!(round, b"{\"op\":\"ROUND\"}\n");
        assert!(matches!(Incoming::read(&round), Ok(Incoming::Query(Query::Round))));
        let pod = Some(("shop".into(), "web".into()));
        for (address, pod) in [(None, None), ("2001:db8::5".parse().ok(), pod.clone()), (None, pod)] {
            let whose = Query::Whose(Whose { op: QueryOp::Whose, address, pod });
            let line = whose.encode().expect("encodes");
            assert!(matches!(Incoming::read(&line), Ok(Incoming::Query(read)) if read == whose));
        }
        let request = encode(&request()).expect("encodes");
        assert!(matches!(Incoming::read(&request), Ok(Incoming::Request(read)) if read.op == Verb::Add));
        // What an agent says that knows no questions.
        let error = serde_json::from_slice::<Request>(&line).expect_err("no request").to_string();
        assert!(error.contains("`EXPLAIN`"), "{error}");
        for (line, named) in [
            (r#"{"op":"EXPLAIN","from":"a/b","to":"node","through":"c"}"#, "`through`"),
            (r#"{"op":"EXPLAIN","from":"a/b"}"#, "`to`"),
            (r#"{"op":"NODE","of":"b"}"#, "`of`"),
            (r#"{"op":"WHOSE","link":"b"}"#, "`link`"),
            (r#"{"op":"FLY","from":"a/b"}"#, "`FLY`"),
        ] {
            let error = Incoming::read(line.as_bytes()).expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn an_unknown_verb_is_named() {
        // VERSION is answered by the plugin.
        for verb in ["FLY", "VERSION", "add"] {
            let error = serde_json::from_str::<Request>(&format!(r#"{{"op":"{verb}"}}"#)).expect_err("unknown");
            assert!(error.to_string().contains(verb), "{error}");
        }
    }
}
