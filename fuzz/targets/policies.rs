//! A file of policies, namespaces and pods: what can be read of it becomes a table that the kernel takes, and what cannot is told
//! in one line each. Read as the directory's files are, object by object.

use flock::kube::policy_objects::{PodReader, policy};
use model::addr::IfName;
use model::guard::FILTER;
use model::policy::compile::{Settings, compile};
use model::policy::select::Labels;
use model::policy::{PodKey, Subject, Treatment, World, spec};
use model::ruleset::diff::{apply, diff};
use model::ruleset::{NAME_MAX, Ruleset};
use model::text;
use serde_json::Value;
use serde_json::value::to_raw_value;

use super::assert_one_line;

/// A line of the log has room for more, and an operator for less.
const REASON_MAX: usize = 2048;

pub(crate) fn check(data: &[u8]) {
    let Ok(decoded) = text::decoded(data) else { return };
    let Ok(documents) = text::documents::<Value>(&decoded) else { return };
    let (mut world, reader) = (World::default(), PodReader::default());
    for object in documents.iter().take(64) {
        match policy(object) {
            Ok((key, read)) => {
                assert!(!key.0.is_empty() && !key.1.is_empty() && read.faults.len() <= spec::FAULTS_MAX);
                read.faults.iter().for_each(|fault| assert_one_line(fault, REASON_MAX));
                world.policies.insert(key, read.policy);
            }
            Err(why) => assert_one_line(&why, REASON_MAX),
        }
        if let (Ok((namespace, name)), Ok(raw)) = (spec::identity(object), to_raw_value(object))
            && let Ok(Some(pod)) = reader.pod(&raw)
        {
            world.namespaces.insert(namespace.clone(), Labels::default());
            world.pods.insert(PodKey { namespace: namespace.into(), name }, pod.into());
        }
    }
    let treatments = [Treatment::Enforce, Treatment::Audit, Treatment::Quarantine];
    let links = (0..).map_while(|number| format!("flock{number}").parse::<IfName>().ok());
    let subjects: Vec<Subject> = links
        .zip(&world.pods)
        .zip(treatments.into_iter().cycle())
        .map(|((link, (key, pod)), treatment)| Subject {
            link,
            pod: Some(key.clone()),
            addresses: pod.addresses.clone(),
            treatment,
        })
        .collect();
    let settings = Settings { mask: 0x7fff_0000, epoch: Some(0x1_0000), seals: true, log: None };
    let compiled = compile(&world, &subjects, &settings);
    let table = compiled.table();
    let names = table.sets.keys().chain(table.maps.keys()).chain(table.chains.keys());
    names.for_each(|name| assert!(!name.is_empty() && name.len() <= NAME_MAX, "{name}"));
    let wanted = Ruleset::from([(FILTER, table.clone())]);
    let mut kernel = Ruleset::new();
    apply(&mut kernel, &diff(&wanted, &Ruleset::new())).expect("the kernel takes it");
    assert_eq!(kernel, wanted);
}
