//! The network configuration on standard input, read for every verb.

use cni::error::{Code, Error};
use cni::netconf::{NAME_MAX, NetConf, SOCKET_MAX, ValidAttachments, outline, parse, version_of};
use cni::verb::Verb;
use cni::version::{Version, answer};
use serde_json::Value;

use super::assert_fit_for_a_runtime;

/// Stands in the seeds where a value is nobody's business.
const SECRET: &str = "S3CRET";

pub(crate) fn check(data: &[u8]) {
    let outcomes = Verb::ALL.map(|command| {
        let outcome = parse(data, command);
        match &outcome {
            Ok(conf) => sound(conf, data, command),
            Err(error) => sound_error(error, data),
        }
        match (outline(data, command), &outcome) {
            (Ok(plugin), Ok(agent)) => {
                assert_eq!((plugin.version, &plugin.name, &plugin.socket), (agent.version, &agent.name, &agent.socket));
            }
            // The plugin finds no fault with what only the agent reads.
            (Ok(_), Err(error)) => assert_eq!(error.code(), Code::Decode, "{error}"),
            (Err(plugin), agent) => assert_eq!(Err(&plugin), agent.as_ref()),
        }
        outcome
    });
    let [add, del, check, gc, status, _] = &outcomes;
    for (other, command) in [(add, "ADD"), (check, "CHECK"), (gc, "GC"), (status, "STATUS")] {
        assert!(del.is_ok() || other.is_err(), "{command} reads what DEL refuses: {del:?}");
    }
    if let Ok(conf) = del {
        assert_eq!(version_of(data), Some(conf.version));
    }
    assert_the_spelling_makes_no_difference(data, &outcomes);
    assert_version_is_answered(data);
}

fn sound(conf: &NetConf, data: &[u8], command: Verb) {
    assert!(conf.version.supports(command));
    assert!((1..=NAME_MAX).contains(&conf.name.len()));
    assert!(conf.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)), "{:?}", conf.name);
    if let Some(socket) = &conf.socket {
        assert!(socket.starts_with('/') && socket.len() <= SOCKET_MAX && !socket.contains('\0'), "{socket:?}");
    }
    assert_eq!(conf.expected_state().is_ok(), conf.prev_result.is_some());
    match command {
        Verb::Check => assert!(conf.prev_result.is_some()),
        Verb::Del => {}
        _ => assert_eq!(conf.prev_result, None),
    }
    let told = conf.annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    assert!(told <= data.len());
    if let ValidAttachments::Set { valid, ignored, examples } = &conf.valid_attachments {
        assert_eq!(command, Verb::Gc);
        assert!(valid.len() + ignored <= data.len() && examples.len() <= 8 && examples.len() <= *ignored);
        for example in examples {
            super::assert_one_line(example, 1024);
        }
    }
}

fn sound_error(error: &Error, data: &[u8]) {
    assert!(matches!(error.code(), Code::Decode | Code::IncompatibleVersion | Code::InvalidConfig), "{error}");
    assert_fit_for_a_runtime(error);
    // Names, versions and the socket are shown; of everything else a text says only where it is.
    if error.to_string().contains(SECRET) {
        let whole: Value = serde_json::from_slice(data).expect("a value that is shown was read");
        let shown = ["cniVersion", "name", "socket"].map(|key| whole[key].as_str().unwrap_or_default().to_owned());
        assert!(shown.iter().any(|text| text.contains(SECRET)), "{error}");
    }
}

/// The same content, written by another program, is the same configuration.
fn assert_the_spelling_makes_no_difference(data: &[u8], outcomes: &[Result<NetConf, Error>; 6]) {
    // What serde_json's own tree refuses (a number beyond all bounds, half a surrogate) may stand where nobody looks.
    let Ok(tree) = serde_json::from_slice::<Value>(data) else { return };
    let respelled = serde_json::to_vec_pretty(&tree).expect("a tree can be written");
    for (command, outcome) in Verb::ALL.into_iter().zip(outcomes) {
        match (parse(&respelled, command), outcome) {
            (Ok(one), Ok(other)) => {
                // DEL forgives a prevResult that cannot be read, and of two equal keys in it the tree keeps one.
                let forgiven = command == Verb::Del && other.prev_result.is_none();
                let other = other.clone();
                assert_eq!(if forgiven { NetConf { prev_result: None, ..one } } else { one }, other);
            }
            // The place of a fault moves, of course.
            (Err(one), Err(other)) => assert_eq!(one.code(), other.code()),
            // The last of equal keys wins, but each of them is looked at: a fault in an earlier one counts.
            (Ok(_), Err(_)) => {}
            (Err(error), Ok(_)) => panic!("{command} reads it only as it was spelt: {error}"),
        }
    }
}

fn assert_version_is_answered(data: &[u8]) {
    let said: Value = serde_json::from_str(&answer(data)).expect("VERSION answers in JSON");
    assert_eq!(said["supportedVersions"], serde_json::json!(Version::ALL.map(Version::as_str)));
    let echoed = said["cniVersion"].as_str().expect("a version");
    assert!(echoed.len() <= 14 && echoed.bytes().all(|b| b.is_ascii_digit() || b == b'.'), "{echoed:?}");
}
