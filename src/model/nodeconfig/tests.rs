//! What becomes of good manifests, and which of the bad ones are refused in which words.

use super::*;
use crate::tree::VALUES_MAX;

const HEAD: &str = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: host001}\n";
const CIDR6: &str = "2001:db8:1:f001::/64";

fn spec(spec: &str) -> Result<NodeConfig, ConfigError> {
    parse(format!("{HEAD}spec: {spec}\n"))
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

#[test]
fn a_node_without_a_node_config_has_the_ranges_that_kubernetes_gives_it() {
    let of =
        |cidrs: &[&str]| of_pod_cidrs("host-1.example", &cidrs.iter().map(ToString::to_string).collect::<Vec<_>>());
    for (cidrs, cidr6, cidr4) in [
        (&["10.244.1.0/24"][..], None, Some("10.244.1.0/24")),
        (&["fd00:10:244:1::/64"], Some("fd00:10:244:1::/64"), None),
        (&["10.244.1.0/24", "fd00:10:244:1::/64"], Some("fd00:10:244:1::/64"), Some("10.244.1.0/24")),
        (&["10.244.1.0/24", "10.244.2.0/24"], None, Some("10.244.1.0/24")),
    ] {
        let (config, manifest) = of(cidrs).expect("usable");
        let shown = (config.cidr6.map(|net| net.to_string()), config.cidr4.map(|net| net.to_string()));
        assert_eq!((shown.0.as_deref(), shown.1.as_deref()), (cidr6, cidr4));
        assert_eq!((config.defaults.ipv6, config.defaults.ipv4), (cidr6.is_some(), cidr4.is_some()));
        assert_eq!(parse(&manifest), Ok(config), "{manifest}");
    }
    for (cidrs, words) in [
        (&["10.244.1.0/31"][..], ["spec.podCIDRs: \"10.244.1.0/31\"", "too small"]),
        (&["10.244.1.0/24", "::ffff:0:0/96"], ["spec.podCIDRs: \"::ffff:0:0/96\"", "is an IPv4 prefix"]),
        (&["10.244.1.0"], ["spec.podCIDRs: \"10.244.1.0\"", "has no prefix length"]),
    ] {
        let text = of(cidrs).expect_err("refused");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    assert!(of(&[]).expect_err("refused").contains("cidr6"));
}

#[test]
fn what_a_node_does_with_routes_is_said_in_its_own_fields() {
    let plain = spec("{cidr4: 10.0.0.0/24}").expect("valid");
    assert_eq!((plain.peers, plain.extra_prefixes.len(), plain.proxy_neighbours), (None, 0, None));
    let all = spec(
        "{cidr4: 10.0.0.0/24, peers: direct, extraPrefixes: ['2001:db8:f::/48', 203.0.113.0/28], proxyNeighbours: eth0}",
    )
    .expect("valid");
    assert_eq!(all.peers, Some(Peers::Direct));
    let shown: Vec<String> = all.extra_prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["2001:db8:f::/48", "203.0.113.0/28"]);
    assert_eq!(all.proxy_neighbours.as_ref().map(IfName::as_str), Some("eth0"));
    assert_eq!(spec("{cidr4: 10.0.0.0/24, peers: none}").expect("valid").peers, Some(Peers::None));
    let many: Vec<String> = (0..65).map(|n| format!("10.1.{n}.0/24")).collect();
    for (fields, expected) in [
        ("peers: Direct", "spec.peers: \"Direct\" must be direct or none"),
        ("peers: ''", "spec.peers: \"\" must be direct or none"),
        (
            "extraPrefixes: [10.1.0.1/24]",
            "line 4: spec.extraPrefixes[0]: \"10.1.0.1/24\" has bits set behind the prefix length (did you mean 10.1.0.0/24?)",
        ),
        ("extraPrefixes: [10.1.0.1]", "spec.extraPrefixes[0]: \"10.1.0.1\" has no prefix length"),
        (
            "extraPrefixes: ['fe80::/64']",
            "spec.extraPrefixes[0]: \"fe80::/64\" overlaps the link-local range fe80::/10",
        ),
        ("extraPrefixes: [10.1.0.0/24, 10.1.0.0/24]", "spec.extraPrefixes[1]: \"10.1.0.0/24\" stands there twice"),
        (
            &format!("extraPrefixes: [{}]", many.join(",")),
            "spec.extraPrefixes has 65 entries, and at most 64 are allowed",
        ),
        ("proxyNeighbours: lo", "spec.proxyNeighbours: \"lo\" is no name of a link"),
        ("proxyNeighbours: flock12", "spec.proxyNeighbours: \"flock12\" is a pod's link"),
        ("proxyNeighbours: ../eth0", "spec.proxyNeighbours: \"../eth0\" is no name of a link"),
    ] {
        let refusal = spec(&format!("{{cidr4: 10.0.0.0/24, {fields}}}")).expect_err("must be refused").to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn a_gateway_of_pods_is_a_link_local_address_that_nobody_else_can_have() {
    let of = |text: &str| spec(&format!("{{cidr4: 10.0.0.0/24, gateway4: '{text}'}}"));
    assert_eq!(spec("{cidr4: 10.0.0.0/24}").expect("valid").gateway4, GATEWAY4);
    for good in ["169.254.1.2", "169.254.254.255", "169.254.169.253"] {
        assert_eq!(of(good).expect("valid").gateway4.to_string(), good);
    }
    for bad in ["169.254.169.254", "169.254.0.1", "169.254.255.1", "10.0.0.1", "fe80::1", "169.254.1.1/32", "", "x"] {
        let refusal = of(bad).expect_err("must be refused").to_string();
        assert!(
            refusal.starts_with(&format!("line 4: spec.gateway4: \"{bad}\" must be a link-local IPv4 address")),
            "{refusal}"
        );
    }
}

#[test]
fn a_full_manifest_becomes_a_node_config() {
    let text = "---\n\
        apiVersion: flock.fritzlab.net/v1alpha1\n\
        kind: NodeConfig\n\
        metadata:\n\
        \x20 name: host001\n\
        \x20 uid: 7b3c\n\
        \x20 generation: 4\n\
        \x20 managedFields: [{manager: kubectl, fieldsV1: {'f:spec': {}}}]\n\
        \x20 annotations:\n\
        \x20   flock.fritzlab.net/ip-algo: namespace,app,image\n\
        \x20   example.com/note: x\n\
        spec:\n\
        \x20 cidr6: 2001:db8:1:f001::/64\n\
        \x20 cidr4: 10.25.214.0/24\n\
        \x20 defaults: {ipv6: true, ipv4: false}\n\
        \x20 mtu: 1500\n\
        status: {conditions: [{type: Ready}], observedGeneration: 3}\n";
    let want = NodeConfig {
        name: "host001".into(),
        cidr6: CIDR6.parse().ok(),
        cidr4: "10.25.214.0/24".parse().ok(),
        mtu: Some(1500),
        gateway4: GATEWAY4,
        defaults: Defaults { ipv6: true, ipv4: false, ip_algo: Some("namespace,app,image".into()) },
        peers: None,
        extra_prefixes: Vec::new(),
        proxy_neighbours: None,
        bgp: None,
        policing: Policing::default(),
    };
    assert_eq!(parse(text), Ok(want));
}

#[test]
fn json_is_read_too() {
    let text = r#"{"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig",
        "metadata": {"name": "h", "annotations": null}, "spec": {"cidr4": "10.0.0.0/8", "mtu": 9000}}"#;
    let config = parse(text).expect("well-formed");
    assert_eq!((config.name.as_str(), config.cidr6, config.mtu), ("h", None, Some(9000)));
    assert_eq!(read_published(text).map(|(config, _)| config), Ok(config));
}

// What other programs write without being asked is not always YAML.
#[test]
fn json_that_a_yaml_reader_refuses_is_read() {
    let note = |key: &str, value: &str| {
        format!(
            r#"{{"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "spec": {{"cidr4": "10.0.0.0/8"}},
            "metadata": {{"name": "h", "annotations": {{"{key}": "{value}"}}}}}}"#
        )
    };
    for text in [note("bird", r"\ud83d\udc26"), note("odd", "\u{7f}\u{85}"), note(&"k".repeat(1100), "long")] {
        assert_eq!(parse(&text).map(|config| config.name).as_deref(), Ok("h"), "{text}");
    }
    let wrong = note("bird", r"\ud83d\udc26").replace("10.0.0.0", "10.0.0.1");
    assert!(refusal(&wrong).contains("spec.cidr4"), "{}", refusal(&wrong));
}

