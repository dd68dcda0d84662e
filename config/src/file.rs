//! The YAML file: documents of pools and advertisements, each of which stands or falls alone.
//!
//! This module and `located` are the ones that see the YAML library (`kube_proxy` reads its file through them). A document is read into a tree that
//! knows where everything stands; `apiVersion` and `kind` say what it is; then the exact type is read from the tree,
//! so that whatever is wrong is reported with the place of that very value.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde_json::Value;

use crate::declaration::{Group, Object, read as read_object};
use crate::located::{Located, Node, place, shift};
use crate::pool::Origin;
use crate::refusal::{Kind, Place, Reason, Refusal};
use crate::schema::{nearest, unknown_fields};
use crate::selector::Labels;
use crate::{crd, metallb};

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What can be followed, in the order written.
    pub objects: Vec<Object>,
    /// What cannot.
    pub refusals: Vec<Refusal>,
    /// Documents that are about something else.
    pub ignored: Vec<Ignored>,
}

/// A document that is about something else than Foghorn's configuration, and harms nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{path}:{}: {api_version} {kind} is not configuration of Foghorn: it is ignored", place.line)]
pub struct Ignored {
    /// The file.
    pub path: Arc<str>,
    /// Where the document begins.
    pub place: Place,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
}

/// The largest file that is read, in bytes: as much as a ConfigMap can hold.
pub const MOST_BYTES: u64 = 1 << 20;

/// Reads a file. `path` is what messages call it.
pub fn read(path: &str, content: &[u8]) -> Reading {
    let mut reader = Reader {
        path: path.into(),
        reading: Reading::default(),
        first: BTreeMap::new(),
    };
    match decode(content) {
        Err((place, reason)) => reader.refuse_document(place, reason),
        Ok(text) => {
            // The mark that some editors put first is no part of the text, but it has a length.
            let stripped = text.strip_prefix('\u{feff}').unwrap_or(text);
            for mut document in documents(stripped) {
                document.bytes += text.len() - stripped.len();
                reader.read_document(&document);
                if reader.reading.refusals.len() > MOST_REFUSALS {
                    break;
                }
            }
        }
    }
    reader.reading
}

/// The text of a file, unless it is too large or none.
pub(crate) fn decode(content: &[u8]) -> Result<&str, (Place, Reason)> {
    let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if bytes > MOST_BYTES {
        return Err((START, Reason::TooLarge { most: MOST_BYTES }));
    }
    std::str::from_utf8(content).map_err(|error| {
        let before = content.get(..error.valid_up_to()).unwrap_or_default();
        (end_of(before), Reason::NotText)
    })
}

/// The only document of a text.
pub(crate) fn document(text: &str) -> Result<Located, (Place, Reason)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_yaml::from_str_with_options::<Located>(text, options())
        .map_err(|error| (error.location().map_or(START, place), syntax(&error)))
}

/// The refusal of a file that cannot be read at all.
pub fn unreadable(path: &str, error: &str) -> Reading {
    let mut reader = Reader {
        path: path.into(),
        reading: Reading::default(),
        first: BTreeMap::new(),
    };
    reader.refuse_document(START, Reason::Unreadable(crate::refusal::shorten(error)));
    reader.reading
}

/// A file has at most this many refusals; then one more says that there are others.
const MOST_REFUSALS: usize = 100;
const MORE: &str = "there are more mistakes than are listed: correct these first";
const SIMPLIFY: &str =
    "the document is nested or aliased beyond what any configuration needs: simplify it";

const START: Place = Place {
    line: 1,
    column: 1,
    start: 0,
    end: 0,
};

/// The place after these octets.
fn end_of(before: &[u8]) -> Place {
    let text = String::from_utf8_lossy(before);
    let last = text.rsplit('\n').next().unwrap_or_default();
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        line: narrow(text.matches('\n').count()).saturating_add(1),
        column: narrow(last.chars().count()).saturating_add(1),
        start: before.len(),
        end: before.len(),
    }
}

/// A part of a file between two marks.
struct Document<'a> {
    text: &'a str,
    /// Lines before it.
    lines: u32,
    /// Bytes before it.
    bytes: usize,
}

