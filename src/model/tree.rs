//! What a YAML or JSON document says, before anybody has looked for a meaning in it.
//!
//! Nothing is lost that an operator may have to hear of: fields that stand there twice are both there, so are values of a wrong
//! kind, and each field and item has its number, by which a second reading finds its line. Must not know what a document is about.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Most values and names of fields in one document. Some lines of YAML can stand for billions.
pub const VALUES_MAX: usize = 100_000;

/// A value, and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number, or one that is too large; as it is shown.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Item>),
    /// An object: its fields, in order, and some perhaps twice.
    Object(Vec<Field>),
    /// An object with a field whose name is a list or an object, as `{{ x }}` is read.
    Nameless,
    /// A value with a tag, which begins with `!`.
    Tagged(String),
}

/// One item of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its number among the values and names of the document, from 1.
    pub at: usize,
    /// The item.
    pub value: Tree,
}

/// One field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The number of its name among the values and names of the document, from 1.
    pub at: usize,
    /// What it is.
    pub value: Tree,
}

impl Tree {
    /// The tree with its merge keys carried out: what stands under `<<` counts where the object does not say it itself.
    pub fn merged(self) -> Tree {
        match self {
            Tree::List(items) => {
                Tree::List(items.into_iter().map(|item| Item { value: item.value.merged(), ..item }).collect())
            }
            Tree::Object(fields) => {
                let fields = fields.into_iter().map(|field| Field { value: field.value.merged(), ..field });
                let (bases, mut fields): (Vec<Field>, Vec<Field>) =
                    fields.partition(|field| field.name == "<<" && field.value.is_base());
                for base in bases.into_iter().flat_map(|base| base.value.objects()) {
                    let news = |field: &Field| fields.iter().all(|other| other.name != field.name);
                    let news: Vec<Field> = base.into_iter().filter(news).collect();
                    fields.extend(news);
                }
                Tree::Object(fields)
            }
            other => other,
        }
    }

    /// Whether it is an object or a list of objects.
    fn is_base(&self) -> bool {
        match self {
            Tree::Object(_) => true,
            Tree::List(items) => items.iter().all(|item| matches!(item.value, Tree::Object(_))),
            _ => false,
        }
    }

    fn objects(self) -> Vec<Vec<Field>> {
        match self {
            Tree::Object(fields) => vec![fields],
            Tree::List(items) => items.into_iter().flat_map(|item| item.value.objects()).collect(),
            _ => Vec::new(),
        }
    }
}

/// Reads a tree, and fails behind a number of values and names. The reader's error then has the place of the next one.
#[derive(Debug, Clone, Copy)]
pub struct Seed<'a> {
    /// How many have been read.
    pub seen: &'a Cell<usize>,
    /// How many may be.
    pub most: usize,
}

impl Seed<'_> {
    fn count<E: Error>(self, tree: Tree) -> Result<Tree, E> {
        if self.seen.get() >= self.most {
            return Err(E::custom("there are more values than are read"));
        }
        self.seen.set(self.seen.get() + 1);
        Ok(tree)
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        self.count(Tree::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        self.count(Tree::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        self.count(Tree::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        self.count(Tree::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        self.count(i64::try_from(value).map_or_else(|_| Tree::Number(value.to_string()), Tree::Integer))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Tree, E> {
        self.count(Tree::Number(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Tree, E> {
        self.count(Tree::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        // With a point also where nothing is behind it: that is what keeps it from being a whole number.
        self.count(Tree::Number(format!("{value:?}")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        self.count(Tree::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        self.count(Tree::Null)?;
        let mut list = Vec::new();
        loop {
            let at = self.seen.get() + 1;
            let Some(value) = items.next_element_seed(self)? else { return Ok(Tree::List(list)) };
            list.push(Item { at, value });
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        self.count(Tree::Null)?;
        let mut fields = Some(Vec::new());
        loop {
            let at = self.seen.get() + 1;
            let Some(key) = entries.next_key_seed(self)? else {
                return Ok(fields.map_or(Tree::Nameless, Tree::Object));
            };
            let value = entries.next_value_seed(self)?;
            match (name(key), &mut fields) {
                (Some(name), Some(fields)) => fields.push(Field { name, at, value }),
                _ => fields = None,
            }
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Tree, A::Error> {
        let (tag, content): (String, _) = data.variant()?;
        content.newtype_variant::<IgnoredAny>()?;
        self.count(Tree::Tagged(tag))
    }
}

/// The name of a field, which YAML may take for something else than a text.
fn name(key: Tree) -> Option<String> {
    match key {
        Tree::Text(name) | Tree::Number(name) | Tree::Tagged(name) => Some(name),
        Tree::Null => Some("null".into()),
        Tree::Boolean(value) => Some(value.to_string()),
        Tree::Integer(value) => Some(value.to_string()),
        Tree::List(_) | Tree::Object(_) | Tree::Nameless => None,
    }
}
