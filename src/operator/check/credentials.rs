//! What the agent shows the API server: whether it can be used, and when it ends.
//!
//! Must not print a secret, run a plugin of the kubeconfig, or talk to the server.

use std::path::Path;
use std::time::SystemTime;

use crate::kube::credentials::CredentialsError;
use crate::kube::expiry::Nearness;
use crate::kube::{credentials, explained, kubeconfig};
use crate::operator::check::finding::{Area, Finding};

/// How it is with the credentials of this kubeconfig at this time.
pub fn look(path: &Path, now: SystemTime) -> Vec<Finding> {
    let access = match kubeconfig::from_file(path) {
        Ok(access) => access,
        Err(error) => return vec![Finding::fail(Area::Credentials, explained(&error))],
    };
    let (expiries, unusable) = credentials::look(&access);
    if expiries.is_empty() && unusable.is_empty() {
        return vec![Finding::ok(
            Area::Credentials,
            format!("nothing that {} names has an end that can be read", path.display()),
        )];
    }
    let said = |expiry: &crate::kube::expiry::Expiry| match expiry.nearness(now) {
        Nearness::Far => Finding::ok(Area::Credentials, expiry.to_string()),
        Nearness::Soon => Finding::warn(Area::Credentials, expiry.to_string()).cured_by(expiry.remedy()),
        Nearness::Past => {
            let what = format!("{expiry}, which is over: the API server does not believe it any more");
            Finding::fail(Area::Credentials, what).cured_by(expiry.remedy())
        }
    };
    let lost = |error: &CredentialsError| Finding::fail(Area::Credentials, explained(error));
    unusable.iter().map(lost).chain(expiries.iter().map(said)).collect()
}
