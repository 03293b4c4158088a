//! One condition of the status, and since when it has been so.
//!
//! Must not know which conditions there are, nor how they are judged.

use serde_json::{Value, json};

/// Longest text that is made of several, in bytes.
pub const NOTES_MAX: usize = 2048;

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Truth {
    /// As the API has it.
    pub fn text(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// One condition, in the words of the Kubernetes API conventions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

/// A condition as the server has it, with the time since when it has this status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it is about.
    pub kind: String,
    /// As the API has it.
    pub status: String,
    /// RFC 3339.
    pub since: String,
}

/// The conditions as they go over the wire, each with the time since when it has its status.
pub fn dated(conditions: &[Condition], told: &[Told], now: &str, generation: i64) -> (Vec<Value>, Vec<Told>) {
    let since = |condition: &Condition| {
        let before = told.iter().find(|told| told.kind == condition.kind && told.status == condition.status.text());
        before.map_or(now, |told| told.since.as_str()).to_owned()
    };
    let told: Vec<Told> = conditions
        .iter()
        .map(|c| Told { kind: c.kind.into(), status: c.status.text().into(), since: since(c) })
        .collect();
    let values = conditions.iter().zip(&told).map(|(c, told)| {
        json!({
            "type": c.kind,
            "status": c.status.text(),
            "reason": c.reason,
            "message": c.message,
            "lastTransitionTime": told.since,
            "observedGeneration": generation,
        })
    });
    (values.collect(), told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status() {
        let told = |kind: &str, status: &str| Told { kind: kind.into(), status: status.into(), since: "then".into() };
        let condition = |kind, status| Condition { kind, status, reason: "Because", message: String::new() };
        let conditions = [
            condition("Ready", Truth::True),
            condition("Valid", Truth::False),
            condition("AddressesFree", Truth::True),
        ];
        let before = [told("Ready", "True"), told("Valid", "True")];
        let (values, now) = dated(&conditions, &before, "now", 7);
        let times: Vec<&str> =
            values.iter().map(|value| value["lastTransitionTime"].as_str().expect("a time")).collect();
        assert_eq!(times, ["then", "now", "now"]);
        let (values, _) = dated(&conditions, &now, "later", 8);
        assert!(values.iter().all(|value| value["lastTransitionTime"] != "later" && value["observedGeneration"] == 8));
    }
}
