//! Which Events are written, and how often, with the time as an argument.
//!
//! The whole note belongs to the identity of an Event: news is never merged into an older Event, whose note would
//! then be read as if it still held. The same Event again is counted, and written rarely.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use config::service::Service;

/// What an Event is about.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// `kind` of the object.
    pub kind: String,
    /// Namespace of the object; none for objects of the cluster.
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: String,
    /// Identity of this very object.
    pub uid: String,
}

impl Subject {
    /// A Service.
    pub fn service(service: &Service) -> Self {
        Self {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: Some(service.key.namespace().to_owned()),
            name: service.key.name().to_owned(),
            uid: service.uid.as_ref().to_owned(),
        }
    }
}

/// Whether an Event is good news.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What is to be told about an object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Event {
    /// What it is about.
    pub subject: Subject,
    /// Whether it is good news.
    pub severity: Severity,
    /// Why, in one word of CamelCase.
    pub reason: String,
    /// What, for people; cut at 1024 octets.
    pub note: String,
}

/// What is to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// A new Event; `number` makes its name unique.
    Create {
        /// The Event.
        event: Event,
        /// Unique in this process.
        number: u64,
    },
    /// The Event with this number was told `count` times by now.
    Count {
        /// The Event.
        event: Event,
        /// The number it was created with.
        number: u64,
        /// How often it was told.
        count: i32,
    },
}

impl Write {
    /// The Event that it is about.
    pub fn event(&self) -> &Event {
        match self {
            Self::Create { event, .. } | Self::Count { event, .. } => event,
        }
    }

    /// The number of the Event, unique in this process.
    pub fn number(&self) -> u64 {
        match self {
            Self::Create { number, .. } | Self::Count { number, .. } => *number,
        }
    }
}

/// Merges repetitions and keeps the rate low.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    told: BTreeMap<Event, Told>,
    subjects: BTreeMap<Subject, Bucket>,
    writes: VecDeque<Write>,
    next_number: u64,
    suppressed: u64,
}

#[derive(Clone, Debug)]
struct Told {
    number: u64,
    count: i32,
    last_told: Instant,
    last_written: Instant,
    /// How long to wait before the count is written again; doubles each time.
    pause: Duration,
}

/// Tokens of one subject.
#[derive(Clone, Debug)]
struct Bucket {
    tokens: u32,
    since: Instant,
}

/// Events about one object that may be written at once; afterwards one each [`REFILL`].
const BURST: u32 = 25;
/// How often one more Event about an object may be written.
const REFILL: Duration = Duration::from_secs(10);
/// The first pause between two writes of the same Event; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two writes of the same Event; less than the hour that the API server keeps it.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// An Event that was not told for this long is a new one.
const FORGET: Duration = Duration::from_mins(30);
/// At this many remembered Events, half of them are forgotten.
const REMEMBERED: usize = 4096;
/// Longer ones are no help to anybody, and `events.k8s.io` would refuse them.
const LONGEST_NOTE: usize = 1024;

impl Recorder {
    /// Something is to be told at `now`.
    pub fn handle_event(&mut self, mut event: Event, now: Instant) {
        shorten(&mut event.note);
        self.make_room();
        let told = self.told.get_mut(&event);
        if let Some(told) = told.filter(|told| now < told.last_told + FORGET) {
            told.count = told.count.saturating_add(1);
            told.last_told = now;
            if now < told.last_written + told.pause {
                self.suppressed += 1;
                return;
            }
            told.last_written = now;
            told.pause = (told.pause * 2).min(LONGEST_PAUSE);
            let write = Write::Count {
                event: event.clone(),
                number: told.number,
                count: told.count,
            };
            return self.write(&event.subject, write, now);
        }
        let number = self.next_number;
        self.next_number += 1;
        let told = Told {
            number,
            count: 1,
            last_told: now,
            last_written: now,
            pause: FIRST_PAUSE,
        };
        self.told.insert(event.clone(), told);
        let subject = event.subject.clone();
        self.write(&subject, Write::Create { event, number }, now);
    }

    /// The next write; call until `None`.
    pub fn poll_write(&mut self) -> Option<Write> {
        self.writes.pop_front()
    }

    /// An Event could not be written or counted, because it or its namespace is gone: it is a new one when told again.
    pub fn handle_gone(&mut self, event: &Event) {
        self.told.remove(event);
    }

