//! The URL of the API server, taken apart and put together again.
//!
//! Must not connect to it, and never holds a user or a password.

use std::fmt;

use ureq::http::Uri;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
