package naming

import (
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestResolvers(t *testing.T) {
	cluster := Cluster{Servers: []netip.Addr{netip.MustParseAddr("10.0.0.10")}, Domain: "cluster.local"}
	node := ParseResolver("# a comment\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch old\nsearch example.org cluster.local\noptions edns0 ndots:2\n")
	const ofNode = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.org cluster.local\noptions edns0 ndots:2\n"
	const ofCluster = "nameserver 10.0.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.org\noptions ndots:5\n"
	two := "2"
	for name, row := range map[string]struct {
		policy v1.DNSPolicy
		host   bool
		config *v1.PodDNSConfig
		want   string
	}{
		"cluster first":                             {v1.DNSClusterFirst, false, nil, ofCluster},
		"cluster first in the node's network":       {v1.DNSClusterFirst, true, nil, ofNode},
		"cluster first also in the node's network":  {v1.DNSClusterFirstWithHostNet, true, nil, ofCluster},
		"the node's":                                {v1.DNSDefault, false, nil, ofNode},
		"none":                                      {v1.DNSNone, false, nil, ""},
		"only its own":                              {v1.DNSNone, false, &v1.PodDNSConfig{Nameservers: []string{"192.0.2.9"}, Searches: []string{"a", "b"}}, "nameserver 192.0.2.9\nsearch a b\n"},
		"an option of its own":                      {v1.DNSClusterFirst, false, &v1.PodDNSConfig{Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}}}, "nameserver 10.0.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.org\noptions ndots:2 edns0\n"},
		"what the cluster says already counts once": {v1.DNSClusterFirst, false, &v1.PodDNSConfig{Nameservers: []string{"10.0.0.10"}, Searches: []string{"cluster.local"}}, ofCluster},
	} {
		pod := &v1.Pod{}
		pod.Namespace = "shop"
		pod.Spec = v1.PodSpec{DNSPolicy: row.policy, HostNetwork: row.host, DNSConfig: row.config}
		if got := ResolverOf(pod, cluster, node).String(); got != row.want {
			t.Errorf("%s: %q, not %q", name, got, row.want)
		}
	}
	if node.String() != ofNode {
		t.Errorf("the node's own became %q", node)
	}
}

func TestHosts(t *testing.T) {
	pod := &v1.Pod{}
	pod.Namespace = "shop"
	pod.Spec.Subdomain = "db"
	pod.Spec.HostAliases = []v1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"a", "b"}}}
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"10.0.1.2\tone.db.shop.svc.cluster.local\tone\n2001:db8::2\tone.db.shop.svc.cluster.local\tone\n192.0.2.7\ta\tb\n"
	addresses := []netip.Addr{netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("2001:db8::2")}
	if got := Hosts(pod, "one", addresses, "cluster.local"); got != want {
		t.Errorf("%q", got)
	}
}