#[test]
fn defaults_are_the_families_that_the_node_has() {
    for (text, ipv6, ipv4) in [
        ("{cidr6: '2001:db8::/64', cidr4: 10.0.0.0/24}", true, true),
        ("{cidr6: '2001:db8::/64'}", true, false),
        ("{cidr4: 10.0.0.0/24}", false, true),
        ("{cidr4: 10.0.0.0/24, defaults: {ipv6: false}}", false, true),
        ("{cidr4: 10.0.0.0/24, defaults: {}}", false, true),
        ("{cidr6: '2001:db8::/64', cidr4: 10.0.0.0/24, defaults: {ipv4: false}}", true, false),
        ("{cidr4: 10.0.0.0/24, defaults: {ipv4: false}}", false, false),
    ] {
        let defaults = spec(text).expect("well-formed").defaults;
        assert_eq!((defaults.ipv6, defaults.ipv4), (ipv6, ipv4), "{text}");
    }
}

#[test]
fn a_wrong_field_is_refused_by_path_value_and_rule() {
    for (text, says) in [
        ("{}", "spec has neither cidr6 nor cidr4"),
        ("{cidr6: null}", "spec has neither"),
        ("{cidr6: '2001:db8::1/64'}", "spec.cidr6: \"2001:db8::1/64\" has bits set behind"),
        ("{cidr6: 10.0.0.0/24}", "spec.cidr6: \"10.0.0.0/24\" is an IPv4 prefix: write cidr4: 10.0.0.0/24"),
        ("{cidr4: 10.025.214.0/24}", "which some programs take for octal: write 10.25.214.0/24"),
        ("{cidr6: '2001:db8::/127'}", "the smallest range is /126"),
        ("{cidr6: '2000::/15'}", "the largest range is /16"),
        ("{cidr6: 'fe80::/64'}", "overlaps the link-local range"),
        ("{cidr4: ''}", "line 4: spec.cidr4: \"\" is not an IPv4 prefix"),
        ("{cidr4: 10.0.0.0/31}", "network, gateway and broadcast address leave nothing"),
        ("{cidr4: 10.0.0.0/32}", "the smallest range is /30"),
        ("{cidr4: 10.0.0.0/7}", "the largest range is /8"),
        ("{cidr6: '2001:db8::/64', mtu: 1279}", "spec.mtu: 1279 must be between 1280 and 65535"),
        ("{cidr4: 10.0.0.0/24, mtu: 575}", "spec.mtu: 575 must be between 576 and 65535"),
        ("{cidr4: 10.0.0.0/24, mtu: 65536}", "spec.mtu: 65536 must be"),
        ("{cidr4: 10.0.0.0/24, mtu: -1}", "spec.mtu: -1 must be"),
        ("{cidr4: 10.0.0.0/24, defaults: {ipv6: true}}", "spec.defaults.ipv6: true needs spec.cidr6, which is missing"),
        (
            "{cidr6: '2001:db8::/64', defaults: {ipv4: true}}",
            "spec.defaults.ipv4: true needs spec.cidr4, which is missing",
        ),
    ] {
        let error = spec(text).expect_err("must be refused").to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    for good in ["{cidr4: 10.0.0.0/30, mtu: 576}", "{cidr4: 10.0.0.0/8}", "{cidr6: '2001:db8::/126', mtu: 1280}"] {
        assert!(spec(good).is_ok(), "{good}");
    }
}

#[test]
fn another_kind_of_object_hears_so_first() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 3}\n";
    assert_eq!(refusal(deployment), format!("line 1: apiVersion: \"apps/v1\" must be {API_VERSION} (and 1 more)"));
    for kind in ["NodeConfigList", "List"] {
        let list = format!("apiVersion: v1\nkind: {kind}\nitems: []\n");
        assert!(refusal(&list).starts_with(&format!("line 2: kind: \"{kind}\" holds several objects: take one")));
    }
    assert!(refusal("{}").starts_with(&format!("apiVersion is missing: write apiVersion: {API_VERSION}")));
}

