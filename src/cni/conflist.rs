//! The configuration by which a runtime runs the plugin: its text, whose hand a text is of, and what is to be done about it.
//!
//! Must not look for the file or write it; the agent does, and `uninstall` asks what is left.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::version::Version;

/// Name of the file. It sorts before the files of other CNIs, and the first one decides.
pub const FILE_NAME: &str = "01-flock.conflist";

/// Directories in which runtimes look for plugins: everywhere unless told otherwise, in the packages of Debian and of Fedora, in
/// the two ages of k3s with its own flannel, and in MicroK8s.
pub const PLUGIN_DIRS: [&str; 6] = [
    "/opt/cni/bin",
    "/usr/lib/cni",
    "/usr/libexec/cni",
    "/var/lib/rancher/k3s/data/cni",
    "/var/lib/rancher/k3s/data/current/bin",
    "/var/snap/microk8s/current/opt/cni/bin",
];

/// Plugins that hand pods on to others.
const META_PLUGINS: [&str; 4] = ["multus", "multus-shim", "genie", "danm"];

/// Under which keys such plugins name those others.
const DELEGATES: [&str; 4] = ["delegates", "delegate", "clusterNetwork", "defaultNetworks"];

/// The `cniVersion` of the shipped configuration, the lowest with CHECK.
const LOWEST: Version = Version::V0_4_0;

/// The configuration as it is shipped. A release that changes it has to know this one in [`is_composed`], too, or it takes what
/// its predecessor wrote for an operator's.
const SHIPPED: &str = include_str!("../../cni-conf/01-flock.conflist");

/// What stands in the place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Absent,
    /// A regular file with this text, or with bytes that are no text.
    File(String),
    /// Something else, or a file that was not composed here for its length alone.
    Other,
}

/// What is to be done about the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: the file is as it should be.
    Leave,
    /// Write it: it is missing, outdated, or nothing that a runtime could use.
    Write,
    /// Nothing: somebody has made it what it is.
    LeaveEdited,
}

/// The plugin `portmap` behind flock, which makes host ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portmap<'a> {
    /// It is there and knows these versions of the protocol.
    Knows(&'a [Version]),
    /// The runtime has none that answers.
    Absent,
    /// Nobody knows: what was chained stays.
    Unknown,
}

/// Compares what is present with what should be: nothing that somebody has made is overwritten, and what no runtime can read,
/// since it is not even JSON, was made by nobody.
pub fn compare(present: &Present, wanted: &str) -> Remedy {
    match present {
        Present::Absent => Remedy::Write,
        Present::File(text) if text == wanted => Remedy::Leave,
        Present::File(text) if is_composed(text) => Remedy::Write,
        Present::File(text) if serde_json::from_str::<Value>(text).is_err() => Remedy::Write,
        Present::File(_) | Present::Other => Remedy::LeaveEdited,
    }
}

/// The text that should stand where `present` does. It names the agent's socket if that is an unusual one, and has portmap behind
/// flock where there is one.
pub fn wanted(unusual_socket: Option<&str>, portmap: Portmap<'_>, present: &Present) -> String {
    match (portmap, present) {
        (Portmap::Knows(versions), _) => compose(unusual_socket, Some(versions)),
        (Portmap::Unknown, Present::File(text)) if is_composed(text) => {
            compose(unusual_socket, chained(text).as_deref())
        }
        (Portmap::Unknown | Portmap::Absent, _) => compose(unusual_socket, None),
    }
}

/// `portmap` is what that plugin knows of the protocol.
fn compose(unusual_socket: Option<&str>, portmap: Option<&[Version]>) -> String {
    // A runtime that knows no list of versions uses the lowest.
    let chained = portmap.filter(|versions| versions.contains(&LOWEST));
    if unusual_socket.is_none() && chained.is_none() {
        return SHIPPED.to_owned();
    }
    // A test holds the shipped text to be the object that this expects.
    let mut list: Value = serde_json::from_str(SHIPPED).unwrap_or_default();
    if let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) {
        if let Some(socket) = unusual_socket
            && let Some(flock) = plugins.first_mut().and_then(Value::as_object_mut)
        {
            flock.insert("socket".into(), json!(socket));
        }
        if chained.is_some() {
            plugins.push(portmap_entry());
        }
    }
    if let Some(known) = chained
        && let Some(versions) = list.get_mut("cniVersions").and_then(Value::as_array_mut)
    {
        versions
            .retain(|text| text.as_str().and_then(Version::from_text).is_some_and(|version| known.contains(&version)));
    }
    format!("{list:#}\n")
}

