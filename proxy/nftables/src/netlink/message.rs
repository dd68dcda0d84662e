//! Messages of nf_tables, and batches of them.

use crate::netlink::attribute::{Writer, attributes, find, find_number, find_text};
use crate::netlink::expression::{DATA_VALUE, Expression, RuleVerdict};

/// Messages that the kernel takes all or none of.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    writer: Writer,
    /// Where the message that is being written begins.
    start: usize,
    /// How many messages are complete; each has its number as sequence number.
    messages: u32,
    /// What each message is about, for the error that names it.
    subjects: Vec<Subject>,
}

/// What a message of a batch is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Subject {
    pub(crate) verb: &'static str,
    pub(crate) table: &'static str,
    pub(crate) name: String,
}

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
pub(crate) type Family = u8;

/// A base chain's place in the path of packets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    /// `NF_INET_*`.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// The shape of a set or map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SetShape {
    pub(crate) name: &'static str,
    pub(crate) flags: u32,
    pub(crate) key_type: u32,
    pub(crate) key_length: u32,
    /// Type and length of the values, if it is a map.
    pub(crate) data: Option<(u32, u32)>,
    /// The greatest number of elements; 0 if there is none.
    pub(crate) size: u32,
    pub(crate) timeout_ms: u64,
    /// Lengths of the fields of the key, where ranges of them are elements.
    pub(crate) fields: &'static [u32],
}

/// An element of a set or map.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct SetElement {
    pub(crate) key: Vec<u8>,
    pub(crate) key_end: Option<Vec<u8>>,
    pub(crate) data: Option<ElementData>,
    /// The key is the first one behind an interval.
    pub(crate) ends_interval: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ElementData {
    Value(Vec<u8>),
    Verdict(RuleVerdict),
}

impl Batch {
    /// A batch that is refused if anybody changed anything since the generation given.
    pub(crate) fn new(generation: Option<u32>) -> Self {
        let mut batch = Self {
            writer: Writer::default(),
            start: 0,
            messages: 0,
            subjects: Vec::new(),
        };
        batch.begin(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM);
        if let Some(generation) = generation {
            batch.writer.number(1, generation);
        }
        batch.end();
        batch
    }

