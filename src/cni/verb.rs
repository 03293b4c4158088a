//! The verbs of CNI, spelled in capitals in `CNI_COMMAND` and in a request to the agent.
//!
//! Owns their names. Must not know what each needs (`env`) or does (the agent).

use core::fmt;

use serde::{Deserialize, Serialize};

/// The verb of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is the attachment as ADD left it?
    Check,
    /// Remove what no valid attachment needs.
    Gc,
    /// Could ADD be served now?
    Status,
    /// Which versions are supported? The plugin knows by itself, so this one is never sent to an agent, and none accepts it.
    #[serde(skip)]
    Version,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 6] = [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status, Verb::Version];

    /// The verb with exactly this text; the case counts.
    pub fn from_text(text: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    /// The text of the verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
