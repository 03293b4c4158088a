//! How to reach the API server: which server, which trust, and as whom, checked and not yet tried.
//!
//! Files that may change while the agent runs are named, not read. Must not know where all this was written: `kubeconfig` and
//! `account` read it. Errors name file and field, and never repeat a value: values here are tokens and keys.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::kube::pem::Pem;
use crate::kube::secret::Secret;
use crate::kube::server::Server;
use model::excerpt::Excerpt;

/// Everything that is needed to make a client.
#[derive(Debug, Clone)]
pub struct Access {
    /// The server.
    pub server: Server,
    /// The name to look for in the server's certificate, if it is not the host of the URL.
    pub tls_server_name: Option<String>,
    /// Which server certificates are good.
    pub trust: Trust,
    /// The certificate to show to the server.
    pub certificate: Option<ClientCertificate>,
    /// As whom requests are made.
    pub auth: Auth,
    /// The proxy to use, whatever the environment says. May hold a password.
    pub proxy_url: Option<Secret>,
    /// The kubeconfig that says all this and may say something else later; none in a pod.
    pub kubeconfig: Option<Kubeconfig>,
}

/// A kubeconfig as it was when it was last read.
#[derive(Debug, Clone)]
pub struct Kubeconfig {
    /// The file.
    pub path: PathBuf,
    /// All of it.
    pub content: Secret,
}

/// Which server certificates are good.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Certificates that are signed by the authorities that this machine trusts.
    System,
    /// Certificates that are signed by these authorities.
    Only(Pem),
    /// All, for tests (`insecure-skip-tls-verify`).
    Anyone,
}

/// A client certificate and its key.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The chain, PEM.
    pub certificate: Pem,
    /// The key, PEM.
    pub key: Pem,
}

/// As whom requests are made.
#[derive(Debug, Clone)]
pub enum Auth {
    /// As nobody: requests say nothing.
    Nothing,
    /// A token that does not change.
    Token(Secret),
    /// A token in a file that somebody renews.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What to use as long as the file has never been readable.
        until_read: Option<Secret>,
    },
    /// User and password.
    Basic(Secret),
    /// Whatever a program prints.
    Exec(Box<ExecPlugin>),
}

/// An exec credential plugin.
#[derive(Clone)]
pub struct ExecPlugin {
    /// A bare name, or a path.
    pub command: PathBuf,
    /// Arguments. May be secret.
    pub args: Vec<String>,
    /// Added to the environment. May be secret.
    pub env: Vec<(String, String)>,
    /// `client.authentication.k8s.io/v1` or `/v1beta1`.
    pub api_version: String,
    /// How to get the program, in the words of the kubeconfig's author.
    pub install_hint: Option<String>,
    /// `spec.cluster` of what the plugin is told, if it wants it, without the authorities.
    pub cluster: Option<serde_json::Value>,
    /// The authorities for it, which may stand in a file that changes.
    pub authorities: Option<Pem>,
}

impl fmt::Debug for ExecPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecPlugin").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Why there is no [`Access`].
#[derive(Debug)]
pub enum AccessError {
    /// A file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A kubeconfig is not YAML, or a field has another type than it should have.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if known.
        line: Option<usize>,
        /// What the reader says, without values.
        message: String,
    },
    /// A field of a kubeconfig breaks a rule.
    Field {
        /// The file.
        path: PathBuf,
        /// The field, such as `clusters[prod].server`.
        field: String,
        /// The rule.
        rule: FieldRule,
    },
    /// Not in a pod: this variable is not set.
    NotInPod(&'static str),
    /// In a pod, but the address of the server makes no sense.
    BadAddress,
}

/// A rule that a field of a kubeconfig breaks. The text reads on from the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldRule {
    /// Something must be there.
    Required,
    /// The field names an entry of this list that is not there.
    NoSuchEntry {
        /// The list.
        list: &'static str,
        /// What is named.
        name: Excerpt,
        /// What the list has instead, in words.
        there: String,
    },
    /// More than one entry of the list bears this name.
    NotUnique(&'static str, Excerpt),
    /// The field cannot stand beside this one.
    NotBeside(&'static str),
    /// The field needs this one beside it.
    Needs(&'static str),
    /// Not base64.
    NotBase64,
    /// Not the URL of a server.
    NotAUrl,
    /// Only these values are possible.
    OneOf(&'static str),
    /// Not done here.
    NotSupported,
    /// Secrets do not go over plain http.
    NotOverHttp,
}

impl fmt::Display for FieldRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldRule::Required => f.write_str("is missing"),
            FieldRule::NoSuchEntry { list, name, there } => write!(f, "is {name}, which is not in {list}: {there}"),
            FieldRule::NotUnique(list, name) => write!(f, "is {name}, which is more than once in {list}: leave one"),
            FieldRule::NotBeside(other) => write!(f, "cannot be given together with {other}"),
            FieldRule::Needs(other) => write!(f, "needs {other} beside it"),
            FieldRule::NotBase64 => f.write_str("is not base64"),
            FieldRule::NotAUrl => f.write_str("is not the URL of a server, such as https://10.0.0.1:6443"),
            FieldRule::OneOf(values) => write!(f, "must be {values}"),
            FieldRule::NotSupported => f.write_str("is not supported: use a token, a client certificate or exec"),
            FieldRule::NotOverHttp => f.write_str("is http, and credentials are only sent over https"),
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessError::Read { path, .. } => write!(f, "cannot read {}", path.display()),
            AccessError::Unreadable { path, line: Some(line), message } => {
                write!(f, "{}: line {line}: {message}", path.display())
            }
            AccessError::Unreadable { path, line: None, message } => write!(f, "{}: {message}", path.display()),
            AccessError::Field { path, field, rule } => write!(f, "{}: {field} {rule}", path.display()),
            AccessError::NotInPod(variable) => {
                write!(f, "no kubeconfig is given, and {variable} is not set, so this is not a pod of a cluster")
            }
            AccessError::BadAddress => {
                f.write_str("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not an address and a port")
            }
        }
    }
}

impl std::error::Error for AccessError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AccessError::Read { error, .. } => Some(error),
            _ => None,
        }
    }
}
