//! How to reach the API server: from a kubeconfig file, or from the account that Kubernetes puts into a pod.
//!
//! The result is an [`Access`]: checked, with absolute paths, not yet tried. Files that may change while the agent runs
//! are named, not read; a kubeconfig changes, too, and [`Followed`] tells when. What kubectl takes is taken, and what is not
//! done is refused by its name. Errors name file and field, and never repeat a value: values here are tokens and keys.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use ureq::http::Uri;

use crate::kube::secret::Secret;
use crate::process::foreign_file;
use model::text::{self, TextError};

/// Longest file that is read: kubeconfig, certificate, key, token.
const FILE_MAX: u64 = 1 << 20;

/// Where Kubernetes puts the account of a pod, below the root directory.
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// The name of the cluster extension that is meant for exec plugins.
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

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
    /// What to say in each request.
    pub login: Login,
    /// The proxy to use, whatever the environment says. May hold a password.
    pub proxy_url: Option<Secret>,
    /// The file that says all this and may say something else later.
    pub file: Option<Followed>,
}

/// A kubeconfig that others rewrite: in place, by a rename, or by switching a link on the way to it.
#[derive(Debug, Clone)]
pub struct Followed {
    path: PathBuf,
    content: Secret,
}

impl Followed {
    /// Reads the file again. None: it says what it said at the last look. The file is small, so the content is
    /// compared and no time stamp has to be trusted.
    ///
    /// # Errors
    /// [`AccessError`]. A file that could not be read is read again at the next look; a content is judged once.
    pub fn look(&mut self) -> Result<Option<Access>, AccessError> {
        let bytes = read_bounded(&self.path).map_err(|error| AccessError::Read { path: self.path.clone(), error })?;
        if bytes == self.content.expose() {
            return Ok(None);
        }
        self.content = Secret::new(bytes);
        from_bytes(self.content.expose(), &self.path).map(Some)
    }
}

/// `http` is for a local `kubectl proxy`: nothing secret is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// https
    Https,
    /// http
    Http,
}

/// The server's URL in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// How to speak.
    pub scheme: Scheme,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What stands before every path, such as `/k8s/clusters/c-1`; without a `/` at its end, so usually empty.
    pub path: String,
}

/// Which server certificates are good.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those signed by the authorities that this machine trusts.
    System,
    /// Those signed by these authorities.
    Only(Material),
    /// All, for tests (`insecure-skip-tls-verify`).
    Anyone,
}

/// A client certificate and its key.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The chain, PEM.
    pub certificate: Material,
    /// The key, PEM.
    pub key: Material,
}

/// What to say in each request.
#[derive(Debug, Clone)]
pub enum Login {
    /// Nothing.
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
    /// Whatever a program says.
    Exec(Box<Plugin>),
}

/// An exec credential plugin.
#[derive(Clone)]
pub struct Plugin {
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
    pub authorities: Option<Material>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("command", &self.command).finish_non_exhaustive()
    }
}

/// Bytes that stand in the kubeconfig, or in a file that is read anew each time.
#[derive(Clone)]
pub struct Material {
    place: Place,
    content: Option<Secret>,
}

/// Where a piece of configuration came from, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This file holds it.
    File(PathBuf),
    /// This field of this kubeconfig holds it. Without a path it is the one that is in use.
    Field(PathBuf, String),
    /// The plugin said it.
    Plugin(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Field(path, field) if path.as_os_str().is_empty() => write!(f, "the kubeconfig's {field}"),
            Place::Field(path, field) => write!(f, "{}: {field}", path.display()),
            Place::Plugin(path) => write!(f, "exec plugin {}", path.display()),
        }
    }
}

impl Material {
    /// What stands in this file at the time of reading.
    pub fn file(path: impl Into<PathBuf>) -> Material {
        Material { place: Place::File(path.into()), content: None }
    }

    /// These bytes, from there.
    pub fn inline(place: Place, content: Secret) -> Material {
        Material { place, content: Some(content) }
    }

    /// Where it comes from.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it is always the same.
    pub fn is_inline(&self) -> bool {
        self.content.is_some()
    }