/// What stands behind flock where there is a portmap.
fn portmap_entry() -> Value {
    json!({"type": "portmap", "capabilities": {"portMappings": true}})
}

/// The versions of a composed text in which portmap is chained; none if it is not.
fn chained(text: &str) -> Option<Vec<Version>> {
    let list: Value = serde_json::from_str(text).ok()?;
    if list.get("plugins")?.as_array()?.last()? != &portmap_entry() {
        return None;
    }
    let versions = list.get("cniVersions")?.as_array()?.iter();
    Some(versions.filter_map(|version| Version::from_text(version.as_str()?)).collect())
}

/// Whether `text` is what [`wanted`] makes on this or another host: nobody has edited it.
pub fn is_composed(text: &str) -> bool {
    let mut list: Value = serde_json::from_str(text).unwrap_or_default();
    let shipped: Value = serde_json::from_str(SHIPPED).unwrap_or_default();
    // What differs from host to host is taken back.
    if let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) {
        plugins.first_mut().and_then(Value::as_object_mut).map(|flock| flock.remove("socket"));
        plugins.pop_if(|last| *last == portmap_entry());
    }
    let versions = |list: &Value| list.get("cniVersions").and_then(Value::as_array).cloned().unwrap_or_default();
    let all = versions(&shipped);
    let some = versions(&list);
    if !some.is_empty() && some.iter().all(|version| all.contains(version)) {
        list.as_object_mut().and_then(|list| list.insert("cniVersions".into(), all.into()));
    }
    list.is_object() && list == shipped
}

/// Whether this CNI configuration, or list of them, makes a runtime run the plugin.
pub fn names_flock(text: &str) -> bool {
    let configuration: Value = serde_json::from_str(text).unwrap_or_default();
    let plugins = configuration.get("plugins").and_then(Value::as_array).into_iter().flatten();
    plugins.chain([&configuration]).any(|plugin| plugin.get("type").and_then(Value::as_str) == Some("flock"))
}

/// What a configuration makes a runtime call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// The plugin, itself.
    Flock,
    /// A plugin that hands pods on to others, flock among them.
    FlockByDelegate,
    /// One that hands pods on, and does not say that flock is among those who get them.
    Delegates,
    /// Plugins of others.
    Others,
}

/// What the configuration of this text makes a runtime call.
pub fn calls(text: &str) -> Calls {
    if names_flock(text) {
        return Calls::Flock;
    }
    let configuration: Value = serde_json::from_str(text).unwrap_or_default();
    let plugins = configuration.get("plugins").and_then(Value::as_array).into_iter().flatten();
    let mut calls = Calls::Others;
    for plugin in plugins.chain([&configuration]) {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let named: Vec<&Value> = DELEGATES.iter().filter_map(|key| plugin.get(*key)).collect();
        if named.iter().any(|value| leads_to_flock(value)) {
            return Calls::FlockByDelegate;
        }
        if !named.is_empty() || META_PLUGINS.contains(&kind) {
            calls = Calls::Delegates;
        }
    }
    calls
}

