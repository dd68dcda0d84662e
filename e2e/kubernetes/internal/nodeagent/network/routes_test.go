package network

import (
	"maps"
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name string, networks []string, addresses ...string) *v1.Node {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	node.Spec.PodCIDRs = networks
	node.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}}
	for _, address := range addresses {
		node.Status.Addresses = append(node.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address})
	}
	return node
}

func TestRoutesLeadToOtherNodes(t *testing.T) {
	route := func(destination, via string) Route {
		return Route{Destination: netip.MustParsePrefix(destination), Via: netip.MustParseAddr(via)}
	}
	for name, row := range map[string]struct {
		nodes []*v1.Node
		want  []Route
	}{
		"none to oneself": {
			[]*v1.Node{node("self", []string{"10.0.1.0/24"}, "192.0.2.1")}, nil,
		},
		"each family by its own address": {
			[]*v1.Node{node("other", []string{"10.0.2.0/24", "2001:db8:2::/64"}, "2001:db8::2", "192.0.2.2")},
			[]Route{route("10.0.2.0/24", "192.0.2.2"), route("2001:db8:2::/64", "2001:db8::2")},
		},
		"none without an address of the family": {
			[]*v1.Node{node("other", []string{"10.0.2.0/24", "2001:db8:2::/64"}, "192.0.2.2")},
			[]Route{route("10.0.2.0/24", "192.0.2.2")},
		},
		"none without networks": {
			[]*v1.Node{node("other", nil, "192.0.2.2")}, nil,
		},
		"rubbish is left out": {
			[]*v1.Node{
				node("bad", []string{"10.0.300.0/24", "10.0.3.0/24"}, "192.0.2.300"),
				node("other", []string{"10.0.2.0/24"}, "rubbish", "192.0.2.2"),
			},
			[]Route{route("10.0.2.0/24", "192.0.2.2")},
		},
	} {
		want := map[Route]bool{}
		for _, route := range row.want {
			want[route] = true
		}
		if got := DesiredRoutes("self", row.nodes); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
