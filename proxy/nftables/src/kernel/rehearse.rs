//! Whether the kernel can do what we need, without having it done.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use config::address::IpFamily;
use config::name::ServiceKey;
use config::service::{Protocol, TrafficPolicy};
use ipnet::IpNet;
use nix::errno::Errno;
use proxy_table::{
    Endpoint, EndpointSet, ForwardingTable, Frontend, FrontendKey, FrontendKind, Masquerade,
    NodeContext, Outcome, Place, ServiceTable,
};

use super::steps::whole_asleep;
use super::{Kernel, KernelError, SocketError};
use crate::netlink::message::Batch;
use crate::program::Program;
use crate::program::schema::family_number;

impl Kernel {
    /// Has the kernel check everything that our tables are made of, and keep nothing.
    ///
    /// The batch makes them under another name, asleep, so that no packet enters them; and it ends with a message that has to be
    /// refused. The kernel goes through all of a batch before it takes it back, and tells those that listen only what it
    /// keeps.
    ///
    /// # Errors
    /// What the kernel refuses first.
    pub(crate) fn rehearse(&mut self) -> Result<(), KernelError> {
        Ok(refused_at_the_end(self.socket.commit(rehearsal()))?)
    }
}

fn rehearsal() -> Batch {
    let change = Program::default().diff(&Program::compile(&example()));
    let mut batch = whole_asleep(&change.unwrap_or_default(), TABLE);
    batch.flush_chain(family_number(IpFamily::V4), TABLE, NOWHERE);
    batch
}

/// A table whose program has one of everything.
fn example() -> ForwardingTable {
    const HTTP: NonZeroU16 = NonZeroU16::new(80).unwrap();
    const POD: NonZeroU16 = NonZeroU16::new(8080).unwrap();
    let mut table = ForwardingTable::new(Arc::new(NodeContext::new("example".into())));
    let choices = [None, NonZeroU32::new(60)];
    for (number, affinity_seconds) in (1..).zip(choices) {
        let mut service = ServiceTable::default();
        for (address, pods) in [
            (v4(192, number), [v4(198, 1), v4(198, 2)]),
            (v6(192, number), [v6(198, 1), v6(198, 2)]),
        ] {
            let endpoints = pods.map(|address| Endpoint { address, port: POD });
            let endpoints = EndpointSet::new(endpoints).map_or(Outcome::Reject, Outcome::Forward);
            let frontend = Frontend {
                kind: FrontendKind::ClusterIp,
                port: "http".into(),
                policy: TrafficPolicy::Cluster,
                inside: endpoints.clone(),
                outside: endpoints,
                masquerade: Masquerade::Always,
                affinity_seconds,
                scheduler: None,
                sources: Some([IpNet::from(address)].into()),
            };
            let key = FrontendKey {
                place: Place::Address(address),
                protocol: Protocol::Tcp,
                port: HTTP,
            };
            service.frontends.insert(key, Arc::new(frontend));
        }
        let key = ServiceKey::new("example", number.to_string());
        table.update(&key, Some(service));
    }
    table
}

/// Only the last message flushes anything.
fn refused_at_the_end(outcome: Result<(), SocketError>) -> Result<(), SocketError> {
    match outcome {
        Err(SocketError::Refused {
            verb: "flush",
            source: Errno::ENOENT,
            ..
        }) => Ok(()),
        outcome => outcome,
    }
}

fn v4(network: u8, host: u8) -> IpAddr {
    [network, 0, 2, host].into()
}

fn v6(network: u16, host: u8) -> IpAddr {
    [0x2001, 0xdb8, network, 0, 0, 0, 0, host.into()].into()
}

/// The name of tables that are never there.
const TABLE: &str = "foghorn-probe";
/// The name of a chain that the batch does not make.
const NOWHERE: &str = "nowhere";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::{Discriminant, discriminant};

    use proptest::prelude::*;
    use proxy_table::generate::any_scene;

    use super::*;
    use crate::netlink::expression::Expression;

    /// The kinds of expressions in a table's program, by family.
    fn kinds(table: &ForwardingTable) -> HashSet<(IpFamily, Discriminant<Expression>)> {
        let chains = Program::compile(table).chains;
        let rules = chains.into_iter().flat_map(|((family, _), rules)| {
            rules
                .into_iter()
                .flatten()
                .map(move |expression| (family, discriminant(&expression)))
        });
        rules.collect()
    }

    proptest! {
        #[test]
        fn every_expression_of_a_program_is_rehearsed(scene in any_scene(12)) {
            let rehearsed = kinds(&example());
            for kind in kinds(&scene.table()) {
                prop_assert!(rehearsed.contains(&kind), "{kind:?}");
            }
        }
    }

    fn refused(verb: &'static str, name: &str, source: Errno) -> Result<(), SocketError> {
        Err(SocketError::Refused {
            verb,
            table: TABLE,
            name: name.to_owned(),
            reason: None,
            source,
        })
    }

    #[test]
    fn what_is_refused_before_the_end_is_told() {
        for (outcome, expected) in [
            (refused("flush", "chain nowhere", Errno::ENOENT), None),
            (
                refused("create", "chain postrouting", Errno::ENOENT),
                Some("nf_tables refused to create chain postrouting in table foghorn-probe"),
            ),
            (
                refused("append", "rule of chain services", Errno::ENOENT),
                Some("nf_tables refused to append rule of chain services in table foghorn-probe"),
            ),
            (
                refused("flush", "chain nowhere", Errno::EPERM),
                Some("nf_tables refused to flush chain nowhere in table foghorn-probe"),
            ),
            (Err(SocketError::Silence), Some("nf_tables did not answer")),
        ] {
            let told = refused_at_the_end(outcome).err();
            assert_eq!(told.map(|error| error.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn the_last_message_alone_is_to_be_refused() {
        let (_, last, subjects) = rehearsal().finish();
        let flushed = (0..)
            .zip(&subjects)
            .filter(|(_, subject)| subject.verb == "flush");
        let flushed = flushed.map(|(number, subject)| (number, subject.name.as_str()));
        assert_eq!(flushed.collect::<Vec<_>>(), [(last, "chain nowhere")]);
        assert!(subjects.iter().all(|subject| subject.table == TABLE));
    }
}
