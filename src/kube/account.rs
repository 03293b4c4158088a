//! The account that Kubernetes puts into a pod, as a way to the API server.
//!
//! Names its files, which kubelet renews. Must not keep what stands in them; the token is read once, to see whether there is an
//! account at all.

use std::path::Path;

use crate::kube::access::{Access, AccessError, Auth, Trust};
use crate::kube::pem::Pem;
use crate::kube::secret::Secret;
use crate::kube::server::Server;

/// Where Kubernetes puts the account of a pod, below the root directory.
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

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
    Secret::in_file(&path).map_err(|error| AccessError::Read { path: path.clone(), error })?;
    Ok(Access {
        server,
        tls_server_name: None,
        trust: Trust::Only(Pem::file(account.join("ca.crt"))),
        certificate: None,
        auth: Auth::TokenFile { path, until_read: None },
        proxy_url: None,
        kubeconfig: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(access.auth, Auth::TokenFile { path, .. } if path == root.join(ACCOUNT).join("token")));
        std::fs::remove_dir_all(root).expect("removable");
    }
}