#[test]
fn the_name_is_required() {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nspec: {{cidr4: 10.0.0.0/24}}\n");
    assert_eq!(refusal(&text), "metadata.name is missing: write the name of the node");
}

#[test]
fn everything_that_is_wrong_is_told_and_what_is_not_there_last() {
    let text = format!("{HEAD}spec:\n  mtu: '1500'\n  cird4: x\n  cidr6: fe80::/64\n  bgp:\n    peers:\n    - {{}}\n");
    let problems: Vec<String> = parse(text).expect_err("refused").problems().map(ToString::to_string).collect();
    let begin = [
        "line 5: spec.mtu: \"1500\" is a text between quotes: write 1500, a whole number without quotes",
        "line 6: spec.cird4 is no field of a NodeConfig: did you mean cidr4?",
        "line 7: spec.cidr6: \"fe80::/64\" overlaps",
        "line 8: spec.bgp.asn is missing",
        "line 10: spec.bgp.peers[0].name is missing",
        "line 10: spec.bgp.peers[0] has neither address nor interface",
        "line 10: spec.bgp.peers[0].asn is missing",
    ];
    for (problem, begin) in problems.iter().zip(begin) {
        assert!(problem.starts_with(begin), "{problem}");
    }
    assert_eq!(problems.len(), begin.len(), "{problems:#?}");
}