/// Whether flock is called by what stands under a key of [`DELEGATES`]: configurations, or the names of a network or a file.
fn leads_to_flock(value: &Value) -> bool {
    match value {
        Value::String(name) => name == "flock" || name.ends_with(FILE_NAME),
        Value::Array(all) => all.iter().any(leads_to_flock),
        Value::Object(all) => {
            let is_flock = all.get("type").and_then(Value::as_str) == Some("flock");
            is_flock || all.get("plugins").is_some_and(leads_to_flock)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(list: &Value) -> Vec<&str> {
        list["plugins"].as_array().expect("a list").iter().filter_map(|p| p["type"].as_str()).collect()
    }

    // covers: C-08 C-09 C-10
    #[test]
    fn the_shipped_configuration_suits_old_and_new_runtimes() {
        let list: Value = serde_json::from_str(SHIPPED).expect("JSON");
        assert_eq!(list["name"], "flock", "no dash: cache file names join their parts by one");
        assert_eq!(list["cniVersion"], LOWEST.as_str(), "for runtimes that know no list of versions");
        let versions: Vec<&str> = Version::ALL.iter().map(|v| v.as_str()).collect();
        assert_eq!(list["cniVersions"], json!(versions));
        assert_eq!(list["loadOnlyInlinedPlugins"], true);
        assert_eq!((&list["disableCheck"], &list["disableGC"]), (&Value::Null, &Value::Null));
        assert_eq!(plugins(&list), ["flock"]);
        assert_eq!(list["plugins"][0]["capabilities"], json!({"io.kubernetes.cri.pod-annotations": true}));
    }

    // covers: C-02
    #[test]
    fn portmap_is_chained_in_the_versions_that_it_knows_and_the_socket_named_where_it_is_unusual() {
        assert_eq!(compose(None, None), SHIPPED);
        let list: Value = serde_json::from_str(&compose(Some("/run/x/y.sock"), Some(&Version::ALL))).expect("JSON");
        assert_eq!(plugins(&list), ["flock", "portmap"]);
        assert_eq!(list["plugins"][0]["socket"], "/run/x/y.sock");
        assert_eq!(list["plugins"][1]["capabilities"], json!({"portMappings": true}));
        assert_eq!(list["cniVersions"], json!(Version::ALL.map(Version::as_str)));

        let old = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0];
        let list: Value = serde_json::from_str(&compose(None, Some(&old))).expect("JSON");
        assert_eq!(list["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0"]));
        assert_eq!(list["cniVersion"], "0.4.0");
        // One that does not know the lowest cannot be in the list at all.
        assert_eq!(compose(None, Some(&[Version::V1_1_0])), SHIPPED);
    }

    #[test]
    fn what_was_composed_is_told_from_what_was_edited() {
        let chained = SHIPPED.trim_end().strip_suffix("]\n}").expect("a list of plugins").to_owned()
            + r#", {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;
        let fewer = chained.replace(r#", "1.1.0""#, "");
        assert_ne!(fewer, chained);
        for text in [SHIPPED, &chained, &fewer, &compose(Some("/run/x/y.sock"), None)] {
            assert!(is_composed(text) && names_flock(text), "{text}");
            for (was, is) in
                [("0.4.0\"", "1.0.0\""), ("\"loadOnly", "\"more\": 1, \"loadOnly"), ("portMappings", "bandwidth")]
            {
                let edited = text.replacen(was, is, 1);
                assert!(edited == text || !is_composed(&edited) && names_flock(&edited), "{edited}");
            }
        }
        assert!(names_flock(r#"{"cniVersion": "1.0.0", "name": "x", "type": "flock"}"#));
        for other in ["", "{", "[]", r#"{"plugins": [{"type": "ptp"}], "name": "flock"}"#] {
            assert!(!is_composed(other) && !names_flock(other), "{other}");
        }
    }

    #[test]
    fn only_what_the_agent_wrote_or_nobody_can_use_is_overwritten() {
        let plain = compose(None, None);
        let with_ports = compose(None, Some(&Version::ALL));
        let elsewhere = compose(Some("/run/x/y.sock"), None);
        let edited = plain.replacen("true", "false", 1);
        let file = |text: &str| Present::File(text.into());
        for (present, remedy) in [
            (Present::Absent, Remedy::Write),
            (file(&plain), Remedy::Leave),
            (file(&with_ports), Remedy::Write),
            (file(&elsewhere), Remedy::Write),
            (file(""), Remedy::Write),
            (file("{"), Remedy::Write),
            (file("\u{fffd}\0"), Remedy::Write),
            (file(&plain[..plain.len() / 2]), Remedy::Write),
            (file(&edited), Remedy::LeaveEdited),
            (file("{}"), Remedy::LeaveEdited),
            (file(r#"{"name": "other", "plugins": [{"type": "bridge"}]}"#), Remedy::LeaveEdited),
            (Present::Other, Remedy::LeaveEdited),
        ] {
            assert_eq!(compare(&present, &plain), remedy, "{present:?}");
        }
    }

    #[test]
    fn what_was_chained_stays_until_it_is_known_where_the_runtime_looks() {
        let old = [Version::V0_4_0, Version::V1_0_0];
        let (plain, with_ports) = (compose(None, None), compose(None, Some(&old)));
        for (portmap, present, expected) in [
            (Portmap::Knows(&old), &plain, &with_ports),
            (Portmap::Absent, &with_ports, &plain),
            (Portmap::Unknown, &with_ports, &with_ports),
            (Portmap::Unknown, &plain, &plain),
            (Portmap::Unknown, &String::new(), &plain),
        ] {
            assert_eq!(&wanted(None, portmap, &Present::File(present.clone())), expected, "{portmap:?}");
        }
        assert_eq!(wanted(None, Portmap::Unknown, &Present::Absent), plain);
    }
}
