//! A kubeconfig, as it stands in a file.

use std::path::Path;

use flock::kube::access::{Access, AccessError, Auth, Trust};
use flock::kube::kubeconfig::from_text;
use flock::kube::proxy;
use flock::kube::server::{Scheme, Server};
use model::text::decoded;

use super::assert_one_line;

/// No relative path in the text leads anywhere from here.
const PLACE: &str = "/nonexistent/kube/config";

/// Stands in the seeds for tokens, passwords and keys.
const SECRET: &str = "S3CRET";

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = decoded(data) else { return };
    match from_text(&text, Path::new(PLACE)) {
        Ok(access) => sound(&access),
        Err(error) => sound_error(&error),
    }
}

fn sound(access: &Access) {
    assert_round_trip(&access.server);
    let secret = access.certificate.is_some() || !matches!(access.auth, Auth::Nothing);
    assert!(access.server.scheme == Scheme::Https || !secret, "credentials over http");
    if let Trust::Only(authority) = &access.trust
        && authority.is_inline()
    {
        authority.read().expect("it stands in the file");
    }
    // What is printed for a person to read shows that there is a secret, and not which.
    let (login, proxy_url) = (format!("{:?}", access.auth), format!("{:?}", access.proxy_url));
    match &access.auth {
        Auth::Nothing | Auth::Token(_) | Auth::Basic(_) => assert!(!login.contains(SECRET), "{login}"),
        Auth::TokenFile { path, .. } => assert!(path.is_absolute()),
        Auth::Exec(plugin) => {
            assert!(plugin.command.is_absolute() || !plugin.command.to_string_lossy().contains('/'));
            let hidden = plugin.args.iter().chain(plugin.env.iter().map(|(_, value)| value));
            let shown = plugin.command.to_string_lossy();
            assert!(hidden.filter(|text| text.len() > 3).all(|text| shown.contains(text) || !login.contains(text)));
        }
    }
    assert!(!proxy_url.contains(SECRET), "{proxy_url}");
    if let Some(url) = access.proxy_url.as_ref().and_then(|url| std::str::from_utf8(url.expose()).ok()) {
        match proxy::choose(&access.server, Some(url), &|_| None) {
            Ok(proxy) => assert!(proxy.is_some()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // Nor can any text make the choice of a proxy stumble.
    let name = access.tls_server_name.clone().unwrap_or_default();
    let environment = |variable: &str| match variable {
        "HTTPS_PROXY" | "HTTP_PROXY" => Some("http://proxy:3128".to_owned()),
        "NO_PROXY" => Some(name.clone()),
        _ => None,
    };
    proxy::choose(&access.server, None, &environment).expect("a good proxy");
}

/// What is printed for a person can be given back as it is.
fn assert_round_trip(server: &Server) {
    assert!(!server.host.is_empty() && server.port != 0 && !server.path.ends_with('/'), "{server:?}");
    assert!(server.path.is_empty() || server.path.starts_with('/'), "{server:?}");
    assert_eq!(Server::parse(&server.to_string()).as_ref(), Some(server));
}

fn sound_error(error: &AccessError) {
    let text = error.to_string();
    assert!(!text.is_empty());
    match error {
        AccessError::Unreadable { message, .. } => {
            assert_one_line(message, 1024);
            assert!(!message.contains(SECRET), "{message}");
        }
        AccessError::Field { field, .. } => assert!(text.contains(field), "which field? {text}"),
        AccessError::Read { .. } => {}
        AccessError::NotInPod(_) | AccessError::BadAddress => panic!("a file has nothing to do with pods: {text}"),
    }
}
