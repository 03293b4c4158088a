//! What leads from one ruleset to another: changes in an order that the kernel takes as one batch.
//!
//! Must not know what the tables are for, so whether a change takes something away from a pod is for `policy` to say.

use alloc::string::String;
use alloc::vec::Vec;

use crate::addr::IfName;
use crate::ruleset::{Base, Element, Form, Rule, Ruleset, TableKey, Verdict};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes an empty table, or finds it there.
    AddTable(TableKey),
    /// Removes a table with all that is in it.
    RemoveTable(TableKey),
    /// Makes an empty set.
    AddSet(TableKey, String, Form),
    /// Removes a set, to which no rule leads any more.
    RemoveSet(TableKey, String),
    /// Makes an empty map.
    AddMap(TableKey, String),
    /// Removes a map.
    RemoveMap(TableKey, String),
    /// Makes an empty chain.
    AddChain(TableKey, String, Option<Base>),
    /// Takes all rules out of a chain, and puts these in.
    PutRules(TableKey, String, Vec<Rule>),
    /// Removes a chain, to which nothing leads any more.
    RemoveChain(TableKey, String),
    /// Puts elements into a set.
    AddElements(TableKey, String, Form, Vec<Element>),
    /// Takes elements out of a set. Each has to be there.
    RemoveElements(TableKey, String, Form, Vec<Element>),
    /// Puts links into a map, with what becomes of their packets. None of them may be there.
    AddLinks(TableKey, String, Vec<(IfName, Verdict)>),
    /// Takes links out of a map. Each has to be there.
    RemoveLinks(TableKey, String, Vec<IfName>),
}

/// The changes that lead from `shown` to `wanted`, in an order that the kernel takes: what is new before what leads to it, and
/// what is gone behind what led to it. Nothing for equal ones.
///
/// A set whose form changed, and a base chain that enters elsewhere, have their whole table made anew.
pub fn diff(wanted: &Ruleset, shown: &Ruleset) -> Vec<Change> {
    let _ = (wanted, shown);
    todo!()
}
