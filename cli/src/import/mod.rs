//! `import`: pools and announcements of other products as ours.
//!
//! Nothing is guessed: what has no counterpart is left out and noted beside the object that it was part of.

mod cilium;
mod kube_vip;
mod metallb;
mod openelb;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use config::crd::{GROUP, IPAddressPoolSpec, L2AdvertisementSpec, VERSION};
use config::declaration::{Group, read};
use config::pool::Origin;
use config::refusal::Kind;
use config::selector::Labels;
use serde_json::{Value, json};

use crate::table::count;

/// Everything that could be translated, and what else there was to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// Our objects.
    pub objects: Vec<Translated>,
    /// What is about no object of ours.
    pub notes: Vec<String>,
}

/// An object of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// What it was.
    pub from: String,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its spec.
    pub spec: Value,
    /// What of it has no counterpart.
    pub notes: Vec<String>,
    /// Why it would be refused.
    pub mistakes: Vec<String>,
}

impl Translated {
    fn pool(from: String, name: &str, spec: &IPAddressPoolSpec) -> Self {
        let mut spec = json!(spec);
        // What is as it would be anyhow only distracts.
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|field, value| match field.as_str() {
                "autoAssign" => *value != json!(true),
                "avoidBuggyIPs" => *value != json!(false),
                _ => true,
            });
            if let Some(allocation) = fields
                .get_mut("serviceAllocation")
                .and_then(Value::as_object_mut)
            {
                allocation.retain(|field, value| field != "priority" || *value != json!(0));
            }
        }
        Self::new(from, Kind::Pool, name, spec)
    }

    fn advertisement(from: String, name: &str, spec: &L2AdvertisementSpec) -> Self {
        Self::new(from, Kind::Advertisement, name, json!(spec))
    }

    fn new(from: String, kind: Kind, name: &str, spec: Value) -> Self {
        Self {
            from,
            kind,
            name: name.to_owned(),
            labels: Labels::new(),
            spec,
            notes: Vec::new(),
            mistakes: Vec::new(),
        }
    }

    fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.notes = notes;
        self
    }

    /// The object as the API has it.
    fn object(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if let Some(fields) = metadata.as_object_mut()
            && !self.labels.is_empty()
        {
            fields.insert("labels".to_owned(), json!(self.labels));
        }
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": self.kind.to_string(),
            "metadata": metadata,
            "spec": self.spec,
        })
    }

    /// Reads the object as the programs will.
    fn check(&mut self) {
        let (labels, spec) = (self.labels.clone(), self.spec.clone());
        if let Err(errors) = read(
            Group::Foghorn,
            self.kind,
            &self.name,
            labels,
            spec,
            Origin::Cluster,
        ) {
            let errors = errors
                .iter()
                .map(|error| format!("{}: {}", error.field, error.reason));
            self.mistakes.extend(errors);
        }
    }
}

/// Translates objects; those that are about something else are passed over.
pub fn import(objects: &[Value]) -> Imported {
    let mut imported = Imported::default();
    for object in objects {
        let source = Source { object };
        match (source.group(), source.kind()) {
            (config::metallb::GROUP, kind) => metallb::translate(&source, kind, &mut imported),
            ("cilium.io", kind) => cilium::translate(&source, kind, &mut imported),
            ("network.kubesphere.io", "Eip") => openelb::translate(&source, &mut imported),
            ("", "ConfigMap") if source.at("/data/config").is_some() => {
                metallb::translate_config_map(&source, &mut imported);
            }
            ("", "ConfigMap") => kube_vip::translate(&source, &mut imported),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    for object in &mut imported.objects {
        let wanted = object.name.clone();
        let mut number = 2;
        while !names.insert((object.kind, object.name.clone())) {
            object.name = format!("{wanted}-{number}");
            number += 1;
        }
        if object.name != wanted {
            object
                .notes
                .push(format!("was named {wanted}, as another {} is", object.kind));
        }
        object.check();
    }
    imported
}

/// An object to translate.
struct Source<'a> {
    object: &'a Value,
}

impl Source<'_> {
    fn at(&self, pointer: &str) -> Option<&Value> {
        self.object
            .pointer(pointer)
            .filter(|value| !value.is_null())
    }

    fn text(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn is_true(&self, pointer: &str) -> bool {
        self.at(pointer)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }

    fn kind(&self) -> &str {
        self.text("/kind")
    }

    fn group(&self) -> &str {
        self.text("/apiVersion")
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// What the object is, for people.
    fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    /// A part of the object in its type; a note if it is of another one.
    fn part<T: serde::de::DeserializeOwned + Default>(
        &self,
        pointer: &str,
        notes: &mut Vec<String>,
    ) -> T {
        match self
            .at(pointer)
            .map(|part| serde_json::from_value(part.clone()))
        {
            None => T::default(),
            Some(Ok(part)) => part,
            Some(Err(error)) => {
                let field = pointer.trim_start_matches('/').replace('/', ".");
                notes.push(format!("{field} cannot be read: {error}"));
                T::default()
            }
        }
    }
}

/// A prefix without the bits after it, as these products understand it, and a note where there were some.
fn network(text: &str, notes: &mut Vec<String>) -> String {
    let text = text.trim();
    match text.parse::<ipnet::IpNet>() {
        Ok(network) if network.addr() != network.network() => {
            let whole = network.trunc();
            notes.push(format!("{text} was written; all of {whole} is meant"));
            whole.to_string()
        }
        _ => text.to_owned(),
    }
}

impl Imported {
    /// How many objects would be refused.
    pub fn mistakes(&self) -> usize {
        self.objects
            .iter()
            .filter(|object| !object.mistakes.is_empty())
            .count()
    }

    /// Our objects as YAML, notes as comments.
    ///
    /// # Errors
    /// If they cannot be serialized.
    pub fn yaml(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        for (index, object) in self.objects.iter().enumerate() {
            if index > 0 {
                text.push_str("---\n");
            }
            let _ = writeln!(text, "# From {}", object.from);
            for note in &object.notes {
                let _ = writeln!(text, "# - {}", one_line(note));
            }
            for mistake in &object.mistakes {
                let _ = writeln!(text, "# TO CORRECT: {}", one_line(mistake));
            }
            text.push_str(serde_yaml::to_string(&object.object())?.trim_start_matches("---\n"));
        }
        Ok(text)
    }

    /// Our objects as one list.
    ///
    /// # Errors
    /// If they cannot be serialized.
    pub fn json(&self) -> anyhow::Result<String> {
        let items: Vec<Value> = self.objects.iter().map(Translated::object).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        Ok(serde_json::to_string_pretty(&list)? + "\n")
    }

    /// Everything on one line.
    pub fn summary(&self) -> String {
        let number = |kind| {
            self.objects
                .iter()
                .filter(|object| object.kind == kind)
                .count()
        };
        let mut text = format!(
            "{}, {}",
            count(number(Kind::Pool), "pool", "pools"),
            count(
                number(Kind::Advertisement),
                "advertisement",
                "advertisements"
            )
        );
        let notes: usize = self.objects.iter().map(|object| object.notes.len()).sum();
        if notes > 0 {
            let _ = write!(text, "; {} beside them", count(notes, "note", "notes"));
        }
        if self.mistakes() > 0 {
            let _ = write!(text, "; {} to correct", self.mistakes());
        }
        text + "\n"
    }
}

/// A comment must not end before its line does.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
