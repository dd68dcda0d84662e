// Package network gives Pods their interfaces and addresses and connects the
// Pod networks of all nodes.
//
// Every packet of a Pod is routed by the node, also between two Pods of the
// same node: a Pod has a host route to the bridge's address and nothing else
// on the link. So connection tracking sees both directions of everything, and
// a Service whose endpoint is the neighbour works without br_netfilter.
// Nothing is masqueraded: the LAN needs routes to the Pod networks.
package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Network is the Pod side of one node's network.
type Network struct {
	bridge   netlink.Link
	prefixes []netip.Prefix

	mutex sync.Mutex
	slots *Slots
	taken map[string]uint32
	ports map[string][]HostPort
}

// Open makes the bridge with the first address of each network and turns
// forwarding on. What is there already stays.
func Open(prefixes []netip.Prefix) (*Network, error) {
	if err := writeSysctls(forwarding); err != nil {
		return nil, err
	}
	bridge, err := openBridge(prefixes)
	if err != nil {
		return nil, fmt.Errorf("make the bridge %s: %w", bridgeName, err)
	}
	first, last := podSlots(prefixes)
	return &Network{
		bridge:   bridge,
		prefixes: prefixes,
		slots:    NewSlots(first, last, rest),
		taken:    map[string]uint32{},
		ports:    map[string][]HostPort{},
	}, nil
}

func openBridge(prefixes []netip.Prefix) (netlink.Link, error) {
	off := false
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	attributes.HardwareAddr = hardwareAddress(prefixes, gatewaySlot)
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &off})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, err
	}
	if err := writeSysctls(bridgeSysctls); err != nil {
		return nil, err
	}
	for _, prefix := range prefixes {
		address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addressAt(prefix, gatewaySlot), prefix.Bits()))}
		if prefix.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(bridge, address); err != nil {
			return nil, fmt.Errorf("address %s: %w", address.IPNet, err)
		}
	}
	return bridge, netlink.LinkSetUp(bridge)
}

// hardwareAddress is derived from the slot, so that a neighbour entry for an
// address stays true when another Pod has it.
func hardwareAddress(prefixes []netip.Prefix, slot uint32) net.HardwareAddr {
	address := net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 0}
	tail := addressAt(prefixes[0], slot).AsSlice()
	binary.BigEndian.PutUint32(address[2:], binary.BigEndian.Uint32(tail[len(tail)-4:]))
	return address
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}

func single(address netip.Addr) netip.Prefix {
	return netip.PrefixFrom(address, address.BitLen())
}

// sysctl is a kernel setting of the current thread's network namespace.
type sysctl struct{ name, value string }

func writeSysctls(settings []sysctl) error {
	for _, setting := range settings {
		if err := os.WriteFile("/proc/sys/net/"+setting.name, []byte(setting.value), 0o644); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	return nil
}

const bridgeName = "cni0"

// rest is how long the address of a deleted Pod is left alone if possible.
const rest = 60 * time.Second

var forwarding = []sysctl{
	{"ipv4/ip_forward", "1"},
	{"ipv6/conf/all/forwarding", "1"},
	{"ipv4/conf/all/send_redirects", "0"},
}

var bridgeSysctls = []sysctl{
	{"ipv4/conf/" + bridgeName + "/send_redirects", "0"},
	// Host ports at 127.0.0.1 lead to Pods.
	{"ipv4/conf/" + bridgeName + "/route_localnet", "1"},
	{"ipv6/conf/" + bridgeName + "/accept_dad", "0"},
}

var podSysctls = []sysctl{
	{"ipv4/conf/all/accept_redirects", "0"},
	{"ipv6/conf/all/accept_redirects", "0"},
	{"ipv6/conf/default/accept_redirects", "0"},
	{"ipv6/conf/default/accept_ra", "0"},
	{"ipv6/conf/default/accept_dad", "0"},
}