#[test]
fn a_problem_has_the_line_in_which_its_field_stands() {
    for (tail, line, says) in [
        ("spec:\n  cidr4: 10.0.0.0/24\n  cird6: x\n", 6, "did you mean cidr6?"),
        ("spec:\n  cidr4: 10.0.0.0/24\n  defaults:\n    ipv7: true\n", 7, "did you mean ipv4?"),
        ("spec:\n  cidr4: 10.0.0.0/24\n  ipv4: true\n", 6, "it belongs below spec.defaults"),
        ("spec:\n  cidr4: 10.0.0.0/24\n  defaults: {ipv4: yes please}\n", 6, "is neither true nor false"),
        ("spec:\n  cidr4: 10.0.0.0/24\n  mtu: large\n", 6, "spec.mtu: \"large\" is no whole number"),
        ("spec:\n  cidr4: [10.0.0.0/24]\n", 5, "spec.cidr4 is a list, and one text is meant"),
        ("spec:\n  cidr4:\n    10.0.0.1/24\n", 5, "10.0.0.0/24"),
        ("spec:\n  cidr4: 10.0.0.0/24\n  cidr4: 10.0.1.0/24\n", 6, "spec.cidr4: \"10.0.1.0/24\" stands there twice"),
        ("spec: {cidr4: 10.0.0.0/24}\nspec: {cidr4: 10.0.1.0/24}\n", 5, "spec stands there twice"),
        ("sepc: {}\nspec: {cidr4: 10.0.0.0/24}\n", 4, "did you mean spec?"),
        ("spec:\n  <<: &a {mtu: 1}\n  cidr4: 10.0.0.0/24\n", 5, "spec.mtu: 1 must be"),
        (
            "x-a: &a\n  mtu: 1\nspec:\n  cidr4: 10.0.0.0/24\n  <<: *a\n",
            4,
            "x-a is no field of a NodeConfig: the fields here are apiVersion, kind, metadata, spec and status",
        ),
        ("spec:\n  cidr4: 10.0.0.0/24\n  extraPrefixes:\n  - 10.1.0.0/16\n\n  - 10.2/16\n", 9, "extraPrefixes[1]"),
        // Of syntax.
        ("spec: {cidr4: 10.0.0.0/24\n", 4, "a { is opened here and not closed"),
        ("spec:\n\tcidr4: 10.0.0.0/24\n", 5, "a tab stands before"),
        ("spec:\n  cidr6: fd00::\n", 5, "has to stand between quotes"),
    ] {
        let error = parse(format!("{HEAD}{tail}")).expect_err("must be refused");
        let first = error.problems().next().expect("one");
        assert!(first.text.contains(says), "{tail}: {first}");
        assert_eq!(first.line, Some(line), "{tail}: {first}");
    }
    let json = format!(
        "{{\"apiVersion\": \"{API_VERSION}\",\n\"kind\": \"{KIND}\",\n\"metadata\": {{\"name\": \"n\"}},\n\"spec\": {{\n\"cidr4\": 7}}}}"
    );
    assert_eq!(refusal(&json), "line 5: spec.cidr4: 7 is a number to YAML, and a text is meant: put it between quotes");
}

