//! Addresses, speakers and LANs that the stories begin with.

use std::net::IpAddr;
use std::time::Duration;

use config::name::ServiceKey;
use speaker_announcer::candidates::{Contender, rank};
use speaker_announcer::{Configuration, Failback, Ineligible, Links, Partition, PlacementKey, Vip};

use crate::support::law::Bounds;
use crate::support::segment::Segment;

pub(crate) const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
pub(crate) const STEADY: Bounds = Bounds {
    unserved: Duration::from_millis(1500),
    doubled: Duration::from_millis(200),
    calm: Duration::from_secs(6),
};
pub(crate) const LOSSY: Bounds = Bounds {
    unserved: Duration::from_secs(4),
    doubled: Duration::from_millis(1500),
    calm: Duration::from_secs(6),
};

pub(crate) fn address(number: usize) -> IpAddr {
    let number = u8::try_from(number).unwrap();
    if number % 3 == 2 {
        format!("2001:db8::{:x}", 0x100 + u16::from(number))
            .parse()
            .unwrap()
    } else {
        IpAddr::from([192, 0, 2, 100 + number])
    }
}

/// A configuration with this many VIPs; `refused` may not own them.
pub(crate) fn configuration(names: &[&str], vips: usize, refused: &[&str]) -> Configuration {
    let vips = (0..vips).map(|number| {
        let placement = PlacementKey::Service(ServiceKey::new("default", format!("s{number}")));
        let contenders = names.iter().map(|&name| Contender {
            node: name.into(),
            preference: 0,
            eligibility: if refused.contains(&name) {
                Err(Ineligible::NoReadyLocalEndpoint)
            } else {
                Ok(())
            },
        });
        let vip = Vip {
            candidates: rank(&placement, contenders),
            placement,
            requested: None,
            failback: Failback::Never,
            partition: Partition::Available,
            links: Links::InSubnet,
        };
        (address(number), vip)
    });
    Configuration {
        vips: vips.collect(),
        speakers: names.iter().map(|&name| name.into()).collect(),
    }
}

/// The same with the candidates in the opposite order: the view of a node that has another snapshot.
pub(crate) fn reversed(configuration: &Configuration) -> Configuration {
    let mut reversed = configuration.clone();
    for vip in reversed.vips.values_mut() {
        vip.candidates.reverse();
    }
    reversed
}

pub(crate) fn settled(seed: u64, machines: usize, vips: usize) -> Segment {
    let names = &NAMES[..machines];
    let mut segment = Segment::new(seed, names, &configuration(names, vips, &[]));
    segment.start_all();
    segment.run(Duration::from_secs(3));
    for vip in (0..vips).map(address) {
        assert_eq!(
            segment.owners(vip).len(),
            1,
            "{vip}\n{}",
            segment.log.join("\n")
        );
    }
    segment
}

/// The moves of ownership since the last call.
pub(crate) fn moves(segment: &mut Segment) -> Vec<String> {
    let events = std::mem::take(&mut segment.events);
    events
        .iter()
        .filter(|(_, _, event)| event.owns().is_some())
        .map(|(_, machine, event)| format!("{}: {event}", segment.machines[*machine].name))
        .collect()
}

/// Hundreds of addresses of both families.
pub(crate) fn many(names: &[&str], vips: usize) -> Configuration {
    let one = configuration(names, 1, &[]).vips[&address(0)].clone();
    let vips = (0..vips).map(|number| {
        let placement =
            PlacementKey::Service(ServiceKey::new("default", format!("s{}", number / 2)));
        let contenders = names.iter().map(|&name| Contender {
            node: name.into(),
            preference: 0,
            eligibility: Ok(()),
        });
        let vip = Vip {
            candidates: rank(&placement, contenders),
            placement,
            ..one.clone()
        };
        let number = u32::try_from(number).unwrap();
        let address = if number % 2 == 0 {
            IpAddr::V4((0xc000_0210 + (number % 200)).into())
        } else {
            format!("2001:db8::{:x}", 0x1000 + number).parse().unwrap()
        };
        (address, vip)
    });
    Configuration {
        vips: vips.collect(),
        speakers: names.iter().map(|&name| name.into()).collect(),
    }
}

/// Addresses of Services of their own, which their first candidates share.
pub(crate) fn spread(names: &[&str], vips: u16) -> Configuration {
    let one = configuration(names, 1, &[]);
    let template = one.vips.values().next().unwrap();
    let vips = (0..vips).map(|number| {
        let placement = PlacementKey::Service(ServiceKey::new("many", format!("s{number}")));
        let contenders = names.iter().map(|&name| Contender {
            node: name.into(),
            preference: 0,
            eligibility: Ok(()),
        });
        let vip = Vip {
            candidates: rank(&placement, contenders),
            placement,
            links: Links::Named(["eth0".to_owned()].into()),
            ..template.clone()
        };
        let [high, low] = number.to_be_bytes();
        (IpAddr::from([198, 18, high, low]), vip)
    });
    Configuration {
        vips: vips.collect(),
        ..one.clone()
    }
}

/// The same, with this node asked for.
pub(crate) fn requested(mut configuration: Configuration, name: &str) -> Configuration {
    for vip in configuration.vips.values_mut() {
        vip.requested = Some(name.into());
        vip.candidates
            .sort_by_key(|candidate| candidate.node.as_str() != name);
    }
    configuration
}

/// The same, with this node drained.
pub(crate) fn drained(mut configuration: Configuration, name: &str) -> Configuration {
    for vip in configuration.vips.values_mut() {
        for candidate in &mut vip.candidates {
            if candidate.node.as_str() == name {
                candidate.eligibility = Err(Ineligible::Draining);
            }
        }
        vip.candidates
            .sort_by_key(|candidate| candidate.eligibility.is_err());
    }
    configuration
}
