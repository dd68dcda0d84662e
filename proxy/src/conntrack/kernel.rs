//! The kernel's table of connections, read and thinned out over netlink.

use std::io;
use std::sync::mpsc;
use std::thread;

use netlink_packet_core::Nla as _;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, Status};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::tuple::ends;
use super::{Entry, Expected};
use crate::netfilter::Netfilter;

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Sweep {
    /// How many entries were ended.
    pub deleted: usize,
    /// Why an entry could not be ended, if one could not.
    pub failed: Option<io::Error>,
}

/// Ends stale entries on a thread of its own, so that a large table never delays a sync.
#[derive(Clone, Debug)]
pub struct Cleaner {
    asked: mpsc::Sender<Expected>,
}

impl Cleaner {
    /// Starts the thread; `report` hears the result of each sweep.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(report: impl Fn(io::Result<Sweep>) + Send + 'static) -> io::Result<Self> {
        let (asked, questions) = mpsc::channel::<Expected>();
        thread::Builder::new()
            .name("conntrack".to_owned())
            .spawn(move || {
                while let Ok(mut expected) = questions.recv() {
                    while let Ok(later) = questions.try_recv() {
                        expected.merge(later);
                    }
                    report(sweep(&expected));
                }
            })?;
        Ok(Self { asked })
    }

    /// Asks for the entries that differ from what is expected to be ended, soon.
    pub fn ask(&self, expected: Expected) {
        if !expected.is_empty() && self.asked.send(expected).is_err() {
            tracing::error!("Conntrack thread has ended");
        }
    }
}

fn sweep(expected: &Expected) -> io::Result<Sweep> {
    let mut netfilter = Netfilter::open()?;
    let mut sweep = Sweep::default();
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        let mut stale = Vec::new();
        netfilter.dump(family, ConntrackMessage::Get(Vec::new()), |message| {
            stale.extend(deletion_if_stale(message, expected).map(|delete| (family, delete)));
        })?;
        let (deleted, failed) = netfilter.change(stale)?;
        sweep.deleted += deleted;
        sweep.failed = sweep.failed.or(failed);
    }
    Ok(sweep)
}

fn deletion_if_stale(
    message: NetfilterMessage,
    expected: &Expected,
) -> Option<NetfilterMessageInner> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
        return None;
    };
    let entry = entry(&attributes)?;
    expected.is_stale(&entry).then(|| {
        // The kernel finds an entry by its original tuple and zone; the identity keeps a successor from being meant.
        let names = attributes.into_iter().filter(|attribute| {
            matches!(attribute, ConntrackAttribute::CtaTupleOrig(_))
                || [CTA_ID, CTA_ZONE].contains(&attribute.kind())
        });
        ConntrackMessage::Delete(names.collect()).into()
    })
}

fn entry(attributes: &[ConntrackAttribute]) -> Option<Entry> {
    let mut found = (None, None);
    let mut answered = false;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => found.0 = ends(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => found.1 = ends(tuple),
            ConntrackAttribute::CtaStatus(status) => answered = status.contains(Status::SeenReply),
            _ => {}
        }
    }
    let (original, reply) = (found.0?, found.1?);
    Some(Entry {
        protocol: original.protocol,
        destination: original.destination,
        answers: reply.source,
        answered,
    })
}

/// `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