#[test]
fn one_text_holds_one_document() {
    let one = format!("{HEAD}spec: {{cidr4: 10.0.0.0/24}}\n");
    assert!(parse(format!("# a comment\n---\n{one}...\n")).is_ok());
    assert!(refusal(&format!("{one}---\n{one}")).contains("one file describes one node"));
    assert!(parse(format!("---\n# old\n---\n{one}---\n# new\n---\n")).is_ok());
    for empty in ["", "\n", "# nothing\n", "---\n", "null\n"] {
        assert!(refusal(empty).starts_with("it is empty"), "{empty:?}");
    }
}

#[test]
fn a_file_that_windows_wrote_is_taken() {
    let text = format!("{HEAD}spec: {{cidr4: 10.0.0.0/24}}\n").replace('\n', "\r\n");
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [text.as_bytes(), format!("\u{feff}{text}").as_bytes(), &utf16] {
        assert_eq!(parse(bytes).map(|config| config.name).as_deref(), Ok("host001"), "{bytes:?}");
    }
    let latin1 = parse([text.as_bytes(), b"# caf\xe9"].concat()).expect_err("refused").to_string();
    assert!(
        latin1.starts_with("line 5: byte ") && latin1.contains("0xe9") && latin1.ends_with("save it as UTF-8"),
        "{latin1}"
    );
}

#[test]
fn a_manifest_may_have_anchors_merge_keys_and_the_booleans_of_yaml_1_1() {
    let text = format!(
        "x: 1\n{HEAD}spec:\n  <<: &base {{cidr4: 10.0.0.0/24, cidr6: '2001:db8::/64'}}\n  defaults: {{ipv6: no, ipv4: On}}\n"
    );
    assert!(refusal(&text).contains('x'), "unknown fields are still refused");
    let config = parse(text.replace("x: 1\n", "")).expect("valid");
    assert_eq!((config.cidr4.is_some(), config.cidr6.is_some()), (true, true));
    assert_eq!((config.defaults.ipv6, config.defaults.ipv4), (false, true));
}

#[test]
fn null_is_no_name() {
    for null in ["null", "~", ""] {
        let text = HEAD.replace("host001", null);
        let refusal = refusal(&format!("{text}spec: {{cidr4: 10.0.0.0/24}}"));
        assert_eq!(refusal, "line 3: metadata.name is missing: write the name of the node");
    }
}

fn notes(annotations: &str) -> Vec<String> {
    let head = HEAD.replace("host001", &format!("host001, annotations: {annotations}"));
    read(format!("{head}spec: {{cidr4: 10.0.0.0/24}}")).expect("valid").1
}

