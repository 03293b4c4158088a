//! A kind of objects of the API: where it is, what of an object is kept, and the set of what is kept.
//!
//! Must not know which kinds there are (`objects`), nor how they are listed and watched (`watch`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

/// Longest reason that a notice repeats of what a server said or an object holds, in characters.
pub const REASON_MAX: usize = 400;

/// How much of each object a server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All of it.
    Whole,
    /// Its `metadata` alone. A server that does not know how sends all of it.
    Metadata,
}

/// One kind of object: where it is, and what of it is kept.
pub trait Kind {
    /// What is kept of an object. Decoded from the wire at once, so that a large object never stays.
    type Object: Clone + PartialEq + fmt::Debug + Send + Sync + 'static;

    /// Path of the collection, with the selectors as a query (`/api/v1/pods?fieldSelector=…`).
    fn path(&self) -> String;

    /// How much of each object is needed.
    fn form(&self) -> Form {
        Form::Whole
    }

    /// What is kept of the object; none for one that does not count, and is as absent as one that is not there.
    ///
    /// # Errors
    /// Why it cannot be used, in the words of the kind; the object counts as absent.
    fn reduce(&self, raw: &RawValue) -> Result<Option<Self::Object>, String>;
}

/// What identifies an object over its life: the name says which, the uid says which of those that bore the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Empty for objects without namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// The objects of a kind, by name. Immutable: a change makes a new set, which has names and objects in common with the one before.
pub type Objects<T> = BTreeMap<Arc<Name>, Arc<T>>;
