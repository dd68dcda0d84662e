package pod

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// surroundings is what a container may ask for beyond its Pod's own fields.
type surroundings struct {
	node      string
	hostname  string
	hostIPs   []netip.Addr
	addresses []netip.Addr
}

// environment is what a container's processes find in their environment, and
// its command and args with $(NAME) replaced.
func environment(pod *v1.Pod, container *v1.Container, around surroundings) (entries []string, command, args []string, err error) {
	values := map[string]string{"HOSTNAME": around.hostname, "PATH": searchPath, "HOME": "/root"}
	names := []string{"PATH", "HOSTNAME", "HOME"}
	mapping := expansion.MappingFuncFor(values)
	if len(container.EnvFrom) > 0 {
		return nil, nil, nil, fmt.Errorf("container %s: envFrom is not supported by the lab's node agent: write env entries", container.Name)
	}
	for _, variable := range container.Env {
		value := expansion.Expand(variable.Value, mapping)
		if variable.ValueFrom != nil {
			if value, err = valueFrom(pod, variable.ValueFrom, around); err != nil {
				return nil, nil, nil, fmt.Errorf("container %s: variable %s: %w", container.Name, variable.Name, err)
			}
		}
		if !slices.Contains(names, variable.Name) {
			names = append(names, variable.Name)
		}
		values[variable.Name] = value
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

func valueFrom(pod *v1.Pod, source *v1.EnvVarSource, around surroundings) (string, error) {
	if source.FieldRef == nil {
		return "", fmt.Errorf("only values and fieldRef are supported by the lab's node agent")
	}
	switch path := source.FieldRef.FieldPath; path {
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
