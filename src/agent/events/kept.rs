//! What was told of the node, kept in the state directory, so that an agent that is started anew does not tell it again.
//!
//! Whatever cannot be read or written costs an Event too many at the worst. Must not decide what is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::agent::events::pace::Kept;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use crate::record::disk::{Directory, Disk as _, DiskError};

/// Name of the file in the state directory.
const FILE: &str = "events.json";

/// Name of a new file until it is whole and takes the place of the old one.
const FILE_NEW: &str = "events.new";

/// The file, and what it holds as far as is known.
#[derive(Debug)]
pub struct KeptFile {
    state_dir: PathBuf,
    holds: BTreeMap<String, Kept>,
    failing: Lasting,
}

impl KeptFile {
    /// The file in `state_dir`. This call does not look at it.
    pub fn new(state_dir: &Path) -> KeptFile {
        KeptFile { state_dir: state_dir.into(), holds: BTreeMap::new(), failing: Lasting::default() }
    }

    /// What an earlier agent has kept; nothing where there is none, or where it cannot be read.
    pub fn recall(&mut self) -> BTreeMap<String, Kept> {
        let read = Directory::open(&self.state_dir).and_then(|mut disk| disk.read(FILE));
        self.holds = read.ok().flatten().and_then(|bytes| parsed(&bytes)).unwrap_or_default();
        self.holds.clone()
    }

    /// Keeps this, unless the file holds it already.
    pub fn keep(&mut self, kept: BTreeMap<String, Kept>) {
        if self.holds == kept {
            return;
        }
        match self.write(&kept) {
            Ok(()) => self.failing.over(|| log::info("it can be kept again which Events were written")),
            Err(error) => {
                self.failing.met(error, || {
                    log::warn("it cannot be kept which Events were written; a restart writes them again")
                });
            }
        }
        // A disk that fails is tried again with the next change, and not each second.
        self.holds = kept;
    }

    fn write(&self, kept: &BTreeMap<String, Kept>) -> Result<(), DiskError> {
        Directory::open(&self.state_dir)?.replace(FILE_NEW, FILE, shown(kept).to_string().as_bytes())
    }
}

fn shown(kept: &BTreeMap<String, Kept>) -> Value {
    let one = |kept: &Kept| {
        let series = kept.series.iter().map(|(at, note)| json!({"at": at, "note": note}));
        json!({"said": kept.said, "series": series.collect::<Vec<_>>()})
    };
    Value::Object(kept.iter().map(|(reason, kept)| (reason.clone(), one(kept))).collect::<Map<_, _>>())
}

fn parsed(bytes: &[u8]) -> Option<BTreeMap<String, Kept>> {
    let all: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let one = |kept: &Value| {
        let series = kept.get("series").and_then(Value::as_array);
        let event = |event: &Value| Some((event.get("at")?.as_u64()?, text(event.get("note"))?));
        Kept { said: text(kept.get("said")), series: series.into_iter().flatten().filter_map(event).collect() }
    };
    Some(all.iter().map(|(reason, kept)| (reason.clone(), one(kept))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was_and_what_cannot_be_read_is_nothing() {
        let dir = std::env::temp_dir().join(format!("flock-events-{}", std::process::id()));
        let mut file = KeptFile::new(&dir);
        assert!(file.recall().is_empty(), "there is none yet");
        let kept = Kept { said: Some("a \"b\"\nc".into()), series: vec![(7, "a".into()), (9, "b".into())] };
        let all =
            BTreeMap::from([("FlockServing".to_owned(), kept), ("FlockPoolExhausted".to_owned(), Kept::default())]);
        file.keep(all.clone());
        assert_eq!(KeptFile::new(&dir).recall(), all);
        for damaged in
            ["", "[]", "{\"FlockServing\": 7}", "{\"FlockServing\": {\"said\": 1, \"series\": [{\"at\": -1}, 3]}}"]
        {
            std::fs::write(dir.join(FILE), damaged).expect("writable");
            assert!(KeptFile::new(&dir).recall().values().all(|kept| *kept == Kept::default()), "{damaged}");
        }
        std::fs::remove_dir_all(dir).expect("removable");
    }
}
