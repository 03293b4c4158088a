//! Exec credential plugins: a program that prints a token, a client certificate, or both.
//!
//! The program has a deadline, its output is bounded, and what it printed never becomes part of an error. Its standard error is
//! the agent's own, as with every other Kubernetes client. Must not keep what was printed; `credentials` does.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::kube::access::ExecPlugin;
use crate::kube::dates;
use crate::kube::pem::Origin;
use crate::kube::secret::Secret;
use crate::process::program::{self, ProgramError, RunLimits};
use crate::process::shutdown::Stop;
use model::text::{self, TextError};

/// Longest output that is read, 256 KiB: more than a token and a long certificate chain.
const OUTPUT_MAX: usize = 256 << 10;

/// Longest install hint that is shown, in characters.
const HINT_MAX: usize = 300;

/// What a plugin printed.
#[derive(Clone)]
pub(super) struct PluginOutput {
    pub(super) token: Option<Secret>,
    pub(super) pair: Option<(Secret, Secret)>,
    pub(super) expires: Option<SystemTime>,
}

/// A plugin that did not help.
#[derive(Debug)]
pub struct PluginError {
    /// The program.
    pub command: PathBuf,
    /// What went wrong.
    pub problem: PluginProblem,
    /// How to get the program, in the words of the kubeconfig's author.
    pub install_hint: Option<String>,
}

/// What went wrong with a plugin.
#[derive(Debug)]
pub enum PluginProblem {
    /// The program could not be run, or did not print anything to the end.
    Program(ProgramError),
    /// The plugin could not be told about the cluster: the authorities cannot be read.
    Authorities(Origin, io::Error),
    /// The plugin did not print an ExecCredential; the line and column that are wrong, if known.
    NotACredential(Option<(usize, usize)>),
    /// The credential is of another kind or version than was asked for.
    OtherVersion,
    /// There is neither a token nor a certificate with its key in it.
    Nothing,
    /// When it expires is not a date.
    BadExpiry,
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exec plugin {}: ", self.command.display())?;
        match &self.problem {
            PluginProblem::Program(error) => {
                write!(f, "{error}")?;
                match (error, &self.install_hint) {
                    (ProgramError::Io(_), Some(hint)) => {
                        let hint: String = hint.chars().take(HINT_MAX).collect();
                        write!(f, " (hint in the kubeconfig: {hint:?})")
                    }
                    _ => Ok(()),
                }
            }
            PluginProblem::Authorities(origin, _) => {
                write!(f, "needs to know the authorities, and cannot read {origin}")
            }
            PluginProblem::NotACredential(Some((line, column))) => {
                write!(f, "did not print an ExecCredential (line {line}, column {column} of its output)")
            }
            PluginProblem::NotACredential(None) => f.write_str("did not print an ExecCredential"),
            PluginProblem::OtherVersion => f.write_str("answered with another kind or version than was asked for"),
            PluginProblem::Nothing => f.write_str("printed neither a token nor a certificate with its key"),
            PluginProblem::BadExpiry => f.write_str("printed an expirationTimestamp that is not a date"),
        }
    }
}

