//! A tree read as an object of known fields: what is there is handed out, and all that is wrong is collected, with its path and the
//! number that leads to its line.
//!
//! Reading goes on behind a problem, so that an operator hears of all of them at once; what was read counts only if there is none.
//! Must not know what the fields are for, nor the text.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use crate::excerpt::Excerpt;
use crate::nearest::nearest;
use crate::tree::{Field, Item, Tree};

/// Most problems that are collected.
pub const PROBLEMS_MAX: usize = 32;

/// What is said where a value stands in the place of an object.
const FIELDS_MEANT: &str = "fields are meant, each a name, a colon, a space and a value";

/// Longest name of a field that is repeated, in bytes.
const NAME_MAX: usize = 64;

/// Something that is wrong in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The number of the nearest field or item, see [`Field::at`]; 0 if there is none.
    pub at: usize,
    /// What: begins with the path of the field, has its value and says what to do.
    pub text: String,
    /// Whether it is that something is not there, which is often because of another problem.
    lacks: bool,
}

/// What is wrong with a document.
#[derive(Debug, Default)]
pub struct Findings {
    problems: RefCell<Vec<Problem>>,
    unknown: RefCell<Vec<UnknownField>>,
    /// The fields that were asked for, by the paths of their objects.
    known: RefCell<BTreeMap<String, BTreeSet<&'static str>>>,
}

/// A field that nobody has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    /// The number of its name, see [`Field::at`].
    pub at: usize,
    /// The path of its object.
    pub of: String,
    /// Its name.
    pub name: String,
}

impl Findings {
    /// The document, whose top is at `tree`.
    pub fn document<'a>(&'a self, tree: &'a Tree) -> Value<'a> {
        Value { tree, at: 0, path: String::new(), findings: self }
    }

    /// Whether there is a problem, unknown fields aside.
    pub fn are_bad(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// The fields that nobody has asked for, at most [`PROBLEMS_MAX`]. They are no problem any more.
    pub fn take_unknown(&self) -> Vec<UnknownField> {
        self.unknown.take()
    }

    /// The problems in the order of the text, what is not there last. Fields that nobody has asked for are among them: people
    /// misspell.
    pub fn into_problems(self) -> Vec<Problem> {
        let known = self.known.into_inner();
        let strange = self.unknown.into_inner().into_iter().map(|field| field.into_problem(&known));
        let mut problems: Vec<Problem> = self.problems.into_inner().into_iter().chain(strange).collect();
        problems.sort_by_key(|problem| (problem.lacks, problem.at));
        problems.truncate(PROBLEMS_MAX);
        problems
    }

    fn add(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            problems.push(problem);
        }
    }
}

impl UnknownField {
    fn into_problem(self, known: &BTreeMap<String, BTreeSet<&'static str>>) -> Problem {
        let UnknownField { at, of, name } = self;
        let here: Vec<&str> = known.get(&of).into_iter().flatten().copied().collect();
        let elsewhere = known.iter().find(|(_, names)| names.contains(name.as_str()));
        let remedy = match (nearest(&name, &here), elsewhere) {
            (Some(meant), _) => format!("did you mean {meant}?"),
            (None, Some((place, _))) if place.is_empty() => "it belongs to the top, beside spec".into(),
            (None, Some((place, _))) => format!("it belongs below {place}"),
            (None, None) => format!("the fields here are {}", listed(&here, "and")),
        };
        Problem { at, text: format!("{} is no field of a NodeConfig: {remedy}", joined(&of, &name)), lacks: false }
    }
}

/// A value at its place.
#[derive(Debug, Clone)]
pub struct Value<'a> {
    tree: &'a Tree,
    at: usize,
    path: String,
    findings: &'a Findings,
}

impl<'a> Value<'a> {
    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is there.
    pub fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// Says what is wrong with it; `rule` reads on from the value.
    pub fn wrong(&self, rule: impl fmt::Display) {
        let path = if self.path.is_empty() { "the document" } else { &self.path };
        let text = match self.tree {
            Tree::List(_) | Tree::Object(_) | Tree::Nameless | Tree::Null => format!("{path} {rule}"),
            Tree::Text(text) => format!("{path}: {} {rule}", Excerpt::of(text)),
            Tree::Boolean(value) => format!("{path}: {value} {rule}"),
            Tree::Integer(value) => format!("{path}: {value} {rule}"),
            Tree::Number(text) | Tree::Tagged(text) => format!("{path}: {} {rule}", Excerpt::line(text, NAME_MAX)),
        };
        self.findings.add(Problem { at: self.at, text, lacks: false });
    }

