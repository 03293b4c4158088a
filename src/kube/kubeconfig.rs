//! A kubeconfig file, as a way to the API server.
//!
//! The result is an [`Access`]: checked, with absolute paths, not yet tried. Others rewrite a kubeconfig, and [`changed`] tells
//! when. What kubectl takes is taken, and what is not done is refused by its name. Must not read the files that it names.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::kube::access::{Access, AccessError, Auth, ClientCertificate, ExecPlugin, FieldRule, Kubeconfig, Trust};
use crate::kube::pem::{Origin, Pem};
use crate::kube::secret::Secret;
use crate::kube::server::{Scheme, Server};
use model::excerpt::Excerpt;
use model::syntax::{self, Advice};
use model::text::{self, TextError};

/// The name of the cluster extension that is meant for exec plugins.
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

/// Most entries that are named where another one is asked for.
const OTHERS_MAX: usize = 5;

/// Reads a kubeconfig file.
///
/// # Errors
/// [`AccessError`].
pub fn from_file(path: &Path) -> Result<Access, AccessError> {
    let error = |error| AccessError::Read { path: path.into(), error };
    let path = std::path::absolute(path).map_err(error)?;
    let content = Secret::in_file(&path).map_err(error)?;
    let access = from_bytes(content.expose(), &path)?;
    Ok(Access { kubeconfig: Some(Kubeconfig { path, content }), ..access })
}

/// Reads the file of `known` again, which may have been rewritten in place, replaced, or reached by a link that was switched.
/// None: it says what it said when it was last read. The file is small, so the content is compared and no time stamp has to be
/// trusted.
///
/// # Errors
/// [`AccessError`]. A file that could not be read is read again with the next call; a content is judged once.
pub fn changed(known: &mut Kubeconfig) -> Result<Option<Access>, AccessError> {
    let error = |error| AccessError::Read { path: known.path.clone(), error };
    let content = Secret::in_file(&known.path).map_err(error)?;
    if content == known.content {
        return Ok(None);
    }
    known.content = content;
    from_bytes(known.content.expose(), &known.path).map(Some)
}

fn from_bytes(bytes: &[u8], path: &Path) -> Result<Access, AccessError> {
    let text = text::decoded(bytes).map_err(|error| unreadable(path, bytes, "", &error))?;
    from_text(&text, path)
}

/// Reads the text of a kubeconfig. `path` is where it stood: relative paths in it begin there.
///
/// # Errors
/// [`AccessError`].
pub fn from_text(text: &str, path: &Path) -> Result<Access, AccessError> {
    let config: Config =
        text::document(text).map_err(|error| unreadable(path, text.as_bytes(), text, &error))?.unwrap_or_default();
    let file = Reading { path, directory: path.parent().unwrap_or(Path::new("/")) };
    // A Secret that holds a kubeconfig, say, is no kubeconfig without a context.
    for (field, value, only) in [("kind", config.kind, "Config"), ("apiVersion", config.api_version, "v1")] {
        if some(value).is_some_and(|value| value != only) {
            return Err(file.error(field, FieldRule::OneOf(only)));
        }
    }
    let name = config.current_context.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| file.error("current-context", FieldRule::Required))?;
    let contexts = config.contexts.unwrap_or_default().into_iter().map(|entry| (entry.name, entry.context));
    let context = file.entry("current-context", "contexts", &name, contexts)?;
    let context = context.ok_or_else(|| file.error(format!("contexts[{name}].context"), FieldRule::Required))?;

    let cluster_name = context.cluster.filter(|name| !name.is_empty());
    let field = format!("contexts[{name}].cluster");
    let cluster_name = cluster_name.ok_or_else(|| file.error(field.as_str(), FieldRule::Required))?;
    let clusters = config.clusters.unwrap_or_default().into_iter().map(|entry| (entry.name, entry.cluster));
    let cluster = file.entry(&field, "clusters", &cluster_name, clusters)?;
    let cluster =
        cluster.ok_or_else(|| file.error(format!("clusters[{cluster_name}].cluster"), FieldRule::Required))?;

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

