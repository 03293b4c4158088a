//! Which proxy a connection takes, if any.
//!
//! A kubeconfig's `proxy-url` wins. Else the environment decides by the rules of Go, so that the variables which work
//! for every other Kubernetes program work here too. ureq has rules of its own: it applies `ALL_PROXY` and `HTTP_PROXY`
//! to https, and knows no prefixes and no ports in `NO_PROXY`, where clusters usually list their service range.
//! Must not connect to anything.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use ureq::http::Uri;

use crate::kube::server::{Scheme, Server};

/// A proxy. Its URL may hold a password, so it is printed without that.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: String,
    shown: String,
}

impl Proxy {
    /// The whole URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.shown)
    }
}

/// A proxy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyError {
    /// Where it was named.
    pub origin: &'static str,
    /// What is wrong with it.
    pub problem: ProxyProblem,
}

/// What is wrong with the URL of a proxy. The URL is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyProblem {
    /// Not a URL with a host.
    NotAUrl,
    /// Neither http nor https.
    Scheme(String),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            ProxyProblem::NotAUrl => write!(f, "{}: not the URL of a proxy, such as http://proxy:3128", self.origin),
            ProxyProblem::Scheme(scheme) => {
                write!(f, "{}: a proxy with the scheme {scheme:?} is not supported, use http or https", self.origin)
            }
        }
    }
}

impl std::error::Error for ProxyError {}

/// The proxy for connections to `server`.
///
/// # Errors
/// The one that is named cannot be used.
pub fn choose(
    server: &Server,
    proxy_url: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, ProxyError> {
    if let Some(url) = proxy_url.filter(|url| !url.is_empty()) {
        return parse(url, "proxy-url").map(Some);
    }
    let variables = match server.scheme {
        Scheme::Https => ["HTTPS_PROXY", "https_proxy"],
        Scheme::Http => ["HTTP_PROXY", "http_proxy"],
    };
    let named = variables.into_iter().find_map(|name| Some((name, env(name).filter(|value| !value.is_empty())?)));
    let Some((origin, url)) = named else { return Ok(None) };
    let no_proxy = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| env(name).filter(|value| !value.is_empty()));
    if bypasses(&no_proxy.unwrap_or_default(), &server.host, server.port) {
        return Ok(None);
    }
    // Go takes a value without a scheme for http.
    match parse(&url, origin) {
        Err(ProxyError { problem: ProxyProblem::NotAUrl, .. }) => parse(&format!("http://{url}"), origin).map(Some),
        parsed => parsed.map(Some),
    }
}

fn parse(url: &str, origin: &'static str) -> Result<Proxy, ProxyError> {
    let error = |problem| ProxyError { origin, problem };
    let uri: Uri = url.parse().map_err(|_| error(ProxyProblem::NotAUrl))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(error(ProxyProblem::NotAUrl));
    };
    if authority.host().is_empty() {
        return Err(error(ProxyProblem::NotAUrl));
    }
    if scheme != "http" && scheme != "https" {
        return Err(error(ProxyProblem::Scheme(scheme.to_owned())));
    }
    // What stands before the last @ is user and password.
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    Ok(Proxy { url: url.to_owned(), shown: format!("{scheme}://{place}") })
}

/// Whether a host needs no proxy: by Go's rules for `NO_PROXY`, and always on this machine.
fn bypasses(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Ok(prefix) = entry.parse::<IpNet>() {
            return address.is_some_and(|address| prefix.contains(&address));
        }
        let (name, wanted_port) = split_port(&entry);
        if wanted_port.is_some_and(|wanted| wanted != port.to_string()) || name.is_empty() {
            return false;
        }
        if let Ok(wanted) = name.parse::<IpAddr>() {
            return address == Some(wanted.to_canonical());
        }
        let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
        match name.strip_prefix('.') {
            // With a dot: what is below. Without: the name itself, too.
            Some(_) => host.ends_with(name),
            None => host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        }
    })
}