impl std::error::Error for PluginError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            PluginProblem::Program(error) => error.source(),
            PluginProblem::Authorities(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Runs a plugin and reads what it says.
pub(super) fn run(plugin: &ExecPlugin, limit: Duration, stop: &Stop) -> Result<PluginOutput, PluginError> {
    let said = output(plugin, limit, stop).and_then(|output| credential(&output, &plugin.api_version));
    said.map_err(|problem| PluginError {
        command: plugin.command.clone(),
        problem,
        install_hint: plugin.install_hint.clone(),
    })
}

fn output(plugin: &ExecPlugin, limit: Duration, stop: &Stop) -> Result<Vec<u8>, PluginProblem> {
    let mut spec = json!({ "interactive": false });
    if let (Some(cluster), Some(spec)) = (&plugin.cluster, spec.as_object_mut()) {
        let mut cluster = cluster.clone();
        if let (Some(authorities), Some(cluster)) = (&plugin.authorities, cluster.as_object_mut()) {
            let bytes = authorities.read();
            let bytes = bytes.map_err(|error| PluginProblem::Authorities(authorities.origin().clone(), error))?;
            cluster.insert("certificate-authority-data".into(), STANDARD.encode(bytes.expose()).into());
        }
        spec.insert("cluster".into(), cluster);
    }
    let told = json!({ "apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec });
    program::output(
        &plugin.command,
        |command| {
            command.args(&plugin.args).envs(plugin.env.iter().map(|(name, value)| (name, value)));
            command.env("KUBERNETES_EXEC_INFO", told.to_string());
        },
        b"",
        RunLimits { time: limit, output: OUTPUT_MAX },
        stop,
    )
    .map_err(PluginProblem::Program)
}

fn credential(output: &[u8], api_version: &str) -> Result<PluginOutput, PluginProblem> {
    // JSON, or YAML as with every other client. The reader's own message quotes what it read.
    let text = text::decoded(output).map_err(|_| PluginProblem::NotACredential(None))?;
    let place = |error: TextError| match error {
        TextError::Yaml(error) => error.location().map(|place| (place.line(), place.column())),
        TextError::Merged(_) | TextError::ManyDocuments | TextError::TooMany | TextError::Encoding(_) => None,
    };
    let read: Option<Value> = text::document(&text).map_err(|error| PluginProblem::NotACredential(place(error)))?;
    let credential = read.filter(Value::is_object).ok_or(PluginProblem::NotACredential(None))?;
    let some = |place: &str| match credential.pointer(place) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(PluginProblem::NotACredential(None)),
    };
    if (some("/kind")?, some("/apiVersion")?) != (Some("ExecCredential"), Some(api_version)) {
        return Err(PluginProblem::OtherVersion);
    }
    let secret = |place: &str| some(place).map(|text| text.map(Secret::new));
    let token = secret("/status/token")?;
    let pair = match (secret("/status/clientCertificateData")?, secret("/status/clientKeyData")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) if token.is_some() => None,
        _ => return Err(PluginProblem::Nothing),
    };
    let expires = some("/status/expirationTimestamp")?;
    let expires = expires.map(|text| dates::rfc3339(text).ok_or(PluginProblem::BadExpiry)).transpose()?;
    Ok(PluginOutput { token, pair, expires })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn plugin(script: &str) -> ExecPlugin {
        ExecPlugin {
            command: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("WORD".into(), "hunter2".into())],
            api_version: "client.authentication.k8s.io/v1".into(),
            install_hint: Some("get it".into()),
            cluster: Some(json!({ "server": "https://h" })),
            authorities: None,
        }
    }

    fn said(script: &str) -> Result<PluginOutput, String> {
        let said = run(&plugin(script), Duration::from_secs(10), &Stop::default());
        said.map_err(|error| error.to_string())
    }

    #[test]
    fn a_plugin_hears_about_the_cluster_and_answers() {
        let script = r#"
            case $KUBERNETES_EXEC_INFO in *'"interactive":false'*) ;; *) exit 3;; esac
            case $KUBERNETES_EXEC_INFO in *'"cluster":{"server":"https://h"}'*) ;; *) exit 4;; esac
            printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","new":1,"status":'
            printf '{"token":"%s","expirationTimestamp":"2026-11-24T00:00:00Z"}}' "$WORD""#;
        let said = said(script).expect("good");
        assert_eq!(said.token.expect("a token").expose(), b"hunter2");
        assert!(said.pair.is_none() && said.expires.is_some());
    }

    #[test]
    fn what_goes_wrong_is_said_without_secrets() {
        let status = |status: &str| {
            format!(
                r#"echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}'"#
            )
        };
        for (script, want) in [
            ("echo $WORD".to_owned(), "did not print an ExecCredential"),
            ("echo \"{$WORD\"".to_owned(), "did not print an ExecCredential (line 2, column 1 of its output)"),
            ("exit 7".to_owned(), "failed with exit status: 7"),
            ("kill -9 $$".to_owned(), "failed with signal: 9 (SIGKILL)"),
            ("yes $WORD".to_owned(), "printed more than 262144 bytes"),
            (
                r#"echo '{"apiVersion":"v1","kind":"hunter2"}'"#.to_owned(),
                "answered with another kind or version than was asked for",
            ),
            (status("null"), "printed neither a token nor a certificate with its key"),
            (status("{}"), "printed neither a token nor a certificate with its key"),
            (status(r#"{"clientKeyData":"hunter2"}"#), "printed neither a token nor a certificate with its key"),
            (
                status(r#"{"token":"hunter2","clientKeyData":"hunter2"}"#),
                "printed neither a token nor a certificate with its key",
            ),
            (
                status(r#"{"token":"hunter2","expirationTimestamp":"soon"}"#),
                "printed an expirationTimestamp that is not a date",
            ),
        ] {
            let text = said(&script).err().expect("refused");
            assert_eq!(text, format!("exec plugin /bin/sh: {want}"));
        }
        let absent = ExecPlugin { command: "/nowhere/hunter".into(), ..plugin("") };
        let error = run(&absent, Duration::from_secs(1), &Stop::default()).err().expect("refused");
        assert_eq!(
            error.to_string(),
            "exec plugin /nowhere/hunter: cannot be run (hint in the kubeconfig: \"get it\")"
        );
    }

    #[test]
    fn a_long_install_hint_is_cut() {
        let absent = ExecPlugin { command: "/nowhere".into(), install_hint: Some("é\n".repeat(5000)), ..plugin("") };
        let error = run(&absent, Duration::from_secs(1), &Stop::default()).err().expect("refused").to_string();
        assert!(error.chars().count() < 600 && error.contains(r"é\né"), "{error}");
    }

    // covers: FM-E08
    #[test]
    fn a_plugin_that_hangs_is_ended_and_so_are_its_children() {
        let error = run(&plugin("cat /dev/zero | wc; true"), Duration::from_millis(200), &Stop::default());
        assert!(matches!(error.err().expect("refused").problem, PluginProblem::Program(ProgramError::TooSlow(_))));
    }

    #[test]
    fn a_program_left_behind_is_not_waited_for() {
        // The token says which process it is, so that nothing outlives the test and holds its output.
        let script = r#"sleep 60 & echo "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"$!\"}}""#;
        let started = Instant::now();
        let token = said(script).expect("good").token.expect("a token");
        let left = std::str::from_utf8(token.expose()).expect("text").parse().expect("a number");
        let left = rustix::process::Pid::from_raw(left).expect("a process");
        rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("it still runs");
        assert!(started.elapsed() < Duration::from_secs(9));
    }

    #[test]
    fn shutdown_ends_a_plugin() {
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| run(&plugin("cat /dev/zero > /dev/null"), Duration::from_secs(60), &stop));
            stop.stop();
            let error = running.join().expect("no panic").err().expect("refused");
            assert!(matches!(error.problem, PluginProblem::Program(ProgramError::Stopped)), "{error}");
        });
        assert!(matches!(said("true"), Err(text) if text.ends_with("did not print an ExecCredential")));
    }
}
