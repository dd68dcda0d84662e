package network

import (
	"net/netip"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestHostPorts(t *testing.T) {
	addresses := []netip.Addr{netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("2001:db8:1::2")}
	port := func(host string) v1.ContainerPort {
		return v1.ContainerPort{HostIP: host, HostPort: 5000, ContainerPort: 80, Protocol: v1.ProtocolUDP}
	}
	for name, row := range map[string]struct {
		port        v1.ContainerPort
		hostNetwork bool
		want        []string
	}{
		"every address": {port: port(""), want: []string{
			"meta l4proto udp th dport 5000 dnat ip to 10.0.1.2:80", "meta l4proto udp th dport 5000 dnat ip6 to [2001:db8:1::2]:80",
		}},
		"every address, written out": {port: port("0.0.0.0"), want: []string{
			"meta l4proto udp th dport 5000 dnat ip to 10.0.1.2:80", "meta l4proto udp th dport 5000 dnat ip6 to [2001:db8:1::2]:80",
		}},
		"one address":         {port: port("192.0.2.1"), want: []string{"ip daddr 192.0.2.1 meta l4proto udp th dport 5000 dnat ip to 10.0.1.2:80"}},
		"no host port":        {port: v1.ContainerPort{ContainerPort: 80}},
		"the node's network":  {port: port(""), hostNetwork: true},
		"an address of IPv6":  {port: port("2001:db8::1"), want: []string{"ip6 daddr 2001:db8::1 meta l4proto udp th dport 5000 dnat ip6 to [2001:db8:1::2]:80"}},
		"loopback of a node ": {port: port("127.0.0.1"), want: []string{"ip daddr 127.0.0.1 meta l4proto udp th dport 5000 dnat ip to 10.0.1.2:80"}},
	} {
		pod := &v1.Pod{}
		pod.Spec.HostNetwork = row.hostNetwork
		pod.Spec.Containers = []v1.Container{{Ports: []v1.ContainerPort{row.port}}}
		var rules []string
		for line := range strings.Lines(portRules(HostPortsOf(pod, addresses))) {
			if strings.Contains(line, "dnat ip") {
				rules = append(rules, strings.TrimSpace(line))
			}
		}
		if got, want := strings.Join(rules, "\n"), strings.Join(row.want, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
}
