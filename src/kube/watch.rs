//! LIST and WATCH of one kind of object as a state machine: fed with answers and lines, it says what to ask next and keeps
//! the set of objects. No socket, clock or random number is in here; `reflect` brings them. Of a list, which may be long, one
//! object at a time is held as the server sent it.
//!
//! ```text
//!          ┌────────── anything that casts doubt on the resource version ──────────┐
//!          ▼                                                                       │
//!   (pause) LIST ──ok──▶ WATCH from its resource version ──lines──▶ end ──▶ WATCH ─┘
//!             │                     │ 429, refused: pause, same WATCH
//!             └─ failed: pause      └ 410 and the rest: pause, LIST
//! ```
//!
//! The objects are replaced in one step by a LIST and changed one by one by a WATCH; on any failure they stay as they
//! are. Must not know what the objects mean.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::kube::kind::{Form, Kind, Name, Objects, REASON_MAX};
use crate::kube::url::encoded;
use model::excerpt::Excerpt;

/// First pause after a failure, in milliseconds; doubled each time up to [`PAUSE_MAX`].
pub const PAUSE_MIN: u64 = 800;
/// Longest pause, in milliseconds, before jitter.
pub const PAUSE_MAX: u64 = 30_000;
/// Without a failure for this long, in milliseconds, the pause starts small again.
pub const CALM: u64 = 120_000;
/// A watch that ends sooner than this, in milliseconds, is suspicious.
pub const SHORT_WATCH: u64 = 1000;
/// Number of suspicious watches in a row that are allowed if they brought events.
const SHORT_WATCHES: u32 = 3;
/// Number of watches in a row that were silent from their beginning to their end before a LIST is asked for. One is a dead
/// connection; a server whose data was restored from a backup takes a watch from a version that it has not reached, and is silent.
const SILENT_WATCHES: u32 = 2;
/// After at least this long, in milliseconds, the end of a watch is followed by a LIST: it heals what a server lost silently.
/// Jitter doubles it at most.
pub const RELIST: u64 = 900_000;
/// Longest piece of a body that is no `Status`, in bytes.
const BODY_MAX: usize = 200;
/// Longest pause that a server can ask for, in milliseconds.
const RETRY_AFTER_MAX: u64 = 60_000;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Wait until this time, in milliseconds.
    Pause(u64),
    /// GET this path, have the body read by [`Machine::read`], and hand the outcome to [`Machine::listed`].
    List(String),
    /// GET this path as a stream; hand its lines to [`Machine::line`] and its end to [`Machine::ended`].
    Watch(String),
}

/// What a request came to, in so far as the machine decides differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status with its body.
    Status {
        /// The HTTP status.
        code: u16,
        /// `Retry-After`, in milliseconds.
        retry_after: Option<u64>,
        /// The body.
        body: Vec<u8>,
    },
    /// The server could not be reached, or the connection broke. The reason, in words.
    Broken(String),
    /// Nobody listens at the server's address. The reason, in words.
    Refused(String),
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// In order, or cut: for the machine it is the same.
    Closed,
    /// Nothing came for so long that the connection must be dead.
    Silent,
}

/// Something worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchNotice {
    /// A request failed; what the server or the network said.
    Failed {
        /// `list` or `watch`, as RBAC names the verb.
        verb: &'static str,
        /// The HTTP status, if there was an answer.
        code: Option<u16>,
        /// The reason.
        message: String,
    },
    /// The objects are complete and current again after a failure, or for the first time.
    Synced {
        /// How many there are.
        objects: usize,
    },
    /// An object could not be used.
    Unusable {
        /// Which.
        name: Name,
        /// Why.
        why: String,
    },
}

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next line.
    Continue,
    /// This stream is of no more use.
    Stop,
}

/// What the machine asks for next, once it need not pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    List,
    Watch,
}

