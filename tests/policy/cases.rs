//! All cases that cyclonus generates, with packets. Between two cases the cluster is put back, so that each begins with nine pods
//! and no policy, as the case expects; the change from one to the next is made in one step, as everything else is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::cluster::{Labels, key};
use super::compare::{Asked, assert_agreement};
use super::cyclonus::{Case, Cyclonus, cases};
use super::policed::Policed;
use super::support::host::Host;
use super::support::share::share;

#[test]
fn all_cases_of_cyclonus_for_addresses_of_ipv4() {
    try_all("cyclonus, IPv4", |addresses| cases(addresses[0]));
}

/// Most cases name no address, and their packets are of both families anyway.
#[test]
fn the_cases_of_cyclonus_that_name_addresses_for_ipv6() {
    try_all("cyclonus, IPv6", |addresses| {
        let of_ipv4 = cases(addresses[0]);
        let differs = |(case, other): &(Case, Case)| case.steps != other.steps;
        cases(addresses[1]).into_iter().zip(of_ipv4).filter(differs).map(|(case, _)| case).collect()
    });
}

fn try_all(story: &str, cases: impl Fn(&[IpAddr]) -> Vec<Case>) {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let mut cyclonus = Cyclonus::start();
    let cases = cases(&policed.neighbours.ips("z", "c"));
    assert!(!cases.is_empty());
    let first = policed.cluster().clone();
    // A name may be that of several cases, and addresses differ from run to run.
    let names: Vec<(usize, String)> = cases.iter().map(|case| case.name.clone()).enumerate().collect();
    for (number, name) in share(story, names) {
        *policed.cluster() = first.clone();
        for (step, actions) in cases[number].steps.iter().enumerate() {
            actions.iter().for_each(|action| act(&mut policed, action));
            policed.enforce();
            let when = format!("{story}: case {number}, {name}, step {}", step + 1);
            assert_agreement(&when, &mut policed.neighbours, &mut cyclonus, Asked::All);
        }
        // Whoever a case has left behind.
        let left = policed.neighbours.pods.keys().filter(|key| !first.pods.contains_key(*key));
        for (namespace, name) in left.cloned().collect::<Vec<_>>() {
            policed.neighbours.detach(&namespace, &name);
        }
    }
}

/// Does what one action says.
fn act(policed: &mut Policed<'_>, action: &Value) {
    let (kind, action) =
        action.as_object().into_iter().flatten().find(|(_, value)| !value.is_null()).expect("an action");
    let text = |field: &str| action[field].as_str().unwrap_or_default();
    let labels = || -> Labels {
        let pairs = action["Labels"].as_object().into_iter().flatten();
        pairs
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let (namespace, pod) = (text("Namespace"), text("Pod"));
    match kind.as_str() {
        "CreatePolicy" | "UpdatePolicy" => policed.cluster().set_policy(action["Policy"].clone()),
        "DeletePolicy" => {
            policed.cluster().policies.remove(&key(namespace, text("Name"))).expect("it was there");
        }
        "CreateNamespace" | "SetNamespaceLabels" => policed.cluster().set_namespace(namespace, labels()),
        "DeleteNamespace" => {
            let gone: Vec<_> = policed.neighbours.pods.keys().filter(|key| key.0 == namespace).cloned().collect();
            gone.iter().for_each(|(namespace, name)| policed.neighbours.detach(namespace, name));
            policed.cluster().policies.retain(|key, _| key.0 != namespace);
            policed.cluster().namespaces.remove(namespace).expect("it was there");
        }
        "CreatePod" => {
            policed.neighbours.introduce(namespace, pod);
            policed.cluster().pods.get_mut(&key(namespace, pod)).expect("introduced").labels = labels();
            // The cluster knows a pod before its node makes it.
            policed.enforce();
            policed.neighbours.attach(namespace, pod);
        }
        "SetPodLabels" => policed.cluster().pods.get_mut(&key(namespace, pod)).expect("it is there").labels = labels(),
        "DeletePod" => policed.neighbours.detach(namespace, pod),
        other => panic!("what is to be done at {other}?"),
    }
}