/// The documents of a stream that are not empty (YAML 1.2.2 §9.1: a mark at the start of a line always ends one, so
/// that a broken document cannot swallow the next).
fn documents(text: &str) -> Vec<Document<'_>> {
    let is_mark = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
    };
    let mut starts = vec![(0, 0)];
    let (mut bytes, mut lines) = (0, 0_u32);
    for line in text.split_inclusive('\n') {
        if is_mark(line) && bytes > 0 {
            starts.push((bytes, lines));
        }
        bytes += line.len();
        lines = lines.saturating_add(1);
    }
    let ends = starts.iter().skip(1).map(|&(start, _)| start);
    let ends: Vec<usize> = ends.chain([text.len()]).collect();
    starts
        .into_iter()
        .zip(ends)
        .filter_map(|((start, lines), end)| {
            let text = text.get(start..end)?;
            let has_content = text.lines().any(|line| {
                let line = line.strip_prefix("---").unwrap_or(line).trim();
                !(line.is_empty() || line.starts_with('#') || line == "...")
            });
            has_content.then_some(Document {
                text,
                lines,
                bytes: start,
            })
        })
        .collect()
}

struct Reader {
    path: Arc<str>,
    reading: Reading,
    /// Where each object was met first.
    first: BTreeMap<(Kind, String), Origin>,
}

impl Reader {
    fn read_document(&mut self, document: &Document<'_>) {
        match serde_yaml::from_str_with_options::<Located>(document.text, options()) {
            Ok(tree) => self.read_tree(&tree.moved(document.lines, document.bytes)),
            Err(error) => {
                let mut at = error.location().map_or(START, place);
                shift(&mut at, document.lines, document.bytes);
                self.refuse_document(at, syntax(&error));
            }
        }
    }

    fn read_tree(&mut self, tree: &Located) {
        let text = |key| tree.get(key).and_then(Located::text).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() || kind.is_empty() {
            return self.refuse_document(tree.place, Reason::NotAnObject);
        }
        if api_version == "v1" && kind.ends_with("List") {
            if let Some(Node::List(items)) = tree.get("items").map(|items| &items.node) {
                items.iter().for_each(|item| self.read_tree(item));
            }
            return;
        }
        match what(api_version, kind) {
            What::Ours(group, Some(kind)) => self.read_object(group, kind, tree),
            What::Ours(group, None) => {
                let place = tree.find("kind");
                let known = [Kind::Pool.to_string(), Kind::Advertisement.to_string()];
                let reason = if group == Group::MetalLb && BGP_KINDS.contains(&kind) {
                    Reason::Bgp {
                        kind: kind.to_owned(),
                    }
                } else {
                    Reason::UnknownValue {
                        found: crate::excerpt::excerpt(kind),
                        known: known.to_vec(),
                    }
                };
                self.refuse_document(place, reason);
            }
            What::WrongVersion => {
                let reason = Reason::UnknownKind {
                    api_version: crate::excerpt::excerpt(api_version),
                    kind: crate::excerpt::excerpt(kind),
                };
                self.refuse_document(tree.find("apiVersion"), reason);
            }
            What::Other => self.reading.ignored.push(Ignored {
                path: Arc::clone(&self.path),
                place: tree.place,
                api_version: crate::excerpt::excerpt(api_version),
                kind: crate::excerpt::excerpt(kind),
            }),
        }
    }

    fn read_object(&mut self, group: Group, kind: Kind, tree: &Located) {
        const FIELD: &str = "metadata.name";
        let name = tree
            .get("metadata")
            .and_then(|metadata| metadata.get("name"));
        let Some(text) = name.and_then(Located::text) else {
            let reason = match name {
                None => Reason::Missing {
                    field: FIELD.to_owned(),
                },
                Some(_) => Reason::Type("a name is a text: put it in quotes".to_owned()),
            };
            return self.refuse(Some(kind), None, "", tree.find(FIELD), reason);
        };
        let origin = Origin::File {
            path: Arc::clone(&self.path),
            line: tree.place.line,
        };
        match self.first.entry((kind, text.to_owned())) {
            Entry::Occupied(first) => {
                let reason = Reason::Duplicate {
                    first: first.get().clone(),
                };
                self.refuse(Some(kind), Some(text), FIELD, tree.find(FIELD), reason);
            }
            Entry::Vacant(entry) => {
                entry.insert(origin.clone());
                self.read_spec(group, kind, text, origin, tree);
            }
        }
    }

