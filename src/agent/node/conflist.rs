//! The CNI configuration of the runtime: what should stand there, whether it does, and put in place so that a runtime sees the
//! old or the new one whole.
//!
//! Written only when the agent was told a directory, and only once it can serve; then kept, whoever removes or damages it: without
//! it a runtime can neither start nor delete pods. Never removed here, for the same reason. What an operator has made of it is
//! the operator's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use serde_json::{Value, json};

use crate::agent::node::portmap::{HostPorts, Portmap, Search};
use crate::process::foreign_file::open_regular;
use crate::process::log;
use crate::record::disk::DiskError;
use crate::rpc::DEFAULT_SOCKET;
use cni::version::Version;

/// Sorts before the files of other CNIs; the first one decides.
pub const FILE_NAME: &str = "01-flock.conflist";

/// The `cniVersion` of the shipped configuration, the lowest with CHECK.
const LOWEST: Version = Version::V0_4_0;

/// Longest file that is read. What is longer was not composed here.
const FILE_MAX: u64 = 1024 * 1024;

/// Interval between looks at the file, 5 s. Without it no pod can be started or stopped.
const INTERVAL: Duration = Duration::from_secs(5);

/// The configuration as it is shipped. A release that changes it has to know this one in [`is_composed`], too, or it takes what
/// its predecessor wrote for an operator's.
const SHIPPED: &str = include_str!("../../../cni-conf/01-flock.conflist");

/// What stands in the place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Absent,
    /// A regular file with this text, or with bytes that are no text.
    File(String),
    /// Something else, or a file that was not composed here for its length alone.
    Other,
}

/// What is to be done about the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Leave,
    /// It is missing, outdated, or nothing that a runtime could use.
    Write,
    /// Somebody has made it what it is.
    Edited,
}

/// Compares what stands with what should: nothing that somebody has made is overwritten, and what no runtime can read, since it
/// is not even JSON, was made by nobody.
pub fn judge(standing: &Standing, wanted: &str) -> Verdict {
    match standing {
        Standing::Absent => Verdict::Write,
        Standing::File(text) if text == wanted => Verdict::Leave,
        Standing::File(text) if is_composed(text) => Verdict::Write,
        Standing::File(text) if serde_json::from_str::<Value>(text).is_err() => Verdict::Write,
        Standing::File(_) | Standing::Other => Verdict::Edited,
    }
}

/// The text that should stand where `standing` does, with the agent's socket if it is an unusual one, and with `portmap` behind
/// flock where there are host ports. As long as nobody knows whether there are, what was chained stays.
pub fn wanted(socket: &Path, host_ports: &HostPorts, standing: &Standing) -> String {
    let versions = match (host_ports, standing) {
        (HostPorts::By(_, versions), _) => Some(versions.clone()),
        (HostPorts::Unknown, Standing::File(text)) if is_composed(text) => chained(text),
        _ => None,
    };
    compose(socket, versions.as_deref())
}

/// The file, kept.
#[derive(Debug)]
pub struct Conflist {
    /// The directory, which must exist.
    dir: PathBuf,
    socket: PathBuf,
    portmap: Portmap,
    /// What was last said of it, lest it be said in every round.
    said: Option<(Verdict, HostPorts)>,
    /// When the file was last as it should be, as far as is known.
    settled: Option<Instant>,
}

impl Conflist {
    /// The file in `dir` of an agent with this socket, for a runtime that looks for its plugins as `search` tells.
    pub fn new(dir: PathBuf, socket: &Path, search: Search) -> Conflist {
        Conflist { dir, socket: socket.into(), portmap: Portmap::new(search), said: None, settled: None }
    }

    /// Makes the next [`Conflist::settle`] look, however lately the last one did.
    pub fn hurry(&mut self) {
        self.settled = None;
    }

    /// Looks at the file, unless it was as it should be a moment ago, and writes it if it has to be. Says in the log what has
    /// changed, and how it is with host ports. May take some seconds when portmap is new and hangs. What fails is tried again
    /// with the next call.
    pub fn settle(&mut self) {
        if self.settled.is_some_and(|settled| settled.elapsed() < INTERVAL) {
            return;
        }
        match self.keep() {
            Ok(()) => self.settled = Some(Instant::now()),
            Err(error) => log::error("CNI configuration cannot be written").with("err", error).write_limited(),
        }
    }

    /// Cheap when nothing has changed: reads the file and looks at portmap.
    fn keep(&mut self) -> Result<(), DiskError> {
        let file = self.dir.join(FILE_NAME);
        let host_ports = self.portmap.host_ports();
        let standing = look(&file)?;
        let text = wanted(&self.socket, &host_ports, &standing);
        let verdict = judge(&standing, &text);
        let is_news = self.said.as_ref() != Some(&(verdict, host_ports.clone()));
        match verdict {
            Verdict::Write => {
                install(&self.dir, &text)?;
                log::info("CNI configuration written")
                    .with("file", file.display())
                    .with("host_ports", &host_ports)
                    .write_limited();
            }
            Verdict::Leave if is_news => log::info("CNI configuration stands")
                .with("file", file.display())
                .with("host_ports", &host_ports)
                .write_limited(),
            Verdict::Edited if is_news => {
                log::warn(
                    "CNI configuration is not as the agent writes it and is left alone; remove it to have it written anew",
                )
                .with("file", file.display())
                .write_limited();
            }
            Verdict::Leave | Verdict::Edited => {}
        }
        self.said = Some((verdict, host_ports));
        Ok(())
    }
}

