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
	around.server = map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
	around.sources = map[source]map[string]string{
		{name: "paint"}: {"colour": "$(B) blue"}, {secret: true, name: "paint"}: {"word": "open"},
	}
	keyOfMap := func(key string) v1.EnvVar {
		from := &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "paint"}, Key: key}
		return v1.EnvVar{Name: "A", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: from}}
	}
	fromSecret := v1.EnvFromSource{Prefix: "SECRET_", SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "paint"}}}
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
		"a key of a config map":    {[]v1.EnvVar{keyOfMap("colour")}, "A=$(B) blue"},
		"a key that is missing":    {[]v1.EnvVar{keyOfMap("size")}, ""},
		"the API server":           {nil, "KUBERNETES_SERVICE_HOST=10.0.0.1"},
		"from a secret":            {nil, "SECRET_word=open"},
		"a variable of that name":  {[]v1.EnvVar{{Name: "SECRET_word", Value: "shut"}}, "SECRET_word=shut"},
		"what is not supported":    {[]v1.EnvVar{{Name: "A", ValueFrom: &v1.EnvVarSource{}}}, ""},
		"the host name by default": {nil, "HOSTNAME=web"},
	} {
		container := &v1.Container{Name: "main", Env: row.variables, EnvFrom: []v1.EnvFromSource{fromSecret}, Args: []string{"$(A)", "$(HOSTNAME)"}}
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
