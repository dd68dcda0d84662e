//! The executable specification: what becomes of a flow.

use config::address::IpFamily;
use config::name::ServiceKey;

use crate::flow::{Destination, Flow, Origin, Reason, Verdict};
use crate::frontend::{Frontend, FrontendKey, Masquerade, Outcome, Place, UndefinedPort};
use crate::table::ForwardingTable;

impl ForwardingTable {
    /// What becomes of a flow.
    pub fn verdict(&self, flow: &Flow) -> Verdict {
        self.explain(flow).0
    }

    /// What becomes of a flow, and why.
    pub fn explain(&self, flow: &Flow) -> (Verdict, Reason) {
        if let Some((key, service, frontend)) = self.frontend_of(flow) {
            return self.through(key, service, frontend, flow);
        }
        if let Some((service, undefined)) = self.cluster_ip(flow.destination) {
            let service = service.clone();
            return match undefined {
                UndefinedPort::Reject => (Verdict::Reject, Reason::UndefinedPort { service }),
                UndefinedPort::Leave => (Verdict::NotOurs, Reason::OtherProxy { service }),
            };
        }
        let mut service_cidrs = self.context().service_cidrs.iter();
        if service_cidrs.any(|cidr| cidr.contains(&flow.destination)) {
            return (Verdict::Drop, Reason::Unallocated);
        }
        (Verdict::NotOurs, Reason::NotOurs)
    }

    /// The frontend that a flow is for: one of its very address goes before a NodePort.
    fn frontend_of(&self, flow: &Flow) -> Option<(FrontendKey, &ServiceKey, &Frontend)> {
        let at = |place| {
            let key = FrontendKey {
                place,
                protocol: flow.protocol,
                port: flow.port,
            };
            let (service, frontend) = self.frontend(&key)?;
            Some((key, service, &**frontend))
        };
        at(Place::Address(flow.destination)).or_else(|| {
            let is_of_node = self
                .context()
                .node_port_addresses
                .contains(&flow.destination);
            is_of_node
                .then(|| at(Place::Node(IpFamily::of(flow.destination))))
                .flatten()
        })
    }

    fn through(
        &self,
        key: FrontendKey,
        service: &ServiceKey,
        frontend: &Frontend,
        flow: &Flow,
    ) -> (Verdict, Reason) {
        let service = service.clone();
        if let Some(sources) = &frontend.sources
            && !sources.iter().any(|net| net.contains(&flow.source))
        {
            let source_address = flow.source;
            let reason = Reason::SourceNotAllowed {
                service,
                source_address,
            };
            return (Verdict::Drop, reason);
        }
        let frontend_key = key;
        let origin = self.context().origin(flow);
        let outcome = match origin {
            Origin::Pod | Origin::Node => &frontend.inside,
            Origin::Outside => &frontend.outside,
        };
        match outcome {
            Outcome::Forward(endpoints) => {
                let always = masqueraded(frontend.masquerade, origin);
                let destinations = endpoints.iter().map(|&endpoint| Destination {
                    endpoint,
                    masqueraded: always || endpoint.address == flow.source,
                });
                let verdict = Verdict::Forward {
                    destinations: destinations.collect(),
                    affinity_seconds: frontend.affinity_seconds,
                };
                let reason = Reason::Endpoints {
                    service,
                    frontend: frontend_key,
                };
                (verdict, reason)
            }
            Outcome::Reject => {
                let reason = Reason::NoEndpoint {
                    service,
                    frontend: frontend_key,
                };
                (Verdict::Reject, reason)
            }
            Outcome::Drop => {
                let reason = Reason::NoLocalEndpoint {
                    service,
                    frontend: frontend_key,
                };
                (Verdict::Drop, reason)
            }
        }
    }
}

/// Whether flows of this origin have their source replaced, whichever endpoint they go to.
fn masqueraded(rule: Masquerade, origin: Origin) -> bool {
    match rule {
        Masquerade::Always => true,
        Masquerade::UnlessPod => origin != Origin::Pod,
        Masquerade::OnlyNode => origin == Origin::Node,
        Masquerade::OnlyHairpin => false,
    }
}
