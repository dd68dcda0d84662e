//! A machine on the LAN: a network namespace with one interface there.

use anyhow::Result;

use crate::namespace::{Namespace, ip};
use crate::topology::{BRIDGE, INTERFACE, ROUTER_IPV4, ROUTER_IPV6};

/// Makes a network namespace with one interface on the LAN and a default route to the router.
pub(crate) fn plug_in(
    name: &str,
    port: &str,
    mac: &str,
    ipv4: &str,
    ipv6: &str,
) -> Result<Namespace> {
    let namespace = Namespace::create(name)?;
    ip(&[
        "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "address", mac, "netns",
        name,
    ])?;
    ip(&["link", "set", port, "master", BRIDGE, "up"])?;
    namespace.set_parameters(HOST)?;
    namespace.configure(&format!(
        "link set lo up
         addr add {ipv4} dev {INTERFACE}
         addr add {ipv6} dev {INTERFACE} nodad
         link set {INTERFACE} up
         route add default via {ROUTER_IPV4}
         route add default via {ROUTER_IPV6}"
    ))?;
    Ok(namespace)
}

/// Addresses are there at once: the lab knows that nobody else has them.
///
/// What the machine itself filters must not matter, so that is set too. A bridge is a switch: frames that pass it meet
/// no rules for packets, also where the module `br_netfilter` is loaded (a leading minus: if there is such a parameter).
pub(crate) const HOST: &str = "
net.ipv4.conf.all.rp_filter=0
net.ipv4.conf.default.rp_filter=0
net.ipv4.conf.all.arp_ignore=0
net.ipv4.conf.default.arp_ignore=0
-net.bridge.bridge-nf-call-arptables=0
-net.bridge.bridge-nf-call-iptables=0
-net.bridge.bridge-nf-call-ip6tables=0
net.ipv6.conf.all.accept_dad=0
net.ipv6.conf.default.accept_dad=0
net.ipv6.conf.all.accept_ra=0
net.ipv6.conf.default.accept_ra=0
";

/// What a node of a cluster needs, and the router too.
pub(crate) const FORWARDING: &str = "
net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
net.ipv6.conf.default.forwarding=1
";