/// Why `bytes`, which are `text` if they are any, are no kubeconfig. The reader's messages quote values, which are secrets here.
fn unreadable(path: &Path, bytes: &[u8], text: &str, error: &TextError) -> AccessError {
    let Advice { line, words } = match error {
        // What is well-formed has a value of the wrong kind.
        TextError::Yaml(yaml) if text::tree(text).is_ok() && yaml.location().is_some() => {
            Advice { line: yaml.location().map(|place| place.line()), words: of_wrong_kind(&error.to_string()) }
        }
        TextError::Merged(_) => Advice { line: None, words: of_wrong_kind(&error.to_string()) },
        _ => syntax::explained(error, bytes, text),
    };
    AccessError::Unreadable { path: path.into(), line, message: words }
}

/// What a reader says of a value of another kind than is meant, in words, and without the value.
fn of_wrong_kind(message: &str) -> String {
    let (place, rest) = match message.split_once("invalid type: ") {
        Some((place, rest)) => (place.trim_end_matches(": "), rest),
        None => (message.split(": ").next().filter(|_| message.contains(": ")).unwrap_or_default(), ""),
    };
    let place = match place {
        "" => "a value".into(),
        place => String::from(Excerpt::line(place.split(['"', '`', '\'']).next().unwrap_or_default(), 200)),
    };
    if message.contains("missing field `name`") {
        return format!("{place} has no name");
    }
    if message.contains("duplicate field") {
        return format!("{place} has one field twice: leave one");
    }
    let (found, meant) = rest.split_once(", expected ").unwrap_or((rest, ""));
    let found = match found.split(' ').next().unwrap_or_default() {
        "string" => "a text",
        "sequence" => "a list",
        "map" => "an object",
        "integer" | "floating" => "a number",
        "boolean" => "true or false",
        _ => "something else",
    };
    let meant = match meant.split(" at line ").next().unwrap_or_default() {
        "a string" => "a text is meant",
        "a sequence" => "a list is meant",
        "a boolean" => "true or false is meant",
        _ => "fields are meant",
    };
    format!("{place} is {found}, and {meant}")
}

struct Reading<'a> {
    path: &'a Path,
    directory: &'a Path,
}

