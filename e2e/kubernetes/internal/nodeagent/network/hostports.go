package network

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// HostPort is a port of the node that leads to one of a Pod.
type HostPort struct {
	Protocol v1.Protocol
	// Address of the node; the zero value means all of them.
	Address netip.Addr
	Port    int32
	Target  netip.AddrPort
}

// HostPortsOf are those that a Pod with these addresses asks for.
func HostPortsOf(pod *v1.Pod, addresses []netip.Addr) []HostPort {
	if pod.Spec.HostNetwork {
		return nil
	}
	var all []HostPort
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, port := range container.Ports {
			if port.HostPort == 0 {
				continue
			}
			asked, err := netip.ParseAddr(port.HostIP)
			if err != nil || asked.IsUnspecified() {
				asked = netip.Addr{}
			}
			for _, address := range addresses {
				if asked.IsValid() && asked.Is4() != address.Is4() {
					continue
				}
				target := netip.AddrPortFrom(address, uint16(port.ContainerPort))
				all = append(all, HostPort{Protocol: port.Protocol, Address: asked, Port: port.HostPort, Target: target})
			}
		}
	}
	return all
}

// OpenPorts opens the host ports of a Pod's namespace, until it is detached.
func (n *Network) OpenPorts(name string, ports []HostPort) error {
	if len(ports) == 0 {
		return nil
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.ports[name] = ports
	return n.writePorts()
}

// closePorts closes those of a namespace. The caller holds the mutex.
func (n *Network) closePorts(name string) error {
	if _, known := n.ports[name]; !known {
		return nil
	}
	delete(n.ports, name)
	return n.writePorts()
}

// writePorts replaces all rules at once.
func (n *Network) writePorts() error {
	var all []HostPort
	for _, name := range slices.Sorted(maps.Keys(n.ports)) {
		all = append(all, n.ports[name]...)
	}
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(portRules(all))
	var complaint bytes.Buffer
	command.Stderr = &complaint
	if err := command.Run(); err != nil {
		return fmt.Errorf("open host ports: nft: %w: %s", err, complaint.String())
	}
	return nil
}

// portRules are for nft. A Pod that reaches itself, and the node's loopback, are
// masqueraded, or the answer would not come back this way.
func portRules(ports []HostPort) string {
	var open, hairpins strings.Builder
	seen := map[netip.Addr]bool{}
	for _, port := range ports {
		family := "ip"
		if port.Target.Addr().Is6() {
			family = "ip6"
		}
		fmt.Fprint(&open, "\t\t")
		if port.Address.IsValid() {
			fmt.Fprintf(&open, "%s daddr %s ", family, port.Address)
		}
		protocol := strings.ToLower(string(port.Protocol))
		fmt.Fprintf(&open, "meta l4proto %s th dport %d dnat %s to %s\n", protocol, port.Port, family, port.Target)
		if address := port.Target.Addr(); !seen[address] {
			seen[address] = true
			fmt.Fprintf(&hairpins, "\t\t%[1]s saddr %[2]s %[1]s daddr %[2]s masquerade\n", family, address)
		}
	}
	return fmt.Sprintf(portTable, open.String(), hairpins.String())
}

// portTable comes before the service proxies, which are at dstnat (-100) in both
// hooks, though nft has that name in one only: a node port is never a host port,
// since the scheduler and the API server give away neither twice.
const portTable = `table inet lab-host-ports
delete table inet lab-host-ports
table inet lab-host-ports {
	chain ports {
%s	}
	chain prerouting {
		type nat hook prerouting priority dstnat - 5
		fib daddr type local jump ports
	}
	chain output {
		type nat hook output priority -105
		fib daddr type local jump ports
	}
	chain postrouting {
		type nat hook postrouting priority srcnat - 5
		oifname "` + bridgeName + `" ip saddr 127.0.0.0/8 masquerade
		oifname "` + bridgeName + `" ip6 saddr ::1 masquerade
%s	}
}
`