#[test]
fn what_is_accepted_and_wrong_is_noted() {
    for (annotations, says) in [
        ("{flock.fritzlab.net/ip-algo: 'namespace,owner'}", r#""namespace,owner" has the unknown field "owner""#),
        ("{flock.fritzlab.net/ip-algo: ''}", "has an empty field"),
        ("{flock.fritzlab.net/ip-alg: app}", r#""flock.fritzlab.net/ip-alg" of the NodeConfig is ignored"#),
        ("{flock.fritzlab.net/IP-ALGO: app}", "the key here is flock.fritzlab.net/ip-algo"),
        ("{flock.fritzlab.net/ipv4: 'false'}", "it is for pods, and for the node there is spec.defaults.ipv4"),
        ("{flock.fritzlab.net/cidr6: x}", "it is for pods, and for the node there is spec.cidr6"),
        ("{flock.fritzlab.com/ip-algo: app}", "the key here is flock.fritzlab.net/ip-algo"),
        ("{ip-algo: app}", "the key here is flock.fritzlab.net/ip-algo"),
    ] {
        let notes = notes(annotations);
        assert!(notes.len() == 1 && notes[0].contains(says), "{annotations}: {notes:?}");
    }
    for good in ["{flock.fritzlab.net/ip-algo: app}", "{example.com/note: x, kubectl.kubernetes.io/last-applied: y}"] {
        assert_eq!(notes(good), Vec::<String>::new(), "{good}");
    }
    let many: Vec<String> = (0..100).map(|n| format!("flock.fritzlab.net/k{n}: x")).collect();
    assert_eq!(notes(&format!("{{{}}}", many.join(","))).len(), NOTES_MAX);
}

#[test]
fn an_mtu_that_the_uplink_cannot_carry_is_noted() {
    for (asked, uplink) in [(None, 1500), (Some(1500), 1500), (Some(1400), 1500), (Some(9000), 9000)] {
        assert_eq!(mtu_note(asked, uplink), None);
    }
    let note = mtu_note(Some(9000), 1500).expect("a note");
    assert!(note.contains("spec.mtu is 9000") && note.contains("1500") && note.contains("remove"), "{note}");
    assert!(mtu_note(Some(1501), 1500).is_some());
}

#[test]
fn a_file_of_another_node_is_noted() {
    assert_eq!(name_note("host001", "host001"), None);
    assert!(name_note("Host001", "host001").expect("a note").contains("differ in case only"));
    assert!(name_note("host002", "host001").expect("a note").contains("another node"));
}

#[test]
fn names_of_nodes_are_what_kubernetes_takes() {
    for good in ["a", "7", "host001", "host-1.example.com", "10.0.0.1", &"a".repeat(253)] {
        assert_eq!(check_node_name(good), Ok(()), "{good}");
    }
    for (bad, says) in [
        ("", "empty"),
        ("Node-A", "'N'"),
        ("my_host", "'_'"),
        ("(none)", "'('"),
        ("a b", "' '"),
        ("h\u{f6}st", "'\u{f6}'"),
        ("a/b", "'/'"),
        ("a\n", "'\\n'"),
        ("-a", "begins or ends with -"),
        ("a-.b", "begins or ends with -"),
        ("a..b", "is empty"),
        ("a.", "is empty"),
        (".", "is empty"),
        (&"a".repeat(254), "254 bytes"),
    ] {
        let why = check_node_name(bad).expect_err(bad);
        assert!(why.contains(says), "{bad:?}: {why}");
    }
}

#[test]
fn hostile_texts_are_refused_without_harm() {
    assert!(refusal(&" ".repeat(TEXT_MAX + 1)).contains("2097152 are allowed"));
    let many = format!("{HEAD}spec: [{}]", "a,".repeat(VALUES_MAX));
    assert!(refusal(&many).contains("more than 100000 values"), "{}", refusal(&many));
    let deep = format!("{HEAD}spec: {}", "[".repeat(10_000));
    let mut laughs = String::from("a0: &a0 [x, x]\n");
    for n in 1..60 {
        laughs.push_str(&format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
    }
    for text in [deep, format!("{HEAD}{laughs}"), "hello".into(), "[]".into(), format!("{HEAD}\u{0}")] {
        let error = parse(&text).expect_err("must be refused");
        assert!(error.to_string().chars().count() <= 400, "{error}");
    }
}
