package pod

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestEnvironment(t *testing.T) {
	pod := &v1.Pod{}
	pod.Name, pod.Namespace, pod.UID = "web", "shop", "1-2"
	pod.Labels = map[string]string{"app": "web"}
	around := surroundings{
		node: "one", hostname: "web",
		hostIPs:   []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		addresses: []netip.Addr{netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("2001:db8:1::2")},
	}
	field := func(path string) v1.EnvVar {
		return v1.EnvVar{Name: "A", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}}
	}
	for name, row := range map[string]struct {
		variables []v1.EnvVar
		want      string
	}{
		"a value":                  {[]v1.EnvVar{{Name: "A", Value: "b c"}}, "A=b c"},
		"a value of another":       {[]v1.EnvVar{{Name: "B", Value: "b"}, {Name: "A", Value: "$(B)-$(C)-$$(B)"}}, "A=b-$(C)-$(B)"},
		"the last one counts":      {[]v1.EnvVar{{Name: "A", Value: "b"}, {Name: "A", Value: "c"}}, "A=c"},
		"a search path":            {[]v1.EnvVar{{Name: "PATH", Value: "/lab"}}, "PATH=/lab"},
		"the Pod's name":           {[]v1.EnvVar{field("metadata.name")}, "A=web"},
		"the namespace":            {[]v1.EnvVar{field("metadata.namespace")}, "A=shop"},
		"the UID":                  {[]v1.EnvVar{field("metadata.uid")}, "A=1-2"},
		"a label":                  {[]v1.EnvVar{field("metadata.labels['app']")}, "A=web"},
		"the node":                 {[]v1.EnvVar{field("spec.nodeName")}, "A=one"},
		"an address":               {[]v1.EnvVar{field("status.podIP")}, "A=10.0.1.2"},
		"all addresses":            {[]v1.EnvVar{field("status.podIPs")}, "A=10.0.1.2,2001:db8:1::2"},
		"the node's address":       {[]v1.EnvVar{field("status.hostIP")}, "A=192.0.2.1"},
		"no such field":            {[]v1.EnvVar{field("spec.nonsense")}, ""},
		"what is not supported":    {[]v1.EnvVar{{Name: "A", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{}}}}, ""},
		"the host name by default": {nil, "HOSTNAME=web"},
	} {
		container := &v1.Container{Name: "main", Env: row.variables, Args: []string{"$(A)", "$(HOSTNAME)"}}
		entries, _, args, err := environment(pod, container, around)
		if row.want == "" {
			if err == nil || !strings.Contains(err.Error(), "variable A") {
				t.Errorf("%s: %v, %v", name, entries, err)
			}
			continue
		}
		if err != nil || !slices.Contains(entries, row.want) || args[1] != "web" {
			t.Errorf("%s: %q, args %q, %v", name, entries, args, err)
		}
		names := map[string]bool{}
		for _, entry := range entries {
			variable, _, _ := strings.Cut(entry, "=")
			if names[variable] {
				t.Errorf("%s: %s is there twice", name, variable)
			}
			names[variable] = true
		}
	}
}
