//! A YAML document as a tree in which every value knows where it stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_yaml::Spanned;

use crate::refusal::Place;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) node: Node,
}

/// A value of YAML.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Scalar(Value),
    List(Vec<Located>),
    Map(Vec<(Key, Located)>),
}

/// A key of a mapping and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

impl Located {
    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.node {
            Node::Map(entries) => entries
                .iter()
                .find(|(found, _)| found.text == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.node {
            Node::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Where the field `path` stands, such as `spec.addresses[1]`; what encloses it if it is not written.
    pub(crate) fn find(&self, path: &str) -> Place {
        let mut found = self;
        for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
            let index = part
                .strip_suffix(']')
                .and_then(|index| index.parse::<usize>().ok());
            let next = match (&found.node, index) {
                (Node::List(items), Some(index)) => items.get(index),
                (Node::Map(_), None) => found.get(part),
                _ => None,
            };
            match next {
                Some(next) => found = next,
                None => break,
            }
        }
        found.place
    }

    /// The same without places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(Self::to_json).collect(),
            Node::Map(entries) => {
                let entries = entries.iter();
                entries
                    .map(|(key, value)| (key.text.clone(), value.to_json()))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
        }
    }

    /// The same, `lines` lines and `bytes` bytes further down.
    pub(crate) fn moved(mut self, lines: u32, bytes: usize) -> Self {
        self.shift(lines, bytes);
        self
    }

    fn shift(&mut self, lines: u32, bytes: usize) {
        shift(&mut self.place, lines, bytes);
        match &mut self.node {
            Node::Scalar(_) => {}
            Node::List(items) => items.iter_mut().for_each(|item| item.shift(lines, bytes)),
            Node::Map(entries) => {
                for (key, value) in entries {
                    shift(&mut key.place, lines, bytes);
                    value.shift(lines, bytes);
                }
            }
        }
    }
}

/// Moves a place down.
pub(crate) fn shift(place: &mut Place, lines: u32, bytes: usize) {
    place.line = place.line.saturating_add(lines);
    place.start = place.start.saturating_add(bytes);
    place.end = place.end.saturating_add(bytes);
}

/// The place that the YAML library means.
pub(crate) fn place(location: serde_yaml::Location) -> Place {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let bytes = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let span = location.span();
    let start = bytes(span.byte_offset().unwrap_or_default());
    let length = bytes(span.byte_len().unwrap_or_default());
    Place {
        line: narrow(location.line()).max(1),
        column: narrow(location.column()).max(1),
        start,
        end: start.saturating_add(length),
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self {
            place: place(spanned.referenced),
            node: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self {
            place: place(spanned.referenced),
            text: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
