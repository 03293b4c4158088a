//! Stories of Events: what `kubectl describe` shows of a node that an operator should see to, how often, and what becomes of it
//! where the agent may not write any.

use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::waiting::wait_or;
use crate::{agent_of, condition, wait_condition};

/// The Events that the agent has written, oldest first: reason, namespace, what of, note.
fn events(plane: &ControlPlane<'_>) -> Vec<[String; 4]> {
    let shown = plane.run(
        "get events.events.k8s.io -A -o json --field-selector reportingController=flock.fritzlab.net/agent --sort-by=.eventTime",
    );
    let list: Value = serde_json::from_str(&shown).expect("JSON");
    let text = |event: &Value, path: &str| event.pointer(path).and_then(Value::as_str).expect(path).to_owned();
    let of =
        |event: &Value| ["/reason", "/metadata/namespace", "/regarding/name", "/note"].map(|path| text(event, path));
    list["items"].as_array().expect("a list").iter().map(of).collect()
}

fn reasons(plane: &ControlPlane<'_>) -> Vec<String> {
    events(plane).into_iter().map(|[reason, ..]| reason).collect()
}

/// Waits until these are all Events, by their reasons.
#[track_caller]
fn wait_reasons(plane: &ControlPlane<'_>, expected: &[&str]) {
    wait_or(|| format!("{:#?} instead of {expected:?}", events(plane)), || (reasons(plane) == expected).then_some(()));
}

/// ADD of a pod with an annotation that means nothing. Its Event comes after all that was to be told of the node before.
fn add_misspelt(host: &Host, name: &str) {
    let pod = host.pod(name);
    let args = format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}");
    host.add(&pod).env("CNI_ARGS", args).annotations(&[("ipv-4", "false")]).result();
}

// covers: FM-U03
#[test]
fn what_no_pod_shows_is_an_event_of_the_node_once_also_over_a_restart() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane
        .apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "host001"}}).to_string())
        .expect("accepted");
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    let agent = agent_of(&host, &plane);
    agent.wait_log("NodeConfig in force");
    // The host is prepared with the first pod, and that the node serves is told then.
    host.add(&host.pod("first")).annotations(&[]).result();
    wait_reasons(&plane, &["FlockServing"]);
    add_misspelt(&host, "a");
    wait_reasons(&plane, &["FlockServing", "FlockAnnotationIgnored"]);
    let all = events(&plane);
    let serving = format!("serving {CIDR6} and {CIDR4} (agent {})", env!("CARGO_PKG_VERSION"));
    assert_eq!(all[0][1..], ["default", "host001", &serving]);
    assert_eq!(all[1][1..3], ["default", "a"]);
    assert!(all[1][3].starts_with("annotation \"flock.fritzlab.net/ipv-4\" is ignored: "), "{all:?}");

    plane.apply(&node_config("ff02:1::/64", CIDR4)).expect("well-formed");
    wait_reasons(&plane, &["FlockServing", "FlockAnnotationIgnored", "FlockNodeConfigInvalid"]);
    let (.., message) = condition(&plane, "Valid").expect("a condition");
    assert_eq!(events(&plane)[2][3], wait_condition(&plane, "Valid", "False", "Invalid"), "{message}");
    let described = plane.run("describe node host001");
    for words in
        ["FlockNodeConfigInvalid", "generation 2 is ignored, and the last good one stays in force", "FlockServing"]
    {
        assert!(described.contains(words), "{described}");
    }
    agent.stop();

    // The mistake is still there, and so is what is served.
    let agent = agent_of(&host, &plane);
    agent.wait_log("NodeConfig is not valid");
    add_misspelt(&host, "b");
    let told = ["FlockServing", "FlockAnnotationIgnored", "FlockNodeConfigInvalid", "FlockAnnotationIgnored"];
    wait_reasons(&plane, &told);

    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    wait_condition(&plane, "Valid", "True", "Accepted");
    add_misspelt(&host, "c");
    wait_reasons(&plane, &[&told[..], &["FlockAnnotationIgnored"]].concat());

    // Another range, of which one address is free.
    plane.apply(&node_config("", "10.26.0.0/30")).expect("accepted");
    agent.wait_log("cidr4=10.26.0.0/30");
    let last = host.pod("last");
    host.add(&last).annotations(&[]).result();
    let said = |text: &str| events(&plane).iter().any(|event| event[3].starts_with(text));
    for text in ["serving 10.26.0.0/30 (agent ", "no IPv4 address is free, "] {
        wait_or(|| format!("{:#?}", events(&plane)), || said(text).then_some(()));
    }
    assert!(!agent.log().contains("Events cannot"), "{}", agent.log());
    agent.stop();
}

// covers: FM-U10
#[test]
fn an_agent_that_may_not_write_events_says_so_once_and_does_everything_else() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    let role: Value = serde_json::from_str(&plane.run("get clusterrole flock-agent -o json")).expect("JSON");
    let set = |rules: &Value| {
        let object = json!({"apiVersion": role["apiVersion"], "kind": "ClusterRole", "metadata": {"name": "flock-agent"}, "rules": rules});
        std::fs::write(host.path("/run/k8s/role.json"), object.to_string()).expect("writable");
        plane.run("replace -f /run/k8s/role.json");
    };
    let mut rules = role["rules"].as_array().expect("a list").clone();
    rules.retain(|rule| rule["resources"][0] != "events");
    assert_eq!(rules.len() + 1, role["rules"].as_array().expect("a list").len());
    set(&json!(rules));
    plane.apply(&node_config("ff02:1::/64", CIDR4)).expect("well-formed");
    let agent = agent_of(&host, &plane);
    let line = agent.wait_log("Events cannot be written");
    assert!(line.contains("allow the verb create on the resource events of apiGroup events.k8s.io"), "{line}");
    wait_condition(&plane, "Valid", "False", "Invalid");
    plane.apply(&node_config(CIDR6, CIDR4)).expect("accepted");
    wait_condition(&plane, "Ready", "True", "Serving");
    add_misspelt(&host, "a");
    wait_or(
        || host.types("status -o prometheus").out,
        || {
            // The Events of the mistake, of what is served and of the pod.
            let page = host.types("status -o prometheus").out;
            page.contains("flock_kube_requests_total{verb=\"create\",code=\"403\"} 3\n").then_some(())
        },
    );
    assert_eq!(agent.log().matches("Events cannot be written").count(), 1, "{}", agent.log());
    assert!(reasons(&plane).is_empty());

    // What was lost stays lost, and what comes is told.
    set(&role["rules"]);
    wait_or(
        || agent.log(),
        || {
            let who = [
                "auth",
                "can-i",
                "create",
                "events.events.k8s.io",
                "--as=system:serviceaccount:kube-system:flock-agent",
            ];
            plane.kubectl(&who).status.success().then_some(())
        },
    );
    plane.apply(&node_config("ff02:2::/64", CIDR4)).expect("well-formed");
    wait_reasons(&plane, &["FlockNodeConfigInvalid"]);
    agent.wait_log("Events are written again");
    agent.stop();
}