    fn read_spec(&mut self, group: Group, kind: Kind, name: &str, origin: Origin, tree: &Located) {
        let unknown = unknown_fields(group, kind, tree);
        let is_refused = !unknown.is_empty();
        for field in unknown {
            let (path, reason) = (field.path, field.reason);
            self.refuse(Some(kind), Some(name), &path, field.place, reason);
        }
        let object = labels(tree).and_then(|labels| {
            let spec = tree.get("spec").map_or(Value::Null, Located::to_json);
            read_object(group, kind, name, labels, spec, origin)
        });
        match object {
            Ok(_) if is_refused => {}
            Ok(object) => self.reading.objects.push(object),
            Err(errors) => {
                for error in errors {
                    let place = tree.find(&error.field);
                    self.refuse(Some(kind), Some(name), &error.field, place, error.reason);
                }
            }
        }
    }

    fn refuse_document(&mut self, place: Place, reason: Reason) {
        self.refuse(None, None, "", place, reason);
    }

    fn refuse(
        &mut self,
        kind: Option<Kind>,
        name: Option<&str>,
        field: &str,
        place: Place,
        reason: Reason,
    ) {
        if self.reading.refusals.len() > MOST_REFUSALS {
            return;
        }
        let (kind, name, field, reason) = if self.reading.refusals.len() < MOST_REFUSALS {
            (kind, name, field, reason)
        } else {
            (None, None, "", Reason::Syntax(MORE.to_owned()))
        };
        self.reading.refusals.push(Refusal {
            origin: Origin::File {
                path: Arc::clone(&self.path),
                line: place.line,
            },
            place: Some(place),
            kind,
            name: name.map(str::to_owned),
            field: field.to_owned(),
            reason,
        });
    }
}

/// What a document is about.
enum What {
    /// A group that is read, and its kind if that is read too.
    Ours(Group, Option<Kind>),
    /// A group that is read, in a version that is not.
    WrongVersion,
    /// Something else.
    Other,
}

/// Kinds of MetalLB that are about BGP.
const BGP_KINDS: [&str; 4] = ["BGPPeer", "BGPAdvertisement", "BFDProfile", "Community"];

fn what(api_version: &str, kind: &str) -> What {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let read = match kind {
        "IPAddressPool" => Some(Kind::Pool),
        "L2Advertisement" => Some(Kind::Advertisement),
        _ => None,
    };
    match (group, version) {
        (crd::GROUP, crd::VERSION) => What::Ours(Group::Foghorn, read),
        (metallb::GROUP, metallb::VERSION) => What::Ours(Group::MetalLb, read),
        (metallb::GROUP, _) if BGP_KINDS.contains(&kind) => What::Ours(Group::MetalLb, None),
        (crd::GROUP | metallb::GROUP, _) => What::WrongVersion,
        // A typing error in the group must not pass in silence.
        _ if read.is_some() && !kind_of_others(group) => What::WrongVersion,
        _ => What::Other,
    }
}

/// Groups in which the names of our kinds mean something else.
fn kind_of_others(group: &str) -> bool {
    nearest(group, &[crd::GROUP, metallb::GROUP]).is_none()
}

fn labels(tree: &Located) -> Result<Labels, Vec<crate::refusal::FieldError>> {
    let labels = tree
        .get("metadata")
        .and_then(|metadata| metadata.get("labels"));
    let labels = labels.map_or(Value::Null, Located::to_json);
    if labels.is_null() {
        return Ok(Labels::new());
    }
    serde_path_to_error::deserialize(labels).map_err(|error| {
        let field = format!("metadata.labels.{}", error.path());
        let reason = Reason::Type(crate::refusal::shorten(&error.inner().to_string()));
        vec![crate::refusal::FieldError::new(field, reason)]
    })
}

/// Bounds against bombs, and no snippets: places are kept apart from messages.
fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: 50_000,
            max_nodes: 20_000,
            max_depth: 32,
            max_aliases: 100,
            max_anchors: 100,
            max_recorded_anchor_events: 10_000,
            max_merge_keys: 100,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 100,
        },
        strict_booleans: true,
        with_snippet: false,
    }
}

/// What is wrong with the text itself.
fn syntax(error: &serde_yaml::Error) -> Reason {
    use serde_yaml::Error;
    let message = match error.without_snippet() {
        Error::DuplicateMappingKey { key, .. } => {
            let key = crate::excerpt::excerpt(key.as_deref().unwrap_or("?"));
            format!("the key \"{key}\" is written twice in this mapping: remove one")
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => SIMPLIFY.to_owned(),
        other => {
            let message = other.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            if ["budget breached", "recursion limit"]
                .iter()
                .any(|start| message.starts_with(start))
            {
                return Reason::Syntax(SIMPLIFY.to_owned());
            }
            format!("the document is not YAML: {message}")
        }
    };
    Reason::Syntax(crate::refusal::shorten(&message))
}

#[cfg(test)]
mod tests;
