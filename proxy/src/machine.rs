//! The addresses of this machine, from the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use proxy_ipvs::KUBE_LINK;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;

/// Tells the addresses of the machine, at once and whenever they change, for ever.
pub async fn watch_addresses(addresses: watch::Sender<BTreeSet<IpAddr>>) {
    loop {
        if let Err(error) = follow(&addresses).await {
            tracing::warn!(error = %format_args!("{error:#}"), "Addresses of the machine not known");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(addresses: &watch::Sender<BTreeSet<IpAddr>>) -> anyhow::Result<()> {
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    let connection = tokio::spawn(connection);
    let followed = async {
        loop {
            let mut all = BTreeSet::new();
            // NodePorts are not offered on the addresses of Services.
            let of_services = index_of(&handle, KUBE_LINK).await;
            let mut answers = std::pin::pin!(handle.address().get().execute());
            while let Some(message) = answers.try_next().await? {
                let is_own = Some(message.header.index) != of_services;
                let families = [AddressFamily::Inet, AddressFamily::Inet6];
                if is_own && families.contains(&message.header.family) {
                    all.extend(own_address(&message.attributes));
                }
            }
            addresses.send_if_modified(|held| {
                let changed = *held != all;
                *held = all;
                changed
            });
            // Something changed; what comes right behind it is read with it.
            if messages.next().await.is_none() {
                anyhow::bail!("the netlink connection ended");
            }
            while futures::FutureExt::now_or_never(messages.next())
                .flatten()
                .is_some()
            {}
        }
    };
    let ended = followed.await;
    connection.abort();
    ended
}

/// The number of the interface of this name, if there is one.
async fn index_of(handle: &Handle, name: &str) -> Option<u32> {
    let named = handle.link().get().match_name(name.to_owned()).execute();
    let mut named = std::pin::pin!(named);
    // That there is none is an error too.
    let found = named.try_next().await.ok().flatten();
    found.map(|link| link.header.index)
}

/// On a point-to-point link the local address is apart from the address, which is then the peer's.
fn own_address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

const RETRY: Duration = Duration::from_secs(1);