/// What stands there. Waits for nobody.
fn look(file: &Path) -> Result<Standing, DiskError> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Absent),
        // A link is somebody's, unless it leads to what should stand here.
        Ok(found) if !found.is_file() && !found.is_symlink() => return Ok(Standing::Other),
        _ => {}
    }
    let mut bytes = Vec::new();
    let read = open_regular(file, OFlags::empty()).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > FILE_MAX => Ok(Standing::Other),
        Ok(_) => Ok(Standing::File(String::from_utf8_lossy(&bytes).into_owned())),
        // A link into nowhere, or to something else.
        Err(_) if fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink()) => Ok(Standing::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Standing::Absent),
        Err(error) => Err(DiskError { operation: "read", path: file.into(), error }),
    }
}

/// `portmap` is what that plugin knows of the protocol.
fn compose(socket: &Path, portmap: Option<&[Version]>) -> String {
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

/// Puts `text` in place in `dir`, which must exist, in one step.
///
/// # Errors
/// The old file, if any, is in force.
pub fn install(dir: &Path, text: &str) -> Result<(), DiskError> {
    let target = dir.join(FILE_NAME);
    // Beside its name and with an ending that no runtime loads: a rename from another directory would go unnoticed.
    let temporary = dir.join(format!(".{FILE_NAME}.{}.tmp", std::process::id()));
    let written = write(&temporary, &target, dir, text);
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written
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
        assert_eq!(compose(Path::new(DEFAULT_SOCKET), None), SHIPPED);
        let list: Value =
            serde_json::from_str(&compose(Path::new("/run/x/y.sock"), Some(&Version::ALL))).expect("JSON");
        assert_eq!(plugins(&list), ["flock", "portmap"]);
        assert_eq!(list["plugins"][0]["socket"], "/run/x/y.sock");
        assert_eq!(list["plugins"][1]["capabilities"], json!({"portMappings": true}));
        assert_eq!(list["cniVersions"], json!(Version::ALL.map(Version::as_str)));

        let old = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0];
        let list: Value = serde_json::from_str(&compose(Path::new(DEFAULT_SOCKET), Some(&old))).expect("JSON");
        assert_eq!(list["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0"]));
        assert_eq!(list["cniVersion"], "0.4.0");
        // One that does not know the lowest cannot be in the list at all.
        assert_eq!(compose(Path::new(DEFAULT_SOCKET), Some(&[Version::V1_1_0])), SHIPPED);
    }

    #[test]
    fn what_was_composed_is_told_from_what_was_edited() {
        let chained = SHIPPED.trim_end().strip_suffix("]\n}").expect("a list of plugins").to_owned()
            + r#", {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;
        let fewer = chained.replace(r#", "1.1.0""#, "");
        assert_ne!(fewer, chained);
        for text in [SHIPPED, &chained, &fewer, &compose(Path::new("/run/x/y.sock"), None)] {
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
        let plain = compose(Path::new(DEFAULT_SOCKET), None);
        let with_ports = compose(Path::new(DEFAULT_SOCKET), Some(&Version::ALL));
        let elsewhere = compose(Path::new("/run/x/y.sock"), None);
        let edited = plain.replacen("true", "false", 1);
        let file = |text: &str| Standing::File(text.into());
        for (standing, verdict) in [
            (Standing::Absent, Verdict::Write),
            (file(&plain), Verdict::Leave),
            (file(&with_ports), Verdict::Write),
            (file(&elsewhere), Verdict::Write),
            (file(""), Verdict::Write),
            (file("{"), Verdict::Write),
            (file("\u{fffd}\0"), Verdict::Write),
            (file(&plain[..plain.len() / 2]), Verdict::Write),
            (file(&edited), Verdict::Edited),
            (file("{}"), Verdict::Edited),
            (file(r#"{"name": "other", "plugins": [{"type": "bridge"}]}"#), Verdict::Edited),
            (Standing::Other, Verdict::Edited),
        ] {
            assert_eq!(judge(&standing, &plain), verdict, "{standing:?}");
        }
    }

    #[test]
    fn what_was_chained_stays_until_it_is_known_where_the_runtime_looks() {
        let socket = Path::new(DEFAULT_SOCKET);
        let old = [Version::V0_4_0, Version::V1_0_0];
        let (plain, with_ports) = (compose(socket, None), compose(socket, Some(&old)));
        let by = HostPorts::By("/x/portmap".into(), old.into());
        for (host_ports, standing, expected) in [
            (&by, &plain, &with_ports),
            (&HostPorts::NotIn("/x".into()), &with_ports, &plain),
            (&HostPorts::Silent("/x".into()), &with_ports, &plain),
            (&HostPorts::Unknown, &with_ports, &with_ports),
            (&HostPorts::Unknown, &plain, &plain),
            (&HostPorts::Unknown, &String::new(), &plain),
        ] {
            assert_eq!(&wanted(socket, host_ports, &Standing::File(standing.clone())), expected, "{host_ports}");
        }
        assert_eq!(wanted(socket, &HostPorts::Unknown, &Standing::Absent), plain);
    }
}