    /// The bytes as they are now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<Secret, io::Error> {
        match (&self.content, &self.place) {
            (Some(content), _) => Ok(content.clone()),
            (None, Place::File(path)) => read_bounded(path).map(Secret::new),
            (None, Place::Field(..) | Place::Plugin(_)) => Ok(Secret::new([])),
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({})", self.place)
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
        rule: Rule,
    },
    /// Not in a pod: this variable is not set.
    NotInPod(&'static str),
    /// In a pod, but the address of the server makes no sense.
    BadAddress,
}

/// A rule that a field of a kubeconfig breaks. The text reads on from the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Something must be there.
    Required,
    /// It names an entry of this list that is not there.
    NoSuchEntry(&'static str),
    /// More than one entry of the list bears this name.
    NotUnique(&'static str),
    /// It cannot stand beside this field.
    NotBeside(&'static str),
    /// It needs this field beside it.
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

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Required => f.write_str("is required"),
            Rule::NoSuchEntry(list) => write!(f, "names an entry that is not in {list}"),
            Rule::NotUnique(list) => write!(f, "names an entry that is more than once in {list}"),
            Rule::NotBeside(other) => write!(f, "cannot be given together with {other}"),
            Rule::Needs(other) => write!(f, "needs {other} beside it"),
            Rule::NotBase64 => f.write_str("is not base64"),
            Rule::NotAUrl => f.write_str("is not the URL of a server, such as https://10.0.0.1:6443"),
            Rule::OneOf(values) => write!(f, "must be {values}"),
            Rule::NotSupported => f.write_str("is not supported"),
            Rule::NotOverHttp => f.write_str("is http, and credentials are only sent over https"),
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

impl Server {
    /// Takes a URL apart. Without a scheme, it is https. None: not a URL of a server, or with a user, a query or a
    /// fragment, none of which would be used.
    pub fn parse(url: &str) -> Option<Server> {
        let url = url.trim();
        let whole = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let uri: Uri = whole.parse().ok()?;
        let scheme = match uri.scheme_str()? {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        let (host, port) = match authority.strip_prefix('[') {
            Some(literal) => match literal.split_once(']').filter(|(host, _)| host.contains(':'))? {
                (host, "") => (host, None),
                (host, rest) => (host, Some(rest.strip_prefix(':')?)),
            },
            None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => scheme.port(),
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        };
        let plain = !authority.contains('@') && uri.query().is_none() && !url.contains('#');
        (plain && !host.is_empty() && !host.contains(['[', ']'])).then(|| Server {
            scheme,
            host: host.to_owned(),
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port as they stand in a URL.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Scheme::Https => 443,
            Scheme::Http => 80,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Reads a kubeconfig file.
///
/// # Errors
/// [`AccessError`].
pub fn from_file(path: &Path) -> Result<Access, AccessError> {
    let error = |error| AccessError::Read { path: path.into(), error };
    let path = std::path::absolute(path).map_err(error)?;
    let bytes = read_bounded(&path).map_err(error)?;
    let access = from_bytes(&bytes, &path)?;
    Ok(Access { file: Some(Followed { path, content: Secret::new(bytes) }), ..access })
}

fn from_bytes(bytes: &[u8], path: &Path) -> Result<Access, AccessError> {
    let text = text::decoded(bytes).map_err(|error| unreadable(path, &error))?;
    from_text(&text, path)
}

/// Reads the text of a kubeconfig. `path` is where it stood: relative paths in it begin there.
///
/// # Errors
/// [`AccessError`].
pub fn from_text(text: &str, path: &Path) -> Result<Access, AccessError> {
    let config: Config = text::document(text).map_err(|error| unreadable(path, &error))?.unwrap_or_default();
    let file = Reading { path, directory: path.parent().unwrap_or(Path::new("/")) };
    // A Secret that holds a kubeconfig, say, is no kubeconfig without a context.
    for (field, value, only) in [("kind", config.kind, "Config"), ("apiVersion", config.api_version, "v1")] {
        if some(value).is_some_and(|value| value != only) {
            return Err(file.error(field, Rule::OneOf(only)));
        }
    }
    let name = config.current_context.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| file.error("current-context", Rule::Required))?;
    let contexts = config.contexts.unwrap_or_default().into_iter().map(|entry| (entry.name, entry.context));
    let context = file.entry("current-context", "contexts", &name, contexts)?;
    let context = context.ok_or_else(|| file.error("current-context", Rule::NoSuchEntry("contexts")))?;

    let cluster_name = context.cluster.filter(|name| !name.is_empty());
    let field = format!("contexts[{name}].cluster");
    let cluster_name = cluster_name.ok_or_else(|| file.error(field.as_str(), Rule::Required))?;
    let clusters = config.clusters.unwrap_or_default().into_iter().map(|entry| (entry.name, entry.cluster));
    let cluster = file.entry(&field, "clusters", &cluster_name, clusters)?;
    let cluster = cluster.ok_or_else(|| file.error(field, Rule::NoSuchEntry("clusters")))?;

    // A context without a user is one for a server that asks for none.
    let user_name = context.user.filter(|name| !name.is_empty());
    let user = match &user_name {
        None => User::default(),
        Some(user_name) => {
            let users = config.users.unwrap_or_default().into_iter().map(|entry| (entry.name, entry.user));
            file.entry(&format!("contexts[{name}].user"), "users", user_name, users)?.unwrap_or_default()
        }
    };
    file.access(&cluster_name, cluster, &user_name.unwrap_or_default(), user)
}

/// Reads the account that Kubernetes puts into a pod. `root` is `/` but for tests.
///
/// # Errors
/// [`AccessError`]: among others, this is not a pod.
pub fn in_pod(root: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Access, AccessError> {
    let variable = |name| env(name).filter(|value| !value.is_empty()).ok_or(AccessError::NotInPod(name));
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let server = Server::parse(&format!("https://{host}:{port}")).ok_or(AccessError::BadAddress)?;
    let account = root.join(ACCOUNT);
    let path = account.join("token");
    // Without a token now, there will be none later: the pod was made without an account.
    read_bounded(&path).map_err(|error| AccessError::Read { path: path.clone(), error })?;
    Ok(Access {
        server,
        tls_server_name: None,
        trust: Trust::Only(Material::file(account.join("ca.crt"))),
        certificate: None,
        login: Login::TokenFile { path, until_read: None },
        proxy_url: None,
        file: None,
    })
}

/// Reads a file, and refuses one that is too long to be what it should be.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, io::Error> {
    foreign_file::read(path, FILE_MAX)
}

/// The reader's messages quote values, and values here are secrets. Field names and places come before the first quote.
fn unreadable(path: &Path, error: &TextError) -> AccessError {
    let message = error.to_string();
    let place = match error {
        TextError::Yaml(error) => error.location(),
        TextError::Merged(_) => None,
        TextError::Encoding(_) | TextError::ManyDocuments => {
            return AccessError::Unreadable { path: path.into(), line: None, message };
        }
    };
    let harmless = message.split(['"', '`', '\'']).next().unwrap_or_default();
    let harmless = harmless.split(" at line ").next().unwrap_or_default().trim_end();
    let harmless: String = harmless.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    AccessError::Unreadable {
        path: path.into(),
        line: place.map(|place| place.line()),
        message: if harmless.is_empty() { "not a kubeconfig".into() } else { harmless },
    }
}

struct Reading<'a> {
    path: &'a Path,
    directory: &'a Path,
}

impl Reading<'_> {
    fn error(&self, field: impl Into<String>, rule: Rule) -> AccessError {
        AccessError::Field { path: self.path.into(), field: field.into(), rule }
    }

    /// The content of the one entry of this name, which may have none.
    fn entry<T>(
        &self,
        field: &str,
        list: &'static str,
        name: &str,
        entries: impl Iterator<Item = (String, Option<T>)>,
    ) -> Result<Option<T>, AccessError> {
        let mut found = entries.filter(|(entry, _)| entry == name).map(|(_, content)| content);
        match (found.next(), found.next()) {
            (None, _) => Err(self.error(field, Rule::NoSuchEntry(list))),
            (Some(content), None) => Ok(content),
            (Some(_), Some(_)) => Err(self.error(field, Rule::NotUnique(list))),
        }
    }

    fn access(&self, cluster_name: &str, cluster: Cluster, user_name: &str, user: User) -> Result<Access, AccessError> {
        let in_cluster = |field: &str| format!("clusters[{cluster_name}].{field}");
        let url = some(cluster.server).ok_or_else(|| self.error(in_cluster("server"), Rule::Required))?;
        let server = Server::parse(&url).ok_or_else(|| self.error(in_cluster("server"), Rule::NotAUrl))?;

        let data = "certificate-authority-data";
        let authority = self.material(
            &in_cluster(""),
            (data, cluster.certificate_authority_data),
            ("certificate-authority", cluster.certificate_authority),
        )?;
        let trust = match (authority, cluster.insecure_skip_tls_verify.unwrap_or(false)) {
            (None, false) => Trust::System,
            (Some(authority), false) => Trust::Only(authority),
            (None, true) => Trust::Anyone,
            (Some(authority), true) => {
                let field = match authority.place() {
                    Place::Field(_, field) => field.clone(),
                    _ => in_cluster("certificate-authority"),
                };
                return Err(self.error(field, Rule::NotBeside("insecure-skip-tls-verify")));
            }
        };
        let mut access = Access {
            server,
            tls_server_name: some(cluster.tls_server_name),
            trust,
            certificate: None,
            login: Login::Nothing,
            proxy_url: some(cluster.proxy_url).map(Secret::new),
            file: None,
        };
        let extension = cluster.extensions.unwrap_or_default().into_iter().find(|entry| entry.name == EXEC_EXTENSION);
        self.user(&mut access, user_name, user, extension.and_then(|entry| entry.extension))?;
        if access.server.scheme == Scheme::Http
            && (access.certificate.is_some() || !matches!(access.login, Login::Nothing))
        {
            return Err(self.error(in_cluster("server"), Rule::NotOverHttp));
        }
        Ok(access)
    }

    fn user(
        &self,
        access: &mut Access,
        name: &str,
        user: User,
        extension: Option<serde_json::Value>,
    ) -> Result<(), AccessError> {
        let field = |field: &str| format!("users[{name}].{field}");
        if user.auth_provider.is_some() {
            return Err(self.error(field("auth-provider"), Rule::NotSupported));
        }
        for (name, given) in [
            ("as", some(user.impersonate).is_some()),
            ("as-uid", some(user.impersonate_uid).is_some()),
            ("as-groups", user.impersonate_groups.is_some_and(|groups| !groups.is_empty())),
            ("as-user-extra", user.impersonate_extra.is_some_and(|extra| !extra.is_empty())),
        ] {
            if given {
                return Err(self.error(field(name), Rule::NotSupported));
            }
        }
        let certificate = self.material(
            &field(""),
            ("client-certificate-data", user.client_certificate_data),
            ("client-certificate", user.client_certificate),
        )?;
        let key =
            self.material(&field(""), ("client-key-data", user.client_key_data), ("client-key", user.client_key))?;
        access.certificate = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (Some(_), None) => return Err(self.error(field("client-certificate"), Rule::Needs("client-key"))),
            (None, Some(_)) => return Err(self.error(field("client-key"), Rule::Needs("client-certificate"))),
        };

        let token = some(user.token).map(|token| Secret::new(token.trim()));
        let basic = some(user.username).map(|username| {
            let pair = format!("{username}:{}", user.password.unwrap_or_default());
            Login::Basic(Secret::new(STANDARD.encode(pair)))
        });
        let login = match (token, some(user.token_file)) {
            (None, None) => None,
            (Some(token), None) => Some(Login::Token(token)),
            (until_read, Some(path)) => Some(Login::TokenFile { path: self.directory.join(path), until_read }),
        };
        access.login = match (login, basic, user.exec) {
            (None, None, None) => Login::Nothing,
            (Some(login), None, None) | (None, Some(login), None) => login,
            (None, None, Some(exec)) => Login::Exec(Box::new(self.plugin(access, &field("exec"), exec, extension)?)),
            (Some(_), _, Some(_)) => return Err(self.error(field("token"), Rule::NotBeside("exec"))),
            (_, Some(_), Some(_)) => return Err(self.error(field("username"), Rule::NotBeside("exec"))),
            (Some(_), Some(_), None) => return Err(self.error(field("token"), Rule::NotBeside("username"))),
        };
        Ok(())
    }

    fn plugin(
        &self,
        access: &Access,
        field: &str,
        exec: Exec,
        extension: Option<serde_json::Value>,
    ) -> Result<Plugin, AccessError> {
        let command = some(exec.command).ok_or_else(|| self.error(format!("{field}.command"), Rule::Required))?;
        let versions = "client.authentication.k8s.io/v1 or client.authentication.k8s.io/v1beta1";
        let api_version = exec.api_version.unwrap_or_default();
        if !versions.split(" or ").any(|version| version == api_version) {
            return Err(self.error(format!("{field}.apiVersion"), Rule::OneOf(versions)));
        }
        if exec.interactive_mode.as_deref() == Some("Always") {
            return Err(self.error(format!("{field}.interactiveMode"), Rule::OneOf("Never or IfAvailable")));
        }
        let mut env = Vec::new();
        for variable in exec.env.unwrap_or_default() {
            let name = some(variable.name).filter(|name| !name.contains(['=', '\0']));
            let name = name.ok_or_else(|| self.error(format!("{field}.env.name"), Rule::Required))?;
            env.push((name, variable.value.unwrap_or_default()));
        }
        Ok(Plugin {
            // A bare name is looked for in PATH, a path begins at the kubeconfig.
            command: if command.contains('/') { self.directory.join(command) } else { command.into() },
            args: exec.args.unwrap_or_default(),
            env,
            api_version,
            install_hint: some(exec.install_hint),
            authorities: match &access.trust {
                Trust::Only(authorities) => Some(authorities.clone()),
                Trust::System | Trust::Anyone => None,
            },
            cluster: exec.provide_cluster_info.unwrap_or(false).then(|| cluster_info(access, extension)),
        })
    }

    /// One thing in two fields: inline, or the name of a file.
    fn material(
        &self,
        prefix: &str,
        (data_field, data): (&'static str, Option<String>),
        (file_field, file): (&'static str, Option<String>),
    ) -> Result<Option<Material>, AccessError> {
        let field = format!("{prefix}{data_field}");
        match (some(data), some(file)) {
            (None, None) => Ok(None),
            (None, Some(file)) => Ok(Some(Material::file(self.directory.join(file)))),
            (Some(_), Some(_)) => Err(self.error(field, Rule::NotBeside(file_field))),
            (Some(data), None) => {
                let data: String = data.split_ascii_whitespace().collect();
                let content = STANDARD.decode(data).map_err(|_| self.error(field.as_str(), Rule::NotBase64))?;
                Ok(Some(Material::inline(Place::Field(self.path.into(), field), Secret::new(content))))
            }
        }
    }
}

/// What a plugin is told about the cluster.
fn cluster_info(access: &Access, extension: Option<serde_json::Value>) -> serde_json::Value {
    let mut info = serde_json::Map::new();
    info.insert("server".into(), access.server.to_string().into());
    if let Some(name) = &access.tls_server_name {
        info.insert("tls-server-name".into(), name.as_str().into());
    }
    if matches!(access.trust, Trust::Anyone) {
        info.insert("insecure-skip-tls-verify".into(), true.into());
    }
    if let Some(url) = &access.proxy_url {
        info.insert("proxy-url".into(), String::from_utf8_lossy(url.expose()).into());
    }
    info.insert("config".into(), extension.unwrap_or_default());
    info.into()
}

/// In a kubeconfig an empty field is an absent one.
fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

// The shape of the file. Unknown fields are other programs' business. Every field may be null.

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Config {
    kind: Option<String>,
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    current_context: Option<String>,
    contexts: Option<Vec<NamedContext>>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Option<Context>,
}

#[derive(Deserialize)]
struct Context {
    cluster: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: Option<String>,
    tls_server_name: Option<String>,
    #[serde(default, deserialize_with = "text::boolean")]
    insecure_skip_tls_verify: Option<bool>,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    proxy_url: Option<String>,
    extensions: Option<Vec<NamedExtension>>,
}

#[derive(Deserialize)]
struct NamedExtension {
    name: String,
    extension: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: Option<User>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
    #[serde(rename = "as-uid")]
    impersonate_uid: Option<String>,
    #[serde(rename = "as-groups")]
    impersonate_groups: Option<Vec<IgnoredAny>>,
    #[serde(rename = "as-user-extra")]
    impersonate_extra: Option<BTreeMap<String, IgnoredAny>>,
    username: Option<String>,
    password: Option<String>,
    auth_provider: Option<BTreeMap<String, IgnoredAny>>,
    exec: Option<Exec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exec {
    api_version: Option<String>,
    command: Option<String>,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    install_hint: Option<String>,
    #[serde(default, deserialize_with = "text::boolean")]
    provide_cluster_info: Option<bool>,
    interactive_mode: Option<String>,
}

#[derive(Deserialize)]
struct Variable {
    name: Option<String>,
    value: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kubeconfig with these lines in its cluster and in its user.
    fn config(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\ncontexts:\n- name: other\n  context: \
             {{cluster: gone}}\n- name: here\n  context: {{cluster: prod, user: node, namespace: x}}\nclusters:\n- name: \
             prod\n  cluster:\n    {}\nusers:\n- name: node\n  user:\n    {}\n",
            cluster.replace('\n', "\n    "),
            user.replace('\n', "\n    ")
        )
    }

    const SERVER: &str = "server: https://10.0.0.1:6443";

    fn read(cluster: &str, user: &str) -> Result<Access, String> {
        from_text(&config(cluster, user), Path::new("/etc/kubernetes/kubelet.conf")).map_err(|error| error.to_string())
    }

    fn refused(cluster: &str, user: &str) -> String {
        let text = read(cluster, user).expect_err("refused");
        assert!(!text.contains("hunter2"), "{text}");
        text.strip_prefix("/etc/kubernetes/kubelet.conf: ").expect("the file").to_owned()
    }

    #[test]
    fn servers() {
        for (url, want) in [
            ("https://10.0.0.1:6443", Some(("10.0.0.1", 6443, "", "https://10.0.0.1:6443"))),
            ("https://api.example", Some(("api.example", 443, "", "https://api.example"))),
            ("https://api.example:443/", Some(("api.example", 443, "", "https://api.example"))),
            ("https://[2001:db8::1]:6443", Some(("2001:db8::1", 6443, "", "https://[2001:db8::1]:6443"))),
            ("https://[::1]", Some(("::1", 443, "", "https://[::1]"))),
            ("https://r.example/k8s/c-1/", Some(("r.example", 443, "/k8s/c-1", "https://r.example/k8s/c-1"))),
            ("10.0.0.1:6443", Some(("10.0.0.1", 6443, "", "https://10.0.0.1:6443"))),
            ("http://localhost:8001", Some(("localhost", 8001, "", "http://localhost:8001"))),
            ("ftp://10.0.0.1", None),
            ("https://", None),
            ("https://h:0", None),
            ("https://h:99999", None),
            ("https://h:", None),
            ("https://u:hunter2@h", None),
            ("https://h/?a=b", None),
            ("https://h/#f", None),
            ("https://a b", None),
            ("https://a[2001:db8::1]:6443", None),
            ("https://[2001:db8::1]a:6443", None),
            ("https://[[::1]]", None),
            ("https://[name]", None),
            ("https://[fe80%25eth0]:6443", None),
        ] {
            let parsed = Server::parse(url);
            let shown = parsed.as_ref().map(ToString::to_string);
            let parts = parsed.as_ref().zip(shown.as_deref());
            let parts = parts.map(|(s, shown)| (s.host.as_str(), s.port, s.path.as_str(), shown));
            assert_eq!(parts, want, "{url}");
        }
    }

    #[test]
    fn a_node_s_kubeconfig_as_kubeadm_writes_it() {
        let cluster = format!("{SERVER}\ncertificate-authority-data: Q0E=");
        let user = "client-certificate: /var/lib/kubelet/pki/current.pem\nclient-key: pki/key.pem";
        let access = read(&cluster, user).expect("good");
        assert_eq!(access.server.to_string(), "https://10.0.0.1:6443");
        let Trust::Only(authority) = &access.trust else { panic!("{:?}", access.trust) };
        assert_eq!(authority.read().expect("inline").expose(), b"CA");
        let pair = access.certificate.expect("a pair");
        assert_eq!(pair.certificate.place().to_string(), "/var/lib/kubelet/pki/current.pem");
        assert_eq!(pair.key.place().to_string(), "/etc/kubernetes/pki/key.pem");
        assert!(matches!(access.login, Login::Nothing));
    }

    #[test]
    fn every_way_to_log_in() {
        let token = |user: &str| read(SERVER, user).expect("good").login;
        assert!(matches!(token("token: abc"), Login::Token(t) if t.expose() == b"abc"));
        assert!(
            matches!(token("tokenFile: token"), Login::TokenFile { path, until_read: None } if path == Path::new("/etc/kubernetes/token"))
        );
        assert!(
            matches!(token("token: abc\ntokenFile: /token"), Login::TokenFile { path, until_read: Some(_) } if path == Path::new("/token"))
        );
        assert!(matches!(token("username: u\npassword: p"), Login::Basic(b) if b.expose() == b"dTpw"));
        assert!(matches!(token("{}"), Login::Nothing));
        assert!(matches!(token("token: ''"), Login::Nothing));
    }

    #[test]
    fn plugins_and_what_they_are_told() {
        let cluster = format!(
            "{SERVER}\ninsecure-skip-tls-verify: true\nextensions:\n- name: client.authentication.k8s.io/exec\n  extension: \
             {{audience: x}}"
        );
        let user = "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  command: ./bin/login\n  args: [a, b]\n  env: \
                    [{name: K, value: V}]\n  interactiveMode: Never\n  provideClusterInfo: true";
        let Login::Exec(plugin) = read(&cluster, user).expect("good").login else { panic!("no plugin") };
        assert_eq!(plugin.command, Path::new("/etc/kubernetes/./bin/login"));
        assert_eq!((plugin.args.len(), plugin.env.as_slice()), (2, &[("K".to_owned(), "V".to_owned())][..]));
        assert_eq!(
            plugin.cluster.expect("told").to_string(),
            r#"{"config":{"audience":"x"},"insecure-skip-tls-verify":true,"server":"https://10.0.0.1:6443"}"#
        );
        let user = "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: login}";
        let Login::Exec(plugin) = read(SERVER, user).expect("good").login else { panic!("no plugin") };
        assert_eq!((plugin.command.as_path(), plugin.cluster), (Path::new("login"), None));
    }

    #[test]
    fn errors_name_the_field_and_keep_secrets() {
        for (cluster, user, text) in [
            ("proxy-url: http://u:hunter2@p", "{}", "clusters[prod].server is required"),
            (
                "server: https://u:hunter2@h",
                "{}",
                "clusters[prod].server is not the URL of a server, such as https://10.0.0.1:6443",
            ),
            (
                "server: http://h",
                "token: hunter2",
                "clusters[prod].server is http, and credentials are only sent over https",
            ),
            (
                "server: h\ncertificate-authority-data: '%'",
                "{}",
                "clusters[prod].certificate-authority-data is not base64",
            ),
            (
                "server: h\ncertificate-authority: a\ncertificate-authority-data: QQ==",
                "{}",
                "clusters[prod].certificate-authority-data cannot be given together with certificate-authority",
            ),
            (
                "server: h\ncertificate-authority: a\ninsecure-skip-tls-verify: true",
                "{}",
                "clusters[prod].certificate-authority cannot be given together with insecure-skip-tls-verify",
            ),
            ("server: h", "client-certificate: a", "users[node].client-certificate needs client-key beside it"),
            ("server: h", "client-key-data: aHVudGVyMg==", "users[node].client-key needs client-certificate beside it"),
            ("server: h", "client-key-data: hunter2!", "users[node].client-key-data is not base64"),
            (
                "server: h",
                "token: hunter2\nusername: hunter2",
                "users[node].token cannot be given together with username",
            ),
            ("server: h", "token: hunter2\nexec: {}", "users[node].token cannot be given together with exec"),
            ("server: h", "auth-provider: {name: gcp}", "users[node].auth-provider is not supported"),
            ("server: h", "as: hunter2", "users[node].as is not supported"),
            ("server: h", "as-groups: [hunter2]", "users[node].as-groups is not supported"),
            ("server: h", "as-uid: hunter2", "users[node].as-uid is not supported"),
            ("server: h", "as-user-extra: {a: [hunter2]}", "users[node].as-user-extra is not supported"),
            ("server: h", "<<: {auth-provider: {name: hunter2}}", "users[node].auth-provider is not supported"),
            ("server: h", "<<: {token: [hunter2]}", "invalid type: sequence, expected a string"),
            ("server: h", "<<: hunter2", "expected a mapping or list of mappings for merging, but found scalar"),
            (
                "server: h\ninsecure-skip-tls-verify: sure",
                "{}",
                "line 14: clusters[0].cluster.insecure-skip-tls-verify: invalid type: string",
            ),
            ("server: h", "exec: {apiVersion: x}", "users[node].exec.command is required"),
            (
                "server: h",
                "exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}",
                "users[node].exec.apiVersion must be client.authentication.k8s.io/v1 or client.authentication.k8s.io/v1beta1",
            ),
            (
                "server: h",
                "token: [hunter2]",
                "line 17: users[0].user.token: invalid type: sequence, expected a string",
            ),
            ("server: h", "exec: hunter2", "line 17: users[0].user.exec: invalid type: string"),
            ("server: \"hunter2", "{}", "line 18: found unexpected end of stream"),
            ("server: {hunter2: x}", "{}", "line 13: clusters[0].cluster.server: invalid type: map, expected a string"),
        ] {
            assert_eq!(refused(cluster, user), text, "{cluster} {user}");
        }
    }

    #[test]
    fn what_other_tools_write_is_read() {
        let anchors = config(SERVER, "<<: *login").replace("preferences: {}", "preferences: &login {token: abc}");
        let nulls = config(SERVER, "token: abc\nas: null\nas-groups: []\nexec: ~\nauth-provider: null\nusername: ''");
        let windows = format!("\u{feff}---\r\n{}---\r\n", config(SERVER, "token: abc").replace('\n', "\r\n"));
        let json = r#"{"kind":"Config","apiVersion":"v1","current-context":"\ud83d\udc26","contexts":[{"name":"\ud83d\udc26","context":
            {"cluster":"c","user":"u"}}],"clusters":[{"name":"c","cluster":{"server":"https://h"}}],"users":[{"name":"u","user":{"token":"abc"}}]}"#;
        for text in [&anchors, &nulls, &windows, json] {
            let access = from_text(text, Path::new("/k")).expect(text);
            assert!(matches!(access.login, Login::Token(token) if token.expose() == b"abc"), "{text}");
        }
        let access = read(&format!("{SERVER}\ninsecure-skip-tls-verify: yes"), "{}").expect("good");
        assert!(matches!(access.trust, Trust::Anyone));
        let user = "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  command: login\n  args: null\n  env: null\n  \
                    interactiveMode: IfAvailable\n  installHint: |\n    get\n    it\n  provideClusterInfo: on";
        let Login::Exec(plugin) = read(SERVER, user).expect("good").login else { panic!("no plugin") };
        assert!(plugin.args.is_empty() && plugin.env.is_empty() && plugin.cluster.is_some());
    }

    #[test]
    fn what_is_no_kubeconfig_hears_so() {
        let secret = "apiVersion: v1\nkind: Secret\nstringData: {value: hunter2}\n";
        let good = config(SERVER, "token: hunter2");
        for (text, want) in [
            (secret.to_owned(), "/k: kind must be Config"),
            ("apiVersion: v2\nkind: Config\n".into(), "/k: apiVersion must be v1"),
            (
                format!("{good}---\n{good}"),
                "/k: there is more than one YAML document with content: leave only the one that counts",
            ),
            (
                format!("{good}- name: node\n  user: {{}}\n"),
                "/k: contexts[here].user names an entry that is more than once in users",
            ),
            (
                good.replace("- name: other", "- name: here"),
                "/k: current-context names an entry that is more than once in contexts",
            ),
        ] {
            assert_eq!(from_text(&text, Path::new("/k")).expect_err("refused").to_string(), want);
        }
        let error = from_bytes(b"a: \xff", Path::new("/k")).expect_err("refused").to_string();
        assert!(error.starts_with("/k: byte 3 is neither UTF-8"), "{error}");
    }

    #[test]
    fn contexts_that_lead_nowhere() {
        let path = Path::new("/k");
        for (text, want) in [
            ("", "/k: current-context is required"),
            ("current-context: ''", "/k: current-context is required"),
            ("current-context: a", "/k: current-context names an entry that is not in contexts"),
            ("{current-context: a, contexts: [{name: a, context: {}}]}", "/k: contexts[a].cluster is required"),
            (
                "{current-context: a, contexts: [{name: a, context: {cluster: b}}]}",
                "/k: contexts[a].cluster names an entry that is not in clusters",
            ),
            (
                "{current-context: a, contexts: [{name: a, context: {cluster: b, user: c}}], clusters: [{name: b, cluster: {server: h}}]}",
                "/k: contexts[a].user names an entry that is not in users",
            ),
        ] {
            assert_eq!(from_text(text, path).expect_err("refused").to_string(), want);
        }
        let anonymous = "{current-context: a, contexts: [{name: a, context: {cluster: b}}], clusters: [{name: b, cluster: {server: h}}]}";
        assert!(matches!(from_text(anonymous, path).expect("good").login, Login::Nothing));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let cluster = format!("{SERVER}\nproxy-url: http://u:hunter2@p");
        for user in [
            "token: hunter2",
            "username: hunter2\npassword: hunter2",
            "tokenFile: a\ntoken: hunter2",
            "client-certificate: a\nclient-key-data: aHVudGVyMg==",
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, args: [hunter2], env: [{name: A, value: hunter2}], provideClusterInfo: true}",
        ] {
            let shown = format!("{:?}", read(&cluster, user).expect("good"));
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        }
    }

    #[test]
    fn a_pod_s_account() {
        let root = std::env::temp_dir().join(format!("flock-in-pod-{}", std::process::id()));
        std::fs::create_dir_all(root.join(ACCOUNT)).expect("a directory");
        let env = |host: &str, port: &str| {
            let pairs = [("KUBERNETES_SERVICE_HOST", host.to_owned()), ("KUBERNETES_SERVICE_PORT", port.to_owned())];
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
        };
        let text = |access: Result<Access, AccessError>| access.expect_err("refused").to_string();
        assert!(text(in_pod(&root, &|_| None)).contains("KUBERNETES_SERVICE_HOST is not set"));
        assert!(text(in_pod(&root, &env("10.96.0.1", ""))).contains("KUBERNETES_SERVICE_PORT is not set"));
        assert!(text(in_pod(&root, &env("10.96.0.1", "x"))).contains("are not an address and a port"));
        assert!(text(in_pod(&root, &env("10.96.0.1", "443"))).contains("serviceaccount/token"));
        std::fs::write(root.join(ACCOUNT).join("token"), "t").expect("writable");
        let access = in_pod(&root, &env("fd00::1", "443")).expect("good");
        assert_eq!(access.server.to_string(), "https://[fd00::1]");
        assert!(matches!(access.login, Login::TokenFile { path, .. } if path == root.join(ACCOUNT).join("token")));
        std::fs::remove_dir_all(root).expect("removable");
    }
}