    /// The value as a text. What YAML takes for something else has to stand between quotes, as for the API server.
    pub fn text(&self) -> Option<&'a str> {
        match self.tree {
            Tree::Text(text) => return Some(text),
            Tree::Boolean(_) => self.wrong("is true or false to YAML, and a text is meant: put it between quotes"),
            Tree::Integer(_) | Tree::Number(_) => {
                self.wrong("is a number to YAML, and a text is meant: put it between quotes")
            }
            _ => self.wrong_kind("one text is meant"),
        }
        None
    }

    /// The value as what `parse` makes of its text.
    pub fn parsed<T, E: fmt::Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        parse(self.text()?).map_err(|rule| self.wrong(rule)).ok()
    }

    /// The value as one of these words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let found = match self.tree {
            Tree::Text(text) => words.iter().find(|(word, _)| word == text),
            Tree::Boolean(_) | Tree::Integer(_) | Tree::Number(_) => None,
            _ => {
                self.wrong_kind("one word is meant");
                return None;
            }
        };
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(format_args!("must be {}", listed(&names, "or")));
        }
        found.map(|(_, value)| *value)
    }

    /// The value as `true` or `false`, also in the words of YAML 1.1, which kubectl reads so.
    pub fn boolean(&self) -> Option<bool> {
        match self.tree {
            Tree::Boolean(value) => return Some(*value),
            Tree::Text(text) => match text.as_str() {
                "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some(true),
                "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some(false),
                "true" | "false" => self.wrong(format_args!("is a text between quotes: write {text} without them")),
                _ => self.wrong("is neither true nor false: write one of them"),
            },
            Tree::Integer(_) | Tree::Number(_) => self.wrong("is neither true nor false: write one of them"),
            _ => self.wrong_kind("true or false is meant"),
        }
        None
    }

    /// The value as a whole number within bounds.
    pub fn within<T: TryFrom<u32>>(&self, min: u32, max: u32) -> Option<T> {
        match self.tree {
            Tree::Integer(number) => {
                let found = u32::try_from(*number).ok().filter(|number| (min..=max).contains(number));
                if found.is_none() {
                    self.wrong(format_args!("must be between {min} and {max}"));
                }
                return found.and_then(|number| T::try_from(number).ok());
            }
            Tree::Text(text) if text.trim().parse::<u32>().is_ok_and(|number| (min..=max).contains(&number)) => {
                self.wrong(format_args!(
                    "is a text between quotes: write {}, a whole number without quotes",
                    text.trim()
                ));
            }
            Tree::Text(_) | Tree::Number(_) | Tree::Boolean(_) => {
                self.wrong(format_args!("is no whole number: write one between {min} and {max}, without quotes"));
            }
            _ => self.wrong_kind("a whole number is meant"),
        }
        None
    }

    /// The items of a list of at most so many.
    pub fn items(&self, most: usize) -> Option<Vec<Value<'a>>> {
        let Tree::List(items) = self.tree else {
            match self.tree {
                Tree::Text(_) | Tree::Boolean(_) | Tree::Integer(_) | Tree::Number(_) => {
                    self.wrong("is one value, and a list is meant: write it between [ and ]");
                }
                _ => self.wrong_kind("a list is meant"),
            }
            return None;
        };
        if items.len() > most {
            self.wrong(format_args!("has {} entries, and at most {most} are allowed", items.len()));
            return None;
        }
        let of = |(number, item): (usize, &'a Item)| Value {
            tree: &item.value,
            at: item.at,
            path: format!("{}[{number}]", self.path),
            findings: self.findings,
        };
        Some(items.iter().enumerate().map(of).collect())
    }

    /// The items of a list of at most so many, as what `parse` makes of their texts; none may be there twice.
    pub fn set<T: PartialEq, E: fmt::Display>(&self, most: usize, parse: impl Fn(&str) -> Result<T, E>) -> Vec<T> {
        let mut found = Vec::new();
        for item in self.items(most).into_iter().flatten() {
            match item.parsed(&parse) {
                Some(value) if found.contains(&value) => item.wrong("stands there twice: remove one of the two"),
                Some(value) => found.push(value),
                None => {}
            }
        }
        found
    }

    /// The value as an object, which `read` asks for all the fields that it knows.
    pub fn object<T>(&self, read: impl FnOnce(&mut Fields<'a>) -> T) -> Option<T> {
        let Tree::Object(all) = self.tree else {
            self.wrong_kind(FIELDS_MEANT);
            return None;
        };
        Some(self.read(all, read))
    }

    fn read<T>(&self, all: &'a [Field], read: impl FnOnce(&mut Fields<'a>) -> T) -> T {
        let mut fields = Fields { whole: self.clone(), all, known: BTreeSet::new(), open: false };
        let found = read(&mut fields);
        fields.finish();
        found
    }

    /// Says what stands there instead of what is meant, as in `a text is meant`.
    pub fn wrong_kind(&self, meant: &str) {
        match self.tree {
            Tree::Null => self.wrong(format_args!("has no value, and {meant}")),
            Tree::Nameless => self.wrong(
                "has a field without a name, as a template in {{ }} that nobody has filled in: render it first, as with helm template",
            ),
            Tree::Tagged(_) => self.wrong(format_args!("is a tag, and {meant}: put a value that begins with ! between quotes")),
            // `- fd00::` is an object to YAML.
            Tree::Object(fields) if matches!(&fields[..], [Field { name, value: Tree::Null, .. }] if name.contains(':')) => {
                self.wrong("ends with a colon, which makes it the name of a field to YAML: put it between quotes, as in 'fd00::'");
            }
            Tree::Object(_) => self.wrong(format_args!("has fields, and {meant}")),
            Tree::List(_) => self.wrong(format_args!("is a list, and {meant}")),
            Tree::Text(_) => self.wrong(format_args!("is one text, and {meant}")),
            _ => self.wrong(format_args!("is one value, and {meant}")),
        }
    }
}