/// The machine.
#[derive(Debug)]
pub struct Machine<K: Kind> {
    kind: K,
    objects: Arc<Objects<K::Object>>,
    uids: BTreeMap<Arc<Name>, Uid>,
    asking: Asking,
    /// The newest resource version that was seen; empty before the first LIST.
    version: String,
    /// The server does not know that version (any more): the next LIST asks for whatever is newest.
    version_lost: bool,
    /// A LIST for the newest was tried at once after a lost version. The next failure pauses.
    tried_newest: bool,
    pause: u64,
    failed_at: Option<u64>,
    wait_until: Option<u64>,
    watch_began: u64,
    watch_events: u32,
    short_watches: u32,
    /// Watches in a row that the server has said nothing in.
    silent_watches: u32,
    relist_at: u64,
    synced: bool,
    failing: bool,
    notices: Vec<WatchNotice>,
    changes: Changes<K::Object>,
}

/// Tells objects of one name apart, by a number of their uid. There may be ten thousand, of which the text is never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Uid(u64);

impl Uid {
    /// Of an object that has none.
    const NONE: Uid = Uid(0);

    fn of(uid: &str) -> Uid {
        if uid.is_empty() {
            return Uid::NONE;
        }
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        Uid(hasher.finish())
    }

    /// Whether both have one, and not the same.
    fn is_another(self, other: Uid) -> bool {
        self != other && self != Uid::NONE && other != Uid::NONE
    }
}

/// What has become of the objects, one by one and in order, so that it costs nothing for those that stay as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes<T> {
    /// Each object that is new, another than before, or gone.
    pub each: Vec<Change<T>>,
    /// With these, the objects are complete for the first time.
    pub complete: bool,
}

/// What has become of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<T> {
    /// Which.
    pub name: Arc<Name>,
    /// What it was; none for a new one.
    pub before: Option<Arc<T>>,
    /// What it is; none for one that is gone.
    pub after: Option<Arc<T>>,
}

impl<T> Default for Changes<T> {
    fn default() -> Changes<T> {
        Changes { each: Vec::new(), complete: false }
    }
}

