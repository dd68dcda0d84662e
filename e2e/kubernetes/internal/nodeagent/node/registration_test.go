package node

import (
	"net/netip"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

var description = Description{
	Name:        "one",
	Addresses:   []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	PodNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("2001:db8:1::/64")},
	Labels:      map[string]string{v1.LabelTopologyZone: "a"},
}

func TestTheNodeIsRegisteredAndAdopted(t *testing.T) {
	for name, existing := range map[string]*v1.Node{
		"a new one":                        nil,
		"one that somebody put a label on": {ObjectMeta: metav1.ObjectMeta{Name: "one", Labels: map[string]string{"mine": "yes"}}},
	} {
		client := fake.NewClientset()
		if existing != nil {
			client = fake.NewClientset(existing)
		}
		if _, err := Register(t.Context(), client, description, true); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		node, err := client.CoreV1().Nodes().Get(t.Context(), "one", metav1.GetOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if node.Labels[v1.LabelHostname] != "one" || node.Labels[v1.LabelTopologyZone] != "a" {
			t.Errorf("%s: labels %v", name, node.Labels)
		}
		if existing != nil && node.Labels["mine"] != "yes" {
			t.Errorf("%s: a foreign label is lost", name)
		}
		if existing == nil && len(node.Spec.PodCIDRs) != 2 {
			t.Errorf("%s: podCIDRs %v", name, node.Spec.PodCIDRs)
		}
		if len(node.Status.Addresses) != 3 || node.Status.Addresses[1].Address != "2001:db8::1" {
			t.Errorf("%s: addresses %v", name, node.Status.Addresses)
		}
	}
}

func TestAConditionKeepsTheTimeOfItsLastChange(t *testing.T) {
	early := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	late := metav1.NewTime(early.Add(time.Minute))
	for name, row := range map[string]struct {
		before, after bool
		want          metav1.Time
	}{
		"still ready":     {true, true, early},
		"ready now":       {false, true, late},
		"not ready now":   {true, false, late},
		"still not ready": {false, false, early},
	} {
		first := description.status(v1.NodeStatus{}, row.before, early)
		second := description.status(first, row.after, late)
		if len(second.Conditions) != 4 {
			t.Errorf("%s: conditions %v", name, second.Conditions)
		}
		ready := second.Conditions[3]
		if ready.Type != v1.NodeReady || ready.LastTransitionTime != row.want || ready.LastHeartbeatTime != late {
			t.Errorf("%s: %+v", name, ready)
		}
	}
}