/// `host:port` and `[v6]:port` in two; everything else, a bare IPv6 address too, is a name without a port.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    match entry.rsplit_once(':') {
        Some((name, port)) => match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(inner) => (inner, Some(port)),
            None if !name.contains([':', '[', ']']) => (name, Some(port)),
            None => (entry, None),
        },
        None => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let server = Server::parse(server).expect("a server");
        let env = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        choose(&server, None, &env).expect("a usable proxy").map(|proxy| proxy.to_string())
    }

    #[test]
    fn only_the_variable_of_the_scheme_counts() {
        let server = "https://api.example:6443";
        assert_eq!(chosen(server, &[]), None);
        assert_eq!(chosen(server, &[("HTTPS_PROXY", "")]), None);
        for (name, value, shown) in [
            ("HTTPS_PROXY", "http://proxy:3128", Some("http://proxy:3128")),
            ("https_proxy", "http://proxy:3128", Some("http://proxy:3128")),
            ("HTTPS_PROXY", "proxy:3128", Some("http://proxy:3128")),
            ("HTTPS_PROXY", "10.0.0.1:3128", Some("http://10.0.0.1:3128")),
            ("HTTPS_PROXY", "http://[2001:db8::1]:3128", Some("http://[2001:db8::1]:3128")),
            ("HTTPS_PROXY", "https://u:hunter2@proxy:3128", Some("https://proxy:3128")),
            ("HTTP_PROXY", "http://proxy:3128", None),
            ("ALL_PROXY", "http://proxy:3128", None),
        ] {
            assert_eq!(chosen(server, &[(name, value)]).as_deref(), shown, "{name}={value}");
        }
        assert!(chosen("http://api.example", &[("HTTP_PROXY", "http://proxy:3128")]).is_some());
        let both = [("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:1")];
        assert_eq!(chosen(server, &both).as_deref(), Some("http://upper:1"));
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (no_proxy, host, port, bypassed) in [
            ("", "api.example", 6443, false),
            ("*", "api.example", 6443, true),
            ("example", "api.example", 6443, true),
            ("example", "example", 6443, true),
            ("example", "notexample", 6443, false),
            (".example", "api.example", 6443, true),
            (".example", "example", 6443, false),
            ("*.example", "api.example", 6443, true),
            ("*.example", "example", 6443, false),
            ("API.Example", "api.example", 6443, true),
            ("other, \tapi.example ,", "api.example", 6443, true),
            ("api.example:6443", "api.example", 6443, true),
            ("api.example:443", "api.example", 6443, false),
            (":6443", "api.example", 6443, false),
            (",,", "api.example", 6443, false),
            ("10.0.0.0/8", "10.1.2.3", 6443, true),
            ("10.0.0.0/8", "11.1.2.3", 6443, false),
            ("10.0.0.1/8", "10.1.2.3", 6443, true),
            ("2001:db8::/32", "2001:db8::1", 6443, true),
            ("2001:db8::1", "2001:db8::1", 6443, true),
            ("2001:DB8:0::1", "2001:db8::1", 6443, true),
            ("[2001:db8::1]:6443", "2001:db8::1", 6443, true),
            ("[2001:db8::1]:443", "2001:db8::1", 6443, false),
            ("10.1.2.3", "10.1.2.3", 6443, true),
            ("10.1.2.3:443", "10.1.2.3", 6443, false),
            ("0.1.2.3", "10.1.2.3", 6443, false),
            ("", "localhost", 6443, true),
            ("", "LOCALHOST", 6443, true),
            ("", "127.0.0.1", 6443, true),
            ("", "127.8.0.1", 6443, true),
            ("", "::1", 6443, true),
            ("", "localhost.example", 6443, false),
        ] {
            assert_eq!(bypasses(no_proxy, host, port), bypassed, "{no_proxy:?} {host}");
        }
    }

    #[test]
    fn the_kubeconfig_wins_even_over_loopback_and_errors_keep_passwords() {
        let server = Server::parse("https://127.0.0.1:6443").expect("a server");
        let env = |_: &str| Some("*".to_owned());
        let proxy = choose(&server, Some("http://u:hunter2@proxy:1"), &env).expect("usable").expect("one");
        assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy:1 Proxy(http://proxy:1)");
        assert_eq!(choose(&server, Some(""), &env), Ok(None));
        for (url, text) in [
            (
                "socks5://u:hunter2@p:1",
                "proxy-url: a proxy with the scheme \"socks5\" is not supported, use http or https",
            ),
            ("u:hunter2@ p", "proxy-url: not the URL of a proxy, such as http://proxy:3128"),
            ("proxy:3128", "proxy-url: not the URL of a proxy, such as http://proxy:3128"),
        ] {
            assert_eq!(choose(&server, Some(url), &env).expect_err("refused").to_string(), text);
        }
    }
}