/// What a LIST has brought.
#[derive(Debug)]
pub struct Listing<T> {
    version: String,
    objects: Objects<T>,
    uids: BTreeMap<Arc<Name>, Uid>,
    unusable: Vec<(Name, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    metadata: ObjectMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectMeta {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
}

/// The part of a `Status` object that is used.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: Option<u16>,
    reason: String,
    message: String,
    details: Option<StatusDetails>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusDetails {
    causes: Vec<StatusCause>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusCause {
    reason: String,
    message: String,
}

impl<K: Kind> Machine<K> {
    /// A machine that knows nothing yet.
    pub fn new(kind: K) -> Machine<K> {
        Machine {
            kind,
            objects: Arc::default(),
            uids: BTreeMap::new(),
            asking: Asking::List,
            version: String::new(),
            version_lost: false,
            tried_newest: false,
            pause: PAUSE_MIN,
            failed_at: None,
            wait_until: None,
            watch_began: 0,
            watch_events: 0,
            short_watches: 0,
            silent_watches: 0,
            relist_at: 0,
            synced: false,
            failing: false,
            notices: Vec::new(),
            changes: Changes::default(),
        }
    }

    /// The objects as far as they are known. The same `Arc` as long as nothing changed. Whoever keeps a clone of it makes the next
    /// change copy the set, at a cost that grows with it.
    pub fn objects(&self) -> &Arc<Objects<K::Object>> {
        &self.objects
    }

    /// What has become of the objects since the last call, if anything has.
    pub fn changes(&mut self) -> Option<Changes<K::Object>> {
        let changes = std::mem::take(&mut self.changes);
        (changes.complete || !changes.each.is_empty()).then_some(changes)
    }

    /// How much of each object is to be asked for.
    pub fn form(&self) -> Form {
        self.kind.form()
    }

    /// A first LIST has succeeded.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Another server answers from now on, whose versions have nothing to do with those that are known. The objects stay
    /// until it has told which it has.
    pub fn elsewhere(&mut self) {
        self.asking = Asking::List;
        self.version_lost = true;
        self.tried_newest = false;
        self.wait_until = None;
    }

    /// What there is to log since the last call.
    pub fn notices(&mut self) -> Vec<WatchNotice> {
        std::mem::take(&mut self.notices)
    }

    /// What to do now. `now` is in milliseconds of a clock that does not jump; `chance` is a random number.
    pub fn next(&mut self, now: u64, chance: u64) -> Order {
        if let Some(until) = self.wait_until {
            if now < until {
                return Order::Pause(until);
            }
            self.wait_until = None;
        }
        let path = self.kind.path();
        let query = |text: String| if path.contains('?') { format!("{path}&{text}") } else { format!("{path}?{text}") };
        match self.asking {
            // No version at the first LIST: what comes must not be older than what an agent before us has seen.
            Asking::List if self.version.is_empty() || self.version_lost => Order::List(path),
            Asking::List => Order::List(query(format!("resourceVersion={}", encoded(&self.version)))),
            Asking::Watch => {
                self.watch_began = now;
                self.watch_events = 0;
                let timeout = 300 + chance % 300;
                Order::Watch(query(format!(
                    "watch=1&allowWatchBookmarks=true&timeoutSeconds={timeout}&resourceVersion={}",
                    encoded(&self.version)
                )))
            }
        }
    }

    /// Reads the body of an answer of status 200 to [`Order::List`], to its end.
    ///
    /// # Errors
    /// It is no list, or does not come to its end. Why, in words.
    pub fn read(&self, body: impl io::Read) -> Result<Listing<K::Object>, String> {
        let mut listing =
            Listing { version: String::new(), objects: Objects::new(), uids: BTreeMap::new(), unusable: Vec::new() };
        let mut text = serde_json::Deserializer::from_reader(body);
        let reading = List { kind: &self.kind, known: &self.objects, listing: &mut listing };
        let read = reading.deserialize(&mut text).and_then(|()| text.end());
        read.map(|()| listing).map_err(|error| format!("the list cannot be read: {error}"))
    }

    /// What came of [`Order::List`]: what [`Machine::read`] has read, or another answer.
    pub fn listed(&mut self, outcome: Result<Listing<K::Object>, Reply>, now: u64, chance: u64) {
        let Listing { version, objects, uids, unusable } = match outcome {
            Ok(listing) => listing,
            Err(Reply::Status { code, ref body, .. }) if version_is_lost(code, body) && !self.tried_newest => {
                self.version_lost = true;
                self.tried_newest = true;
                return;
            }
            Err(other) => return self.failed("list", &other, now, chance),
        };
        unusable.into_iter().for_each(|(name, why)| self.unusable(name, &why));
        self.changes.each.extend(differences(&self.objects, &objects));
        self.changes.complete |= !self.synced;
        if !self.changes.each.is_empty() {
            self.objects = Arc::new(objects);
        }
        self.uids = uids;
        self.version = version;
        self.version_lost = false;
        self.tried_newest = false;
        self.silent_watches = 0;
        self.asking = Asking::Watch;
        self.relist_at = now + RELIST + chance % RELIST;
        if !self.synced || self.failing {
            self.notices.push(WatchNotice::Synced { objects: self.objects.len() });
        }
        self.synced = true;
        self.failing = false;
    }

    /// [`Order::Watch`] did not become a stream.
    pub fn not_watching(&mut self, reply: &Reply, now: u64, chance: u64) {
        // The server is there and only busy, or not there at all: the version is as good as before.
        if !matches!(reply, Reply::Status { code: 429, .. } | Reply::Refused(_)) {
            self.asking = Asking::List;
        }
        self.failed("watch", reply, now, chance);
    }

    /// One line of the stream.
    pub fn line(&mut self, line: &[u8], now: u64, chance: u64) -> Flow {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(line) else {
            return self.distrust("the stream holds something that is no event", None, now, chance);
        };
        if event.kind == "ERROR" {
            return self.error_event(event.object, now, chance);
        }
        let Some(meta) = meta(event.object) else {
            return self.distrust("an event holds something that is no object", None, now, chance);
        };
        self.watch_events += 1;
        self.silent_watches = 0;
        // A watch that goes on from where it was shows, as a list does, that the server is there again.
        if self.failing {
            self.failing = false;
            self.notices.push(WatchNotice::Synced { objects: self.objects.len() });
        }
        let name = Name { namespace: meta.namespace, name: meta.name };
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => self.upsert(name, meta.uid, event.object),
            "DELETED" => self.delete(&name, &meta.uid),
            "BOOKMARK" => {}
            // A kind of event that we do not know: not understood, so not passed either.
            _ => return Flow::Continue,
        }
        if !meta.resource_version.is_empty() {
            self.version = meta.resource_version;
        }
        Flow::Continue
    }

    fn upsert(&mut self, name: Name, uid: String, raw: &RawValue) {
        match self.kind.reduce(raw) {
            Ok(None) => self.remove(&name),
            Ok(Some(object)) => {
                let known = self.objects.get_key_value(&name).map(|(name, old)| (name.clone(), old.clone()));
                let (name, before) = known.map_or_else(|| (Arc::new(name), None), |(name, old)| (name, Some(old)));
                self.uids.insert(name.clone(), Uid::of(&uid));
                if before.as_deref() != Some(&object) {
                    let object = Arc::new(object);
                    Arc::make_mut(&mut self.objects).insert(name.clone(), object.clone());
                    self.changes.each.push(Change { name, before, after: Some(object) });
                }
            }
            Err(why) => {
                // What we knew of it is no longer so.
                self.remove(&name);
                self.unusable(name, &why);
            }
        }
    }

    /// The object of a DELETED event is the last state before the end. A late one for an object that has been made anew
    /// meanwhile must not take the new one away.
    fn delete(&mut self, name: &Name, uid: &str) {
        let other = self.uids.get(name).is_some_and(|known| known.is_another(Uid::of(uid)));
        if !other {
            self.remove(name);
        }
    }

    fn remove(&mut self, name: &Name) {
        if self.objects.contains_key(name)
            && let Some((name, before)) = Arc::make_mut(&mut self.objects).remove_entry(name)
        {
            self.uids.remove(&name);
            self.changes.each.push(Change { name, before: Some(before), after: None });
        }
    }

    fn unusable(&mut self, name: Name, why: &str) {
        self.notices.push(WatchNotice::Unusable { name, why: Excerpt::line(why, REASON_MAX).into() });
    }

    fn error_event(&mut self, raw: &RawValue, now: u64, chance: u64) -> Flow {
        let status: Status = serde_json::from_str(raw.get()).unwrap_or_default();
        let code = status.code.unwrap_or(0);
        if code == 429 {
            self.fail_with("watch", Some(code), status.message, None, now, chance);
            return Flow::Stop;
        }
        // 410: our version is too old. LIST asks for "not older than", which any server can serve.
        self.distrust(&status.message, Some(code).filter(|code| *code != 0), now, chance)
    }

    /// The stream told something that shakes the trust in the resource version.
    fn distrust(&mut self, why: &str, code: Option<u16>, now: u64, chance: u64) -> Flow {
        self.asking = Asking::List;
        self.fail_with("watch", code, why.to_owned(), None, now, chance);
        Flow::Stop
    }

    /// The stream has ended, unless [`Machine::line`] stopped it.
    pub fn ended(&mut self, end: &End, now: u64, chance: u64) {
        let short = now.saturating_sub(self.watch_began) < SHORT_WATCH;
        self.short_watches = if short { self.short_watches + 1 } else { 0 };
        if *end == End::Silent {
            self.silent_watches += u32::from(self.watch_events == 0);
            self.notices.push(WatchNotice::Failed {
                verb: "watch",
                code: None,
                message: "nothing came for too long".into(),
            });
        }
        if short && self.watch_events == 0 {
            self.distrust("the watch ended at once", None, now, chance);
        } else if self.short_watches > SHORT_WATCHES {
            self.fail_with("watch", None, "watches keep ending at once".into(), None, now, chance);
        } else if now >= self.relist_at || self.silent_watches >= SILENT_WATCHES {
            self.asking = Asking::List;
        }
    }

    fn failed(&mut self, verb: &'static str, reply: &Reply, now: u64, chance: u64) {
        match reply {
            Reply::Status { code, retry_after, body } => {
                let message = status_message(body);
                self.fail_with(verb, Some(*code), message, *retry_after, now, chance);
            }
            Reply::Broken(why) | Reply::Refused(why) => self.fail_with(verb, None, why.clone(), None, now, chance),
        }
    }

    fn fail_with(
        &mut self,
        verb: &'static str,
        code: Option<u16>,
        message: String,
        retry_after: Option<u64>,
        now: u64,
        chance: u64,
    ) {
        if self.failed_at.is_none_or(|at| now.saturating_sub(at) > CALM) {
            self.pause = PAUSE_MIN;
        }
        self.failed_at = Some(now);
        self.failing = true;
        self.tried_newest = false;
        // All nodes lose their server at once, and must not come back at once.
        let wait = self.pause + chance % self.pause;
        let asked = retry_after.unwrap_or(0).min(RETRY_AFTER_MAX);
        self.wait_until = Some(now + wait.max(asked));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.notices.push(WatchNotice::Failed { verb, code, message: Excerpt::line(&message, REASON_MAX).into() });
    }
}

/// Fills a [`Listing`] with a list as its text comes.
struct List<'a, K: Kind> {
    kind: &'a K,
    /// What did not change keeps its place in memory.
    known: &'a Objects<K::Object>,
    listing: &'a mut Listing<K::Object>,
}

impl<'de, K: Kind> DeserializeSeed<'de> for List<'_, K> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, K: Kind> Visitor<'de> for List<'_, K> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let List { kind, known, listing } = self;
        let mut version = None;
        // The version stands before the objects or behind them.
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => version = Some(map.next_value::<ListMeta>()?.resource_version),
                "items" => map.next_value_seed(Items(List { kind, known, listing: &mut *listing }))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        listing.version = version.ok_or_else(|| A::Error::missing_field("metadata"))?;
        Ok(())
    }
}

