//! How often the API server was asked, and what it answered.
//!
//! Must not know what was asked for.

use std::collections::BTreeMap;

use crate::process::lock::Lock;

/// Most kinds of answers that are kept apart. There are seven verbs, and a server uses some ten codes; whatever else comes counts
/// as code 0.
const KINDS: usize = 40;

/// Requests by verb and HTTP status; of those without an answer there is no status.
#[derive(Debug, Default)]
pub(super) struct Asked(Lock<BTreeMap<(&'static str, Option<u16>), u64>>);

impl Asked {
    /// One more request.
    pub(super) fn count(&self, verb: &'static str, status: Option<u16>) {
        let mut kinds = self.0.lock();
        let known = kinds.len() < KINDS || kinds.contains_key(&(verb, status));
        *kinds.entry((verb, if known { status } else { Some(0) })).or_default() += 1;
    }

    /// All of them.
    pub(super) fn shown(&self) -> Vec<(&'static str, Option<u16>, u64)> {
        self.0.lock().iter().map(|((verb, status), count)| (*verb, *status, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_answers_anything_makes_no_endless_list() {
        let asked = Asked::default();
        asked.count("list", None);
        (0..500).for_each(|status| asked.count("list", Some(status)));
        asked.count("list", Some(0));
        let shown = asked.shown();
        assert_eq!(shown.len(), KINDS);
        assert_eq!(shown.iter().map(|(.., count)| count).sum::<u64>(), 502);
        assert_eq!(shown.first(), Some(&("list", None, 1)));
    }
}