/// The fields of an object, for somebody who knows some.
#[derive(Debug)]
pub struct Fields<'a> {
    whole: Value<'a>,
    all: &'a [Field],
    known: BTreeSet<&'static str>,
    /// Whether there may be others.
    open: bool,
}

impl<'a> Fields<'a> {
    /// The field of this name; none if it is not there, or null. Of two, the first.
    pub fn get(&mut self, name: &'static str) -> Option<Value<'a>> {
        self.known.insert(name);
        let field = self.all.iter().find(|field| field.name == name)?;
        (field.value != Tree::Null).then(|| self.value(field))
    }

    /// The same of one that has to be there; `what` says what to write.
    pub fn required(&mut self, name: &'static str, what: impl fmt::Display) -> Option<Value<'a>> {
        let value = self.get(name);
        if value.is_none() {
            let path = joined(&self.whole.path, name);
            // Where any field may stand, nobody says of this one that it is unknown.
            match self
                .all
                .iter()
                .find(|field| self.open && nearest(&field.name, &[name]).is_some_and(|_| field.name != name))
            {
                Some(field) => {
                    self.value(field).wrong(format_args!("stands there, and {path} is missing: did you mean that?"))
                }
                None => self.lacks(self.at(name), format!("{path} is missing: {what}")),
            }
        }
        value
    }

    /// The object in the field of this name, or an empty one.
    pub fn object<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Fields<'a>) -> T) -> Option<T> {
        match self.get(name) {
            Some(value) => value.object(read),
            None => {
                let path = joined(&self.whole.path, name);
                Some(
                    Value { tree: &Tree::Null, at: self.at(name), path, findings: self.whole.findings }.read(&[], read),
                )
            }
        }
    }

    /// All fields, whatever their names. None of them is unknown any more.
    pub fn all(&mut self) -> Vec<(&'a str, Value<'a>)> {
        self.open = true;
        self.all.iter().map(|field| (field.name.as_str(), self.value(field))).collect()
    }

    /// Fields that may be there and are looked at by others, or by nobody.
    pub fn ignore<const N: usize>(&mut self, names: [&'static str; N]) {
        self.known.extend(names);
    }

    /// Says what is not there. Reads on from the path of the object.
    pub fn lack(&self, rule: impl fmt::Display) {
        self.lacks(self.whole.at, format!("{} {rule}", self.whole.path));
    }

    fn lacks(&self, at: usize, text: String) {
        self.whole.findings.add(Problem { at, text, lacks: true });
    }

    /// The number of the field of this name, or else of the object.
    fn at(&self, name: &str) -> usize {
        self.all.iter().find(|field| field.name == name).map_or(self.whole.at, |field| field.at)
    }

    fn value(&self, field: &'a Field) -> Value<'a> {
        let path = joined(&self.whole.path, &field.name);
        Value { tree: &field.value, at: field.at, path, findings: self.whole.findings }
    }

    fn finish(self) {
        let Value { path, findings, .. } = &self.whole;
        let mut seen = BTreeSet::new();
        for field in self.all {
            if !seen.insert(&field.name) {
                self.value(field).wrong("stands there twice: remove one of the two");
            } else if !self.open && !self.known.contains(field.name.as_str()) {
                let mut unknown = findings.unknown.borrow_mut();
                if unknown.len() < PROBLEMS_MAX {
                    unknown.push(UnknownField { at: field.at, of: path.clone(), name: short(&field.name) });
                }
            }
        }
        findings.known.borrow_mut().entry(path.clone()).or_default().extend(self.known);
    }
}

/// The path of the field of this name.
fn joined(path: &str, name: &str) -> String {
    let name = short(name);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn short(name: &str) -> String {
    Excerpt::line(name, NAME_MAX).into()
}

/// `a, b or c`.
pub fn listed(words: &[&str], link: &str) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).into(),
        [first @ .., last] => format!("{} {link} {last}", first.join(", ")),
    }
}