    /// The octets to send, and the sequence number of the message that is acknowledged.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32, Vec<Subject>) {
        let last = self.messages.saturating_sub(1);
        let flags = REQUEST | ACKNOWLEDGE | self.flags_at_start();
        self.writer.overwrite(self.start + 6, &flags.to_ne_bytes());
        self.begin(BATCH_END, REQUEST, 0, SUBSYSTEM);
        self.end();
        (self.writer.into_octets(), last, self.subjects)
    }

    fn flags_at_start(&self) -> u16 {
        self.subjects
            .last()
            .map_or(0, |subject| match subject.verb {
                "create" => CREATE,
                "append" => CREATE | APPEND,
                _ => 0,
            })
    }

    fn begin(&mut self, kind: u16, flags: u16, family: Family, resource: u16) {
        self.start = self.writer.len();
        write_header(
            &mut self.writer,
            kind,
            flags,
            self.messages,
            family,
            resource,
        );
    }

    fn end(&mut self) {
        let length = u32::try_from(self.writer.len() - self.start).unwrap_or(u32::MAX);
        self.writer.overwrite(self.start, &length.to_ne_bytes());
        self.messages += 1;
    }

    fn message(
        &mut self,
        kind: u16,
        subject: Subject,
        family: Family,
        content: impl FnOnce(&mut Writer),
    ) {
        // Begin has the sequence number 0 and no subject of its own.
        if self.subjects.is_empty() {
            self.subjects.push(Subject {
                verb: "commit",
                table: subject.table,
                name: "the batch".to_owned(),
            });
        }
        self.subjects.push(subject);
        let flags = REQUEST | self.flags_at_start();
        self.begin(SUBSYSTEM << 8 | kind, flags, family, 0);
        content(&mut self.writer);
        self.end();
    }

    /// Creates a table, or changes its flags.
    pub(crate) fn new_table(&mut self, family: Family, table: &'static str, dormant: bool) {
        let subject = Subject {
            verb: "create",
            table,
            name: format!("table {table}"),
        };
        self.message(NEW_TABLE, subject, family, |writer| {
            writer.text(1, table);
            writer.number(2, u32::from(dormant));
        });
    }

    pub(crate) fn delete_table(&mut self, family: Family, table: &'static str) {
        let subject = Subject {
            verb: "delete",
            table,
            name: format!("table {table}"),
        };
        self.message(DELETE_TABLE, subject, family, |writer| {
            writer.text(1, table)
        });
    }

    pub(crate) fn new_chain(
        &mut self,
        family: Family,
        table: &'static str,
        chain: &str,
        hook: Option<Hook>,
    ) {
        let subject = Subject {
            verb: "create",
            table,
            name: format!("chain {chain}"),
        };
        self.message(NEW_CHAIN, subject, family, |writer| {
            writer.text(1, table);
            writer.text(3, chain);
            if let Some(hook) = hook {
                writer.nested(4, |writer| {
                    writer.number(1, hook.number);
                    writer.attribute(2, &hook.priority.to_be_bytes());
                });
                writer.number(5, ACCEPT);
                writer.text(7, hook.kind);
            }
        });
    }

    /// Deletes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, family: Family, table: &'static str, chain: &str) {
        let subject = Subject {
            verb: "flush",
            table,
            name: format!("chain {chain}"),
        };
        self.message(DELETE_RULE, subject, family, |writer| {
            writer.text(1, table);
            writer.text(2, chain);
        });
    }

    pub(crate) fn new_rule(
        &mut self,
        family: Family,
        table: &'static str,
        chain: &str,
        rule: &[Expression],
    ) {
        let subject = Subject {
            verb: "append",
            table,
            name: format!("rule of chain {chain}"),
        };
        self.message(NEW_RULE, subject, family, |writer| {
            writer.text(1, table);
            writer.text(2, chain);
            writer.nested(4, |writer| {
                for expression in rule {
                    expression.write(writer);
                }
            });
        });
    }

    /// Creates a set; `remarks` is what the program `nft` needs to print it.
    pub(crate) fn new_set(
        &mut self,
        family: Family,
        table: &'static str,
        shape: &SetShape,
        remarks: &[u8],
    ) {
        let number = self.messages;
        let subject = Subject {
            verb: "create",
            table,
            name: format!("set {}", shape.name),
        };
        self.message(NEW_SET, subject, family, |writer| {
            writer.text(1, table);
            writer.text(2, shape.name);
            writer.number(3, shape.flags);
            writer.number(4, shape.key_type);
            writer.number(5, shape.key_length);
            if let Some((data_type, data_length)) = shape.data {
                writer.number(6, data_type);
                writer.number(7, data_length);
            }
            writer.number(10, number);
            if shape.size > 0 || !shape.fields.is_empty() {
                writer.nested(9, |writer| {
                    if shape.size > 0 {
                        writer.number(1, shape.size);
                    }
                    if !shape.fields.is_empty() {
                        writer.nested(2, |writer| {
                            for length in shape.fields {
                                writer.nested(1, |writer| writer.number(1, *length));
                            }
                        });
                    }
                });
            }
            if shape.timeout_ms > 0 {
                writer.number64(11, shape.timeout_ms);
            }
            writer.attribute(13, remarks);
        });
    }

    pub(crate) fn new_elements(
        &mut self,
        family: Family,
        table: &'static str,
        set: &str,
        elements: impl IntoIterator<Item = SetElement>,
    ) {
        self.elements(NEW_SET_ELEMENT, "create", family, table, set, elements);
    }

    pub(crate) fn delete_elements(
        &mut self,
        family: Family,
        table: &'static str,
        set: &str,
        elements: impl IntoIterator<Item = SetElement>,
    ) {
        self.elements(DELETE_SET_ELEMENT, "delete", family, table, set, elements);
    }

    /// As many messages as it takes: the length of a nested attribute has 16 bits.
    fn elements(
        &mut self,
        kind: u16,
        verb: &'static str,
        family: Family,
        table: &'static str,
        set: &str,
        elements: impl IntoIterator<Item = SetElement>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let subject = Subject {
                verb,
                table,
                name: format!("elements of set {set}"),
            };
            self.message(kind, subject, family, |writer| {
                writer.text(1, table);
                writer.text(2, set);
                writer.nested(3, |writer| {
                    let limit = writer.len() + LONGEST_LIST;
                    while writer.len() < limit
                        && let Some(element) = elements.next()
                    {
                        writer.nested(1, |writer| element.write(writer));
                    }
                });
            });
        }
    }
}

