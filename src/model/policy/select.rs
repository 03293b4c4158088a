//! Labels, and selectors over them, as Kubernetes means them.
//!
//! A selector has one form for one list of requirements, however it was written, so that what is made of it has one name. Must
//! not know what is selected: pods and namespaces are labels here.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Labels of a pod or a namespace. A copy costs nothing, and equal ones share their memory when a [`Pool`] made them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether both are the same piece of memory, which is quicker told than whether they are equal.
    pub fn is(&self, other: &Labels) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The place in memory: equal for copies.
    pub(crate) fn place(&self) -> *const (Box<str>, Box<str>) {
        self.0.as_ptr()
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Labels {
    /// Of two values of one key, the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Labels {
        let pairs: BTreeMap<Box<str>, Box<str>> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Labels(pairs.into_iter().collect())
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(pairs: [(K, V); N]) -> Labels {
        pairs.into_iter().collect()
    }
}

/// Keeps one copy of equal labels: the pods of one workload have the same.
#[derive(Debug, Clone, Default)]
pub struct Pool(BTreeSet<Labels>);

impl Pool {
    /// The copy of these labels that all share.
    pub fn shared(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.0.get(&labels) {
            return known.clone();
        }
        self.0.insert(labels.clone());
        labels
    }

    /// Forgets the labels that nobody has any more. Costs a look at each.
    pub fn sweep(&mut self) {
        self.0.retain(|labels| Arc::strong_count(&labels.0) > 1);
    }

    /// How many different ones there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Requirements that all have to hold; without any, everything is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Box<[Requirement]>);

/// What one key has to be like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The key.
    pub key: Box<str>,
    /// What about it.
    pub operator: Operator,
}

/// What is asked about a key. Values are sorted and differ, and there is at least one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// It is there and has one of these values.
    In(Box<[Box<str>]>),
    /// It has none of these values, or is not there.
    NotIn(Box<[Box<str>]>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Requirement {
    /// The key has this value.
    pub fn equals(key: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Requirement {
        Requirement { key: key.into(), operator: Operator::In(Box::new([value.into()])) }
    }

    /// Whether labels with this value of the key, or without the key, are as asked.
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |values: &[Box<str>], value: &str| values.binary_search_by(|other| (**other).cmp(value)).is_ok();
        match (&self.operator, value) {
            (Operator::In(values), Some(value)) => among(values, value),
            (Operator::NotIn(values), Some(value)) => !among(values, value),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::In(_), None) => false,
            (Operator::NotIn(_), None) => true,
        }
    }
}

impl Selector {
    /// The requirements, in the one order that they have.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether labels are as required.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels.get(&requirement.key)))
    }

    /// The same where only one label is known: what asks for another one does not hold.
    pub fn matches_only(&self, key: &str, value: &str) -> bool {
        self.0.iter().all(|requirement| &*requirement.key == key && requirement.holds(Some(value)))
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Selector {
        let distinct = |values: Box<[Box<str>]>| values.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let canonical = |Requirement { key, operator }| Requirement {
            key,
            operator: match operator {
                Operator::In(values) => Operator::In(distinct(values)),
                Operator::NotIn(values) => Operator::NotIn(distinct(values)),
                other => other,
            },
        };
        let all: BTreeSet<Requirement> = requirements.into_iter().map(canonical).collect();
        Selector(all.into_iter().collect())
    }
}

/// As `kubectl` writes and takes it: `app=web,env in (a,b),tier notin (c),x,!y`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Requirement { key, operator }) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) => match &**values {
                    [value] => write!(f, "{key}={value}")?,
                    values => write!(f, "{key} in ({})", Vec::from(values).join(","))?,
                },
                Operator::NotIn(values) => match &**values {
                    [value] => write!(f, "{key}!={value}")?,
                    values => write!(f, "{key} notin ({})", Vec::from(values).join(","))?,
                },
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;

    fn requirement(key: &str, operator: Operator) -> Requirement {
        Requirement { key: key.into(), operator }
    }

    fn values(values: &[&str]) -> Box<[Box<str>]> {
        values.iter().map(|value| Box::from(*value)).collect()
    }

    #[test]
    fn each_operator_does_what_kubernetes_says_of_a_value_another_value_and_an_absent_key() {
        let (a, b, none) = (Labels::from([("k", "a")]), Labels::from([("k", "b")]), Labels::from([("other", "a")]));
        for (operator, holds) in [
            (Operator::In(values(&["a", "c"])), [true, false, false]),
            (Operator::NotIn(values(&["a", "c"])), [false, true, true]),
            (Operator::Exists, [true, true, false]),
            (Operator::DoesNotExist, [false, false, true]),
        ] {
            let selector = Selector::from_iter([requirement("k", operator)]);
            assert_eq!([&a, &b, &none].map(|labels| selector.matches(labels)), holds, "{selector}");
        }
        assert!(Selector::default().matches(&Labels::default()));
    }

    #[test]
    fn all_requirements_have_to_hold() {
        let selector = Selector::from_iter([Requirement::equals("a", "1"), Requirement::equals("b", "2")]);
        assert!(selector.matches(&Labels::from([("a", "1"), ("b", "2"), ("c", "3")])));
        assert!(!selector.matches(&Labels::from([("a", "1"), ("b", "3")])));
        assert!(!selector.matches(&Labels::from([("b", "2")])));
    }

    #[test]
    fn one_meaning_of_equal_lists_is_one_value_and_one_text() {
        let one = Selector::from_iter([
            requirement("x", Operator::Exists),
            requirement("env", Operator::In(values(&["b", "a", "b"]))),
            Requirement::equals("app", "web"),
            requirement("y", Operator::DoesNotExist),
            requirement("tier", Operator::NotIn(values(&["c"]))),
            requirement("zone", Operator::NotIn(values(&["2", "1"]))),
        ]);
        let other = Selector::from_iter(one.requirements().iter().rev().chain(one.requirements()).cloned());
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "app=web,env in (a,b),tier!=c,x,!y,zone notin (1,2)");
    }

    #[test]
    fn where_only_the_name_is_known_nothing_else_is_guessed() {
        let key = "kubernetes.io/metadata.name";
        for (requirements, matches) in [
            (std::vec![], true),
            (std::vec![Requirement::equals(key, "a")], true),
            (std::vec![Requirement::equals(key, "b")], false),
            (std::vec![requirement("env", Operator::DoesNotExist)], false),
            (std::vec![Requirement::equals(key, "a"), requirement("env", Operator::NotIn(values(&["x"])))], false),
        ] {
            assert_eq!(Selector::from_iter(requirements).matches_only(key, "a"), matches);
        }
    }

    #[test]
    fn equal_labels_share_their_memory_until_nobody_has_them() {
        let mut pool = Pool::default();
        let one = pool.shared(Labels::from([("app", "web")]));
        let other = pool.shared(Labels::from([("app", "web")]));
        assert!(one.is(&other) && pool.len() == 1);
        pool.sweep();
        assert_eq!(pool.len(), 1);
        drop((one, other));
        pool.sweep();
        assert!(pool.is_empty());
    }
}
