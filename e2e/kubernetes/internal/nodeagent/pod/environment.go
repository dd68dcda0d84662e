package pod

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// surroundings is what a container may ask for beyond its Pod's own fields.
type surroundings struct {
	node      string
	hostname  string
	hostIPs   []netip.Addr
	addresses []netip.Addr
	// server are the variables about the API server.
	server map[string]string
	// sources are the values of config maps and secrets.
	sources map[source]map[string]string
}

// environment is what a container's processes find in their environment, and
// its command and args with $(NAME) replaced.
func environment(pod *v1.Pod, container *v1.Container, around surroundings) (entries []string, command, args []string, err error) {
	values := map[string]string{"HOSTNAME": around.hostname, "PATH": searchPath, "HOME": "/root"}
	names := []string{"PATH", "HOSTNAME", "HOME"}
	mapping := expansion.MappingFuncFor(values)
	set := func(name, value string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		values[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(around.server)) {
		set(name, around.server[name])
	}
	for _, from := range container.EnvFrom {
		// What a config map or a secret holds is taken as it is.
		for _, variable := range variablesFrom(from, around.sources) {
			set(variable.Name, variable.Value)
		}
	}
	for _, variable := range container.Env {
		value, there := expansion.Expand(variable.Value, mapping), true
		if variable.ValueFrom != nil {
			if value, there, err = valueFrom(pod, container, variable.ValueFrom, around); err != nil {
				return nil, nil, nil, fmt.Errorf("container %s: variable %s: %w", container.Name, variable.Name, err)
			}
		}
		if there {
			set(variable.Name, value)
		}
	}
	for _, name := range names {
		entries = append(entries, name+"="+values[name])
	}
	expand := func(words []string) []string {
		var expanded []string
		for _, word := range words {
			expanded = append(expanded, expansion.Expand(word, mapping))
		}
		return expanded
	}
	return entries, expand(container.Command), expand(container.Args), nil
}

// valueFrom is the value of a variable; there is none if what it is taken from
// is missing and optional.
func valueFrom(pod *v1.Pod, container *v1.Container, from *v1.EnvVarSource, around surroundings) (value string, there bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = fieldOf(pod, from.FieldRef, around)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		key := from.ConfigMapKeyRef
		return keyOf(around.sources[source{name: key.Name}], "config map "+key.Name, key.Key, key.Optional)
	case from.SecretKeyRef != nil:
		key := from.SecretKeyRef
		return keyOf(around.sources[source{secret: true, name: key.Name}], "secret "+key.Name, key.Key, key.Optional)
	case from.ResourceFieldRef != nil:
		value, err = resource.ExtractContainerResourceValue(from.ResourceFieldRef, container)
		return value, true, err
	default:
		return "", false, fmt.Errorf("only values, fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef are supported by the lab's node agent")
	}
}

func keyOf(values map[string]string, object, key string, optional *bool) (value string, there bool, err error) {
	value, there = values[key]
	if !there && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("%s has no key %s", object, key)
	}
	return value, there, nil
}

// fieldOf is a field of the Pod as it is here and now.
func fieldOf(pod *v1.Pod, field *v1.ObjectFieldSelector, around surroundings) (string, error) {
	switch path := field.FieldPath; path {
	case "spec.nodeName":
		return around.node, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(around.hostIPs), nil
	case "status.hostIPs":
		return joined(around.hostIPs), nil
	case "status.podIP":
		return first(around.addresses), nil
	case "status.podIPs":
		return joined(around.addresses), nil
	default:
		return fieldpath.ExtractFieldPathAsString(pod, path)
	}
}

func first(addresses []netip.Addr) string {
	if len(addresses) == 0 {
		return ""
	}
	return addresses[0].String()
}

func joined(addresses []netip.Addr) string {
	var texts []string
	for _, address := range addresses {
		texts = append(texts, address.String())
	}
	return strings.Join(texts, ",")
}

// hostname is the Pod's host name as its processes see it.
func hostname(pod *v1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	return name
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