impl SetElement {
    pub(crate) fn key(key: Vec<u8>) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    fn write(&self, writer: &mut Writer) {
        if self.ends_interval {
            writer.number(3, INTERVAL_END);
        }
        writer.nested(1, |writer| writer.attribute(DATA_VALUE, &self.key));
        if let Some(key_end) = &self.key_end {
            writer.nested(10, |writer| writer.attribute(DATA_VALUE, key_end));
        }
        match &self.data {
            None => {}
            Some(ElementData::Value(value)) => {
                writer.nested(2, |writer| writer.attribute(DATA_VALUE, value));
            }
            Some(ElementData::Verdict(verdict)) => writer.nested(2, |writer| verdict.write(writer)),
        }
    }

    /// Reads the elements in a message of a dump.
    pub(crate) fn read_all(message: &[u8]) -> impl Iterator<Item = Self> {
        attributes(find(message, 3).unwrap_or_default()).map(|(_, element)| Self::read(element))
    }

    fn read(element: &[u8]) -> Self {
        let value = |kind| find(find(element, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
        let verdict = || RuleVerdict::read(find(element, 2)?).map(ElementData::Verdict);
        Self {
            key: value(1).unwrap_or_default(),
            key_end: value(10),
            data: value(2).map(ElementData::Value).or_else(verdict),
            ends_interval: find_number(element, 3).unwrap_or(0) & INTERVAL_END != 0,
        }
    }
}

impl SetShape {
    /// Whether a message of a dump of sets describes this one.
    pub(crate) fn describes(&self, message: &[u8]) -> bool {
        let number = |kind| find_number(message, kind);
        find_text(message, 2) == Some(self.name)
            && number(3).unwrap_or(0) == self.flags
            && number(5) == Some(self.key_length)
            && match self.data {
                None => number(6).is_none(),
                Some((data_type, 0)) => number(6) == Some(data_type),
                Some((_, length)) => number(7) == Some(length),
            }
    }
}

impl Hook {
    /// Whether a message of a dump of chains describes a base chain that is here.
    pub(crate) fn describes(&self, message: &[u8]) -> bool {
        let hook = find(message, 4).unwrap_or_default();
        find_text(message, 7) == Some(self.kind)
            && find_number(hook, 1) == Some(self.number)
            && find(hook, 2) == Some(&self.priority.to_be_bytes())
            && find_number(message, 5).is_none_or(|policy| policy == ACCEPT)
    }
}

/// A request for a dump, or for one object.
pub(crate) fn get(
    kind: u16,
    dump: bool,
    sequence: u32,
    family: Family,
    content: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut writer = Writer::default();
    let flags = REQUEST | if dump { DUMP } else { 0 };
    write_header(
        &mut writer,
        SUBSYSTEM << 8 | kind,
        flags,
        sequence,
        family,
        0,
    );
    content(&mut writer);
    let length = u32::try_from(writer.len()).unwrap_or(u32::MAX);
    writer.overwrite(0, &length.to_ne_bytes());
    writer.into_octets()
}

fn write_header(
    writer: &mut Writer,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: Family,
    resource: u16,
) {
    let [kind_low, kind_high] = kind.to_ne_bytes();
    let [flags_low, flags_high] = flags.to_ne_bytes();
    let [resource_high, resource_low] = resource.to_be_bytes();
    writer.raw(&[0; 4]);
    writer.raw(&[kind_low, kind_high, flags_low, flags_high]);
    writer.raw(&sequence.to_ne_bytes());
    writer.raw(&[0; 4]);
    writer.raw(&[family, 0, resource_high, resource_low]);
}

/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
pub(crate) const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
pub(crate) const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
pub(crate) const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
pub(crate) const GET_SET: u16 = 10;
const NEW_SET_ELEMENT: u16 = 12;
pub(crate) const GET_SET_ELEMENT: u16 = 13;
const DELETE_SET_ELEMENT: u16 = 14;
pub(crate) const GET_GENERATION: u16 = 16;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// Octets of elements in one attribute; with the last element it stays below 64 KiB.
const LONGEST_LIST: usize = 60_000;