    /// How many were not written because they repeat or are too many.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    fn write(&mut self, subject: &Subject, write: Write, now: Instant) {
        let bucket = self.subjects.entry(subject.clone()).or_insert(Bucket {
            tokens: BURST,
            since: now,
        });
        while bucket.tokens < BURST && bucket.since + REFILL <= now {
            bucket.tokens += 1;
            bucket.since += REFILL;
        }
        if bucket.tokens == BURST {
            bucket.since = now;
        }
        if bucket.tokens > 0 {
            bucket.tokens -= 1;
            self.writes.push_back(write);
        } else {
            self.suppressed += 1;
            if let Write::Create { event, .. } = &write {
                // It was never written, so there is nothing to count later.
                self.told.remove(event);
            }
        }
    }

    /// Forgets the half of the Events that were not told for the longest, if there are too many.
    fn make_room(&mut self) {
        if self.told.len() < REMEMBERED {
            return;
        }
        let mut ages: Vec<Instant> = self.told.values().map(|told| told.last_told).collect();
        ages.sort_unstable();
        if let Some(&middle) = ages.get(REMEMBERED / 2) {
            self.told.retain(|_, told| told.last_told > middle);
        }
        let subjects: BTreeSet<_> = self.told.keys().map(|event| &event.subject).collect();
        self.subjects
            .retain(|subject, _| subjects.contains(subject));
    }
}

fn shorten(note: &mut String) {
    if note.len() > LONGEST_NOTE {
        let mut end = LONGEST_NOTE - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, note: &str) -> Event {
        Event {
            subject: Subject {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                namespace: Some("shop".to_owned()),
                name: name.to_owned(),
                uid: name.to_owned(),
            },
            severity: Severity::Normal,
            reason: "IPAllocated".to_owned(),
            note: note.to_owned(),
        }
    }

    fn writes(recorder: &mut Recorder) -> Vec<String> {
        std::iter::from_fn(|| recorder.poll_write())
            .map(|write| match write {
                Write::Create { event, .. } => format!("create {}", event.note),
                Write::Count { event, count, .. } => format!("count {} {count}", event.note),
            })
            .collect()
    }

    #[test]
    fn news_is_never_merged_into_an_older_event() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        recorder.handle_event(event("web", "assigned 192.0.2.1"), now);
        recorder.handle_event(event("web", "assigned 192.0.2.2"), now);
        assert_eq!(
            writes(&mut recorder),
            ["create assigned 192.0.2.1", "create assigned 192.0.2.2"]
        );
    }

    #[test]
    fn repetitions_are_counted_and_written_ever_more_rarely() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        for second in 0..100 {
            let later = now + Duration::from_secs(second);
            recorder.handle_event(event("web", "no pool"), later);
        }
        assert_eq!(
            writes(&mut recorder),
            [
                "create no pool",
                "count no pool 11",
                "count no pool 31",
                "count no pool 71"
            ]
        );
        assert_eq!(recorder.suppressed(), 96);
    }

    #[test]
    fn one_object_cannot_flood_and_harms_no_other() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        for number in 0..1000 {
            recorder.handle_event(event("loud", &format!("{number}")), now);
        }
        recorder.handle_event(event("quiet", "hello"), now);
        assert_eq!(writes(&mut recorder).len(), 26);
        let later = now + REFILL;
        recorder.handle_event(event("loud", "later"), later);
        recorder.handle_event(event("loud", "too many"), later);
        assert_eq!(writes(&mut recorder), ["create later"]);
    }

    #[test]
    fn what_is_gone_or_long_past_is_told_anew() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        recorder.handle_event(event("web", "no pool"), now);
        recorder.handle_event(event("web", "no pool"), now + FORGET);
        assert_eq!(writes(&mut recorder), ["create no pool", "create no pool"]);
        recorder.handle_gone(&event("web", "no pool"));
        recorder.handle_event(event("web", "no pool"), now + FORGET);
        assert_eq!(writes(&mut recorder), ["create no pool"]);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut recorder, now) = (Recorder::default(), Instant::now());
        for number in 0_u32..20_000 {
            let later = now + Duration::from_millis(number.into());
            recorder.handle_event(event(&format!("{number}"), "x"), later);
            recorder.poll_write();
        }
        assert!(recorder.told.len() <= REMEMBERED);
        assert!(recorder.subjects.len() <= REMEMBERED);
    }

    #[test]
    fn notes_are_cut_between_characters() {
        let mut note = "ä".repeat(1000);
        shorten(&mut note);
        assert!(note.len() <= LONGEST_NOTE && note.ends_with("ä…"));
    }
}
