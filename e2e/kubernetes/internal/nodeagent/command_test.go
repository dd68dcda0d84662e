package nodeagent

import (
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	good := flags{
		node: "one", kubeconfig: "/keys/node-one.kubeconfig", addresses: []string{"192.0.2.1", "2001:db8::1"},
		podNetworks: []string{"10.0.1.0/24", "2001:db8:1::/64"}, images: []string{"sh=/bin/sh"}, labels: []string{"zone=a", "x/y="},
	}
	settings, err := good.parse()
	if err != nil {
		t.Fatal(err)
	}
	if settings.NetworkKubeconfig != "/keys/kube-proxy.kubeconfig" {
		t.Errorf("network kubeconfig %s", settings.NetworkKubeconfig)
	}
	if value, set := settings.Labels["x/y"]; !set || value != "" || settings.Labels["topology.kubernetes.io/zone"] != "a" {
		t.Errorf("labels %v", settings.Labels)
	}
	for name, row := range map[string]struct {
		bad  func(*flags)
		want string
	}{
		"an address":         {func(f *flags) { f.addresses = []string{"192.0.2.300"} }, `--node-addresses "192.0.2.300"`},
		"no network":         {func(f *flags) { f.podNetworks = []string{"10.0.1.0"} }, `--pod-networks "10.0.1.0"`},
		"host bits":          {func(f *flags) { f.podNetworks = []string{"10.0.1.1/24"} }, "write 10.0.1.0/24"},
		"too small":          {func(f *flags) { f.podNetworks = []string{"10.0.1.0/31"} }, "no room"},
		"a label":            {func(f *flags) { f.labels = []string{"zone"} }, "write KEY=VALUE"},
		"an image":           {func(f *flags) { f.images = []string{"sh"} }, "write NAME=PROGRAM"},
		"a label of no name": {func(f *flags) { f.labels = []string{"=a"} }, "write KEY=VALUE"},
	} {
		given := good
		row.bad(&given)
		if _, err := given.parse(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