/// The objects of a list; `null` for none.
struct Items<'a, K: Kind>(List<'a, K>);

impl<'de, K: Kind> DeserializeSeed<'de> for Items<'_, K> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, K: Kind> Visitor<'de> for Items<'_, K> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let List { kind, known, listing } = self.0;
        while let Some(raw) = items.next_element::<Box<RawValue>>()? {
            let Some(meta) = meta(&raw) else { continue };
            let name = Name { namespace: meta.namespace, name: meta.name };
            match kind.reduce(&raw) {
                Ok(None) => {}
                Ok(Some(object)) => {
                    let known = known.get_key_value(&name);
                    let same = known.filter(|(_, known)| ***known == object).map(|(_, known)| known.clone());
                    let name = known.map_or_else(|| Arc::new(name), |(name, _)| name.clone());
                    listing.uids.insert(name.clone(), Uid::of(&meta.uid));
                    listing.objects.insert(name, same.unwrap_or_else(|| Arc::new(object)));
                }
                Err(why) => listing.unusable.push((name, why)),
            }
        }
        Ok(())
    }
}

/// What makes `after` of `before`: what is gone comes first, so that a name that stays in use is not in two hands.
fn differences<T>(before: &Objects<T>, after: &Objects<T>) -> Vec<Change<T>> {
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    let gone = gone.map(|(name, old)| Change { name: name.clone(), before: Some(old.clone()), after: None });
    let there = after.iter().map(|(name, object)| {
        let before = before.get(name).cloned();
        Change { name: name.clone(), before, after: Some(object.clone()) }
    });
    // What a list has not changed keeps its place in memory, as `List` sees to.
    let same = |change: &Change<T>| match (&change.before, &change.after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after),
        _ => false,
    };
    gone.chain(there.filter(|change| !same(change))).collect()
}

fn meta(raw: &RawValue) -> Option<ObjectMeta> {
    serde_json::from_str::<Meta>(raw.get()).ok().map(|meta| meta.metadata)
}

/// The server says that it cannot serve the version that was asked for: too old (410), or newer than its own (504).
fn version_is_lost(code: u16, body: &[u8]) -> bool {
    let status: Status = serde_json::from_slice(body).unwrap_or_default();
    let too_large = || {
        let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
        causes
            .iter()
            .any(|c| c.reason == "ResourceVersionTooLarge" || c.message.starts_with("Too large resource version"))
            || status.message.contains("Too large resource version")
    };
    match code {
        410 => true,
        400 | 504 => too_large(),
        _ => matches!(status.reason.as_str(), "Expired" | "Gone"),
    }
}

/// The message of a `Status` body, or the beginning of whatever the body is.
fn status_message(body: &[u8]) -> String {
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && !status.message.is_empty()
    {
        return status.message;
    }
    Excerpt::line(&String::from_utf8_lossy(body), BODY_MAX).into()
}

#[cfg(test)]
mod tests;