impl Reading<'_> {
    fn error(&self, field: impl Into<String>, rule: FieldRule) -> AccessError {
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
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for (entry, content) in entries {
            if entry == name {
                found.push(content);
            } else if others.len() < OTHERS_MAX {
                others.push(String::from(Excerpt::of(&entry)));
            }
        }
        let several = found.len() > 1;
        match found.pop() {
            Some(_) if several => Err(self.error(field, FieldRule::NotUnique(list, Excerpt::of(name)))),
            Some(content) => Ok(content),
            None => {
                let there = match others.is_empty() {
                    true => "there is none".into(),
                    false => format!("there is {}", others.join(", ")),
                };
                Err(self.error(field, FieldRule::NoSuchEntry { list, name: Excerpt::of(name), there }))
            }
        }
    }

    fn access(&self, cluster_name: &str, cluster: Cluster, user_name: &str, user: User) -> Result<Access, AccessError> {
        let in_cluster = |field: &str| format!("clusters[{cluster_name}].{field}");
        let url = some(cluster.server).ok_or_else(|| self.error(in_cluster("server"), FieldRule::Required))?;
        let server = Server::parse(&url).ok_or_else(|| self.error(in_cluster("server"), FieldRule::NotAUrl))?;

        let data = "certificate-authority-data";
        let authority = self.pem_of(
            &in_cluster(""),
            (data, cluster.certificate_authority_data),
            ("certificate-authority", cluster.certificate_authority),
        )?;
        let trust = match (authority, cluster.insecure_skip_tls_verify.unwrap_or(false)) {
            (None, false) => Trust::System,
            (Some(authority), false) => Trust::Only(authority),
            (None, true) => Trust::Anyone,
            (Some(authority), true) => {
                let field = match authority.origin() {
                    Origin::Field(_, field) => field.clone(),
                    _ => in_cluster("certificate-authority"),
                };
                return Err(self.error(field, FieldRule::NotBeside("insecure-skip-tls-verify")));
            }
        };
        let mut access = Access {
            server,
            tls_server_name: some(cluster.tls_server_name),
            trust,
            certificate: None,
            auth: Auth::Nothing,
            proxy_url: some(cluster.proxy_url).map(Secret::new),
            kubeconfig: None,
        };
        let extension = cluster.extensions.unwrap_or_default().into_iter().find(|entry| entry.name == EXEC_EXTENSION);
        self.user(&mut access, user_name, user, extension.and_then(|entry| entry.extension))?;
        if access.server.scheme == Scheme::Http
            && (access.certificate.is_some() || !matches!(access.auth, Auth::Nothing))
        {
            return Err(self.error(in_cluster("server"), FieldRule::NotOverHttp));
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
            return Err(self.error(field("auth-provider"), FieldRule::NotSupported));
        }
        for (name, given) in [
            ("as", some(user.impersonate).is_some()),
            ("as-uid", some(user.impersonate_uid).is_some()),
            ("as-groups", user.impersonate_groups.is_some_and(|groups| !groups.is_empty())),
            ("as-user-extra", user.impersonate_extra.is_some_and(|extra| !extra.is_empty())),
        ] {
            if given {
                return Err(self.error(field(name), FieldRule::NotSupported));
            }
        }
        let certificate = self.pem_of(
            &field(""),
            ("client-certificate-data", user.client_certificate_data),
            ("client-certificate", user.client_certificate),
        )?;
        let key =
            self.pem_of(&field(""), ("client-key-data", user.client_key_data), ("client-key", user.client_key))?;
        access.certificate = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (Some(_), None) => return Err(self.error(field("client-certificate"), FieldRule::Needs("client-key"))),
            (None, Some(_)) => return Err(self.error(field("client-key"), FieldRule::Needs("client-certificate"))),
        };

        let token = some(user.token).map(|token| Secret::new(token.trim()));
        let basic = some(user.username).map(|username| {
            let pair = format!("{username}:{}", user.password.unwrap_or_default());
            Auth::Basic(Secret::new(STANDARD.encode(pair)))
        });
        let auth = match (token, some(user.token_file)) {
            (None, None) => None,
            (Some(token), None) => Some(Auth::Token(token)),
            (until_read, Some(path)) => Some(Auth::TokenFile { path: self.directory.join(path), until_read }),
        };
        access.auth = match (auth, basic, user.exec) {
            (None, None, None) => Auth::Nothing,
            (Some(auth), None, None) | (None, Some(auth), None) => auth,
            (None, None, Some(exec)) => Auth::Exec(Box::new(self.plugin(access, &field("exec"), exec, extension)?)),
            (Some(_), _, Some(_)) => return Err(self.error(field("token"), FieldRule::NotBeside("exec"))),
            (_, Some(_), Some(_)) => return Err(self.error(field("username"), FieldRule::NotBeside("exec"))),
            (Some(_), Some(_), None) => return Err(self.error(field("token"), FieldRule::NotBeside("username"))),
        };
        Ok(())
    }

    fn plugin(
        &self,
        access: &Access,
        field: &str,
        exec: Exec,
        extension: Option<serde_json::Value>,
    ) -> Result<ExecPlugin, AccessError> {
        let command = some(exec.command).ok_or_else(|| self.error(format!("{field}.command"), FieldRule::Required))?;
        let versions = "client.authentication.k8s.io/v1 or client.authentication.k8s.io/v1beta1";
        let api_version = exec.api_version.unwrap_or_default();
        if !versions.split(" or ").any(|version| version == api_version) {
            return Err(self.error(format!("{field}.apiVersion"), FieldRule::OneOf(versions)));
        }
        if exec.interactive_mode.as_deref() == Some("Always") {
            return Err(self.error(format!("{field}.interactiveMode"), FieldRule::OneOf("Never or IfAvailable")));
        }
        let mut env = Vec::new();
        for variable in exec.env.unwrap_or_default() {
            let name = some(variable.name).filter(|name| !name.contains(['=', '\0']));
            let name = name.ok_or_else(|| self.error(format!("{field}.env.name"), FieldRule::Required))?;
            env.push((name, variable.value.unwrap_or_default()));
        }
        Ok(ExecPlugin {
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
    fn pem_of(
        &self,
        prefix: &str,
        (data_field, data): (&'static str, Option<String>),
        (file_field, file): (&'static str, Option<String>),
    ) -> Result<Option<Pem>, AccessError> {
        let field = format!("{prefix}{data_field}");
        match (some(data), some(file)) {
            (None, None) => Ok(None),
            (None, Some(file)) => Ok(Some(Pem::file(self.directory.join(file)))),
            (Some(_), Some(_)) => Err(self.error(field, FieldRule::NotBeside(file_field))),
            (Some(data), None) => {
                let data: String = data.split_ascii_whitespace().collect();
                let content = STANDARD.decode(data).map_err(|_| self.error(field.as_str(), FieldRule::NotBase64))?;
                Ok(Some(Pem::inline(Origin::Field(self.path.into(), field), Secret::new(content))))
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
    fn a_node_s_kubeconfig_as_kubeadm_writes_it() {
        let cluster = format!("{SERVER}\ncertificate-authority-data: Q0E=");
        let user = "client-certificate: /var/lib/kubelet/pki/current.pem\nclient-key: pki/key.pem";
        let access = read(&cluster, user).expect("good");
        assert_eq!(access.server.to_string(), "https://10.0.0.1:6443");
        let Trust::Only(authority) = &access.trust else { panic!("{:?}", access.trust) };
        assert_eq!(authority.read().expect("inline").expose(), b"CA");
        let pair = access.certificate.expect("a pair");
        assert_eq!(pair.certificate.origin().to_string(), "/var/lib/kubelet/pki/current.pem");
        assert_eq!(pair.key.origin().to_string(), "/etc/kubernetes/pki/key.pem");
        assert!(matches!(access.auth, Auth::Nothing));
    }

    #[test]
    fn every_way_to_log_in() {
        let token = |user: &str| read(SERVER, user).expect("good").auth;
        assert!(matches!(token("token: abc"), Auth::Token(t) if t.expose() == b"abc"));
        assert!(
            matches!(token("tokenFile: token"), Auth::TokenFile { path, until_read: None } if path == Path::new("/etc/kubernetes/token"))
        );
        assert!(
            matches!(token("token: abc\ntokenFile: /token"), Auth::TokenFile { path, until_read: Some(_) } if path == Path::new("/token"))
        );
        assert!(matches!(token("username: u\npassword: p"), Auth::Basic(b) if b.expose() == b"dTpw"));
        assert!(matches!(token("{}"), Auth::Nothing));
        assert!(matches!(token("token: ''"), Auth::Nothing));
    }

    #[test]
    fn plugins_and_what_they_are_told() {
        let cluster = format!(
            "{SERVER}\ninsecure-skip-tls-verify: true\nextensions:\n- name: client.authentication.k8s.io/exec\n  extension: \
             {{audience: x}}"
        );
        let user = "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  command: ./bin/login\n  args: [a, b]\n  env: \
                    [{name: K, value: V}]\n  interactiveMode: Never\n  provideClusterInfo: true";
        let Auth::Exec(plugin) = read(&cluster, user).expect("good").auth else { panic!("no plugin") };
        assert_eq!(plugin.command, Path::new("/etc/kubernetes/./bin/login"));
        assert_eq!((plugin.args.len(), plugin.env.as_slice()), (2, &[("K".to_owned(), "V".to_owned())][..]));
        assert_eq!(
            plugin.cluster.expect("told").to_string(),
            r#"{"config":{"audience":"x"},"insecure-skip-tls-verify":true,"server":"https://10.0.0.1:6443"}"#
        );
        let user = "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: login}";
        let Auth::Exec(plugin) = read(SERVER, user).expect("good").auth else { panic!("no plugin") };
        assert_eq!((plugin.command.as_path(), plugin.cluster), (Path::new("login"), None));
    }

    #[test]
    fn errors_name_the_field_and_keep_secrets() {
        for (cluster, user, text) in [
            ("proxy-url: http://u:hunter2@p", "{}", "clusters[prod].server is missing"),
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
            (
                "server: h",
                "auth-provider: {name: gcp}",
                "users[node].auth-provider is not supported: use a token, a client certificate or exec",
            ),
            ("server: h", "as: hunter2", "users[node].as is not supported: use a token, a client certificate or exec"),
            (
                "server: h",
                "as-groups: [hunter2]",
                "users[node].as-groups is not supported: use a token, a client certificate or exec",
            ),
            (
                "server: h",
                "as-uid: hunter2",
                "users[node].as-uid is not supported: use a token, a client certificate or exec",
            ),
            (
                "server: h",
                "as-user-extra: {a: [hunter2]}",
                "users[node].as-user-extra is not supported: use a token, a client certificate or exec",
            ),
            (
                "server: h",
                "<<: {auth-provider: {name: hunter2}}",
                "users[node].auth-provider is not supported: use a token, a client certificate or exec",
            ),
            ("server: h", "<<: {token: [hunter2]}", "a value is a list, and a text is meant"),
            (
                "server: h",
                "<<: hunter2",
                "it has aliases that stand for too much, or a merge key << with something else than fields",
            ),
            (
                "server: h\ninsecure-skip-tls-verify: sure",
                "{}",
                "line 14: clusters[0].cluster.insecure-skip-tls-verify is a text, and true or false is meant",
            ),
            ("server: h", "exec: {apiVersion: x}", "users[node].exec.command is missing"),
            (
                "server: h",
                "exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}",
                "users[node].exec.apiVersion must be client.authentication.k8s.io/v1 or client.authentication.k8s.io/v1beta1",
            ),
            ("server: h", "token: [hunter2]", "line 17: users[0].user.token is a list, and a text is meant"),
            ("server: h", "exec: hunter2", "line 17: users[0].user.exec is a text, and fields are meant"),
            ("server: h", "token: hunter2\ntoken: hunter2", "line 17: users[0].user has one field twice: leave one"),
            (
                "server: h",
                "token: x: hunter2",
                "line 17: a value with a colon at its end, or before a space, has to stand between quotes, as in 'fd00::'",
            ),
            ("server: \"hunter2", "{}", "line 13: a \" is opened here and not closed"),
            ("server: {hunter2: x}", "{}", "line 13: clusters[0].cluster.server is an object, and a text is meant"),
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
            assert!(matches!(access.auth, Auth::Token(token) if token.expose() == b"abc"), "{text}");
        }
        let access = read(&format!("{SERVER}\ninsecure-skip-tls-verify: yes"), "{}").expect("good");
        assert!(matches!(access.trust, Trust::Anyone));
        let user = "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  command: login\n  args: null\n  env: null\n  \
                    interactiveMode: IfAvailable\n  installHint: |\n    get\n    it\n  provideClusterInfo: on";
        let Auth::Exec(plugin) = read(SERVER, user).expect("good").auth else { panic!("no plugin") };
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
                "/k: contexts[here].user is \"node\", which is more than once in users: leave one",
            ),
            (
                good.replace("- name: other", "- name: here"),
                "/k: current-context is \"here\", which is more than once in contexts: leave one",
            ),
        ] {
            assert_eq!(from_text(&text, Path::new("/k")).expect_err("refused").to_string(), want);
        }
        let error = from_bytes(b"a: \xff", Path::new("/k")).expect_err("refused").to_string();
        assert!(error.starts_with("/k: line 1: byte 3, 0xff, is not UTF-8"), "{error}");
    }

    #[test]
    fn contexts_that_lead_nowhere() {
        let path = Path::new("/k");
        for (text, want) in [
            ("", "/k: current-context is missing"),
            ("current-context: ''", "/k: current-context is missing"),
            ("current-context: a", "/k: current-context is \"a\", which is not in contexts: there is none"),
            (
                "{current-context: g, contexts: [{name: a}, {name: b}]}",
                "/k: current-context is \"g\", which is not in contexts: there is \"a\", \"b\"",
            ),
            ("{current-context: a, contexts: [{name: a}]}", "/k: contexts[a].context is missing"),
            ("{current-context: a, contexts: [{name: a, context: {}}]}", "/k: contexts[a].cluster is missing"),
            (
                "{current-context: a, contexts: [{name: a, context: {cluster: b}}]}",
                "/k: contexts[a].cluster is \"b\", which is not in clusters: there is none",
            ),
            (
                "{current-context: a, contexts: [{name: a, context: {cluster: b, user: c}}], clusters: [{name: b, cluster: {server: h}}]}",
                "/k: contexts[a].user is \"c\", which is not in users: there is none",
            ),
        ] {
            assert_eq!(from_text(text, path).expect_err("refused").to_string(), want);
        }
        let anonymous = "{current-context: a, contexts: [{name: a, context: {cluster: b}}], clusters: [{name: b, cluster: {server: h}}]}";
        assert!(matches!(from_text(anonymous, path).expect("good").auth, Auth::Nothing));
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
}
