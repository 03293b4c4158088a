//! The CNI configuration of the runtime: composed, and put in place so that a runtime sees the old or the new one whole.
//!
//! Written only when the agent was told a directory, and only once it can serve. Never removed here: without it a runtime
//! could not delete its pods.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::agent::portmap;
use crate::cni::version::Version;
use crate::disk::DiskError;
use crate::rpc::DEFAULT_SOCKET;

/// Sorts before the files of other CNIs; the first one decides.
pub const FILE_NAME: &str = "01-flock.conflist";

/// The `cniVersion` of the shipped configuration, the lowest with CHECK.
const LOWEST: Version = Version::V0_4_0;

/// The configuration as it is shipped.
const SHIPPED: &str = include_str!("../../cni-conf/01-flock.conflist");

/// The configuration for this host: as shipped, with the agent's socket if it is an unusual one, and with `portmap` behind
/// flock where that plugin is installed beside it.
pub fn compose(socket: &Path) -> String {
    compose_with(socket, portmap::versions().as_deref())
}

/// `portmap` is what that plugin knows of the protocol.
fn compose_with(socket: &Path, portmap: Option<&[Version]>) -> String {
    let unusual = (socket != Path::new(DEFAULT_SOCKET)).then(|| socket.to_string_lossy());
    // A runtime that knows no list of versions uses the lowest.
    let chained = portmap.filter(|versions| versions.contains(&LOWEST));
    if unusual.is_none() && chained.is_none() {
        return SHIPPED.to_owned();
    }
    // A test holds the shipped text to be the object that this expects.
    let mut list: Value = serde_json::from_str(SHIPPED).unwrap_or_default();
    if let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) {
        if let Some(socket) = unusual
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

/// Whether `text` is what [`compose`] makes on this or another host: nobody has edited it.
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

/// Puts `text` in place in `dir`, which must exist. Tells whether anything had to be written; equal content is left alone,
/// since every change makes runtimes load their configuration anew.
///
/// # Errors
/// The old file, if any, is in force.
pub fn install(dir: &Path, text: &str) -> Result<bool, DiskError> {
    let target = dir.join(FILE_NAME);
    if fs::read_to_string(&target).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    // Beside its name and with an ending that no runtime loads: a rename from another directory would go unnoticed.
    let temporary = dir.join(format!(".{FILE_NAME}.{}.tmp", std::process::id()));
    let written = write(&temporary, &target, dir, text);
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written.map(|()| true)
}

fn write(temporary: &Path, target: &Path, dir: &Path, text: &str) -> Result<(), DiskError> {
    let fail = |operation, path: &Path| {
        let path: PathBuf = path.into();
        move |error: io::Error| DiskError { operation, path, error }
    };
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("remove", temporary)(error)),
        _ => {}
    }
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o644).open(temporary);
    let mut file = opened.map_err(fail("create", temporary))?;
    file.write_all(text.as_bytes()).map_err(fail("write", temporary))?;
    // The mode above is cut by the umask.
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(fail("set the mode of", temporary))?;
    file.sync_all().map_err(fail("sync", temporary))?;
    fs::rename(temporary, target).map_err(fail("rename", temporary))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail("sync", dir))
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
        assert_eq!(compose_with(Path::new(DEFAULT_SOCKET), None), SHIPPED);
        let list: Value =
            serde_json::from_str(&compose_with(Path::new("/run/x/y.sock"), Some(&Version::ALL))).expect("JSON");
        assert_eq!(plugins(&list), ["flock", "portmap"]);
        assert_eq!(list["plugins"][0]["socket"], "/run/x/y.sock");
        assert_eq!(list["plugins"][1]["capabilities"], json!({"portMappings": true}));
        assert_eq!(list["cniVersions"], json!(Version::ALL.map(Version::as_str)));

        let old = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0];
        let list: Value = serde_json::from_str(&compose_with(Path::new(DEFAULT_SOCKET), Some(&old))).expect("JSON");
        assert_eq!(list["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0"]));
        assert_eq!(list["cniVersion"], "0.4.0");
        // One that does not know the lowest cannot be in the list at all.
        assert_eq!(compose_with(Path::new(DEFAULT_SOCKET), Some(&[Version::V1_1_0])), SHIPPED);
    }

    #[test]
    fn what_was_composed_is_told_from_what_was_edited() {
        let chained = SHIPPED.trim_end().strip_suffix("]\n}").expect("a list of plugins").to_owned()
            + r#", {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;
        let fewer = chained.replace(r#", "1.1.0""#, "");
        assert_ne!(fewer, chained);
        for text in [SHIPPED, &chained, &fewer, &compose(Path::new("/run/x/y.sock"))] {
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
}
