//! A delete note, as a file in its directory. `BOOT` in the input stands for the id of this boot.

use std::fs;
use std::path::PathBuf;

use flock::record::boot_clock;
use flock::record::notes::{Notes, Waiting};
use model::addr::{Attachment, fnv1a64};
use serde_json::Value;

pub(crate) fn check(data: &[u8]) {
    let boot = boot_clock::id().expect("a boot has an id");
    let content = replaced(data, b"BOOT", boot.as_bytes());
    // The name is a hash of what the note is about. A note under another name is a stranger.
    let read: Option<Value> = serde_json::from_slice(&content).ok();
    let text = |key: &str| read.as_ref().and_then(|note| note[key].as_str()).unwrap_or_default().to_owned();
    let key = format!("{}/{}", text("container_id"), text("ifname"));
    let right_name = format!("{:016x}.delete", fnv1a64(key.as_bytes()));

    let dir = Dir::new();
    let notes = Notes::beside(&dir.0.join("flock.sock"));
    let directory = dir.0.join("deletes");
    let look = || notes.waiting().expect("the directory can be read");
    assert_eq!(look(), Waiting::default());
    for (name, is_right) in [("0000000000000000.delete", false), (right_name.as_str(), true)] {
        let path = directory.join(name);
        fs::write(&path, &content).expect("room for a note");
        let waiting = look();
        assert!(waiting.notes.len() + waiting.strangers.len() <= 1);
        if let Some(note) = waiting.notes.first() {
            assert!(is_right, "a note under a wrong name is carried out: {note:?}");
            assert_eq!(
                (note.attachment.to_string(), Some(note.at)),
                (key.clone(), read.as_ref().and_then(|n| n["at"].as_u64()))
            );
            assert_eq!(key.parse::<Attachment>().as_ref(), Ok(&note.attachment));
            assert_eq!(text("boot"), boot);
        }
        for (stranger, why) in &waiting.strangers {
            assert_eq!(fs::read(stranger).ok().as_ref(), Some(&content), "a stranger is left as it is");
            super::assert_one_line(why, 1024);
        }
        // Gone without a word is only what belongs to another boot.
        if !path.exists() {
            assert_ne!(text("boot"), boot);
        }
        if !waiting.notes.is_empty() {
            notes.done(&waiting.notes).expect("it can be removed");
            assert!(!path.exists());
        }
        fs::remove_file(&path).ok();
    }
}

fn replaced(data: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), data);
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A directory of this thread's own, in memory where there is one.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let unique = format!("flock-note-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = base.join(unique.replace(['(', ')'], ""));
        fs::create_dir_all(&path).expect("a temporary directory");
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
