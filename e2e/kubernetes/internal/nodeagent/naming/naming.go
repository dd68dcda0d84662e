// Package naming writes the files by which a Pod's processes look up names:
// /etc/resolv.conf and /etc/hosts.
package naming

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Cluster is where the cluster's own names are answered.
type Cluster struct {
	Servers []netip.Addr
	Domain  string
}

// Resolver is the meaning of a resolv.conf.
type Resolver struct {
	Servers  []string
	Searches []string
	Options  []string
}

// ParseResolver reads a resolv.conf; of what is said twice the last counts.
func ParseResolver(text string) Resolver {
	var resolver Resolver
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			resolver.Servers = append(resolver.Servers, words[1])
		case "search", "domain":
			resolver.Searches = words[1:]
		case "options":
			resolver.Options = words[1:]
		}
	}
	return resolver
}

// String is the resolv.conf.
func (r Resolver) String() string {
	var text strings.Builder
	for _, server := range r.Servers {
		fmt.Fprintf(&text, "nameserver %s\n", server)
	}
	if len(r.Searches) > 0 {
		fmt.Fprintf(&text, "search %s\n", strings.Join(r.Searches, " "))
	}
	if len(r.Options) > 0 {
		fmt.Fprintf(&text, "options %s\n", strings.Join(r.Options, " "))
	}
	return text.String()
}

// ResolverOf is what a Pod's dnsPolicy and dnsConfig ask for, given the node's own.
func ResolverOf(pod *v1.Pod, cluster Cluster, node Resolver) Resolver {
	resolver := byPolicy(pod, cluster, node)
	config := pod.Spec.DNSConfig
	if config == nil {
		return resolver
	}
	resolver.Servers = union(resolver.Servers, config.Nameservers)
	resolver.Searches = union(resolver.Searches, config.Searches)
	for _, option := range config.Options {
		resolver.Options = withOption(resolver.Options, option)
	}
	return resolver
}

func byPolicy(pod *v1.Pod, cluster Cluster, node Resolver) Resolver {
	policy := pod.Spec.DNSPolicy
	ofCluster := policy == v1.DNSClusterFirstWithHostNet || policy == v1.DNSClusterFirst && !pod.Spec.HostNetwork
	switch {
	case policy == v1.DNSNone:
		return Resolver{}
	case !ofCluster || len(cluster.Servers) == 0:
		return node
	}
	resolver := Resolver{Options: []string{"ndots:5"}}
	for _, server := range cluster.Servers {
		resolver.Servers = append(resolver.Servers, server.String())
	}
	own := []string{pod.Namespace + ".svc." + cluster.Domain, "svc." + cluster.Domain, cluster.Domain}
	resolver.Searches = union(own, node.Searches)
	return resolver
}

// withOption adds an option in the place of the one of its name.
func withOption(options []string, option v1.PodDNSConfigOption) []string {
	text := option.Name
	if option.Value != nil {
		text += ":" + *option.Value
	}
	options = slices.Clone(options)
	for index, other := range options {
		if name, _, _ := strings.Cut(other, ":"); name == option.Name {
			options[index] = text
			return options
		}
	}
	return append(options, text)
}

func union(one, other []string) []string {
	all := slices.Clone(one)
	for _, word := range other {
		if !slices.Contains(all, word) {
			all = append(all, word)
		}
	}
	return all
}

// Hosts is the /etc/hosts of a Pod with a network of its own.
func Hosts(pod *v1.Pod, hostname string, addresses []netip.Addr, domain string) string {
	var text strings.Builder
	text.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	names := hostname
	if pod.Spec.Subdomain != "" {
		names = fmt.Sprintf("%s.%s.%s.svc.%s\t%s", hostname, pod.Spec.Subdomain, pod.Namespace, domain, hostname)
	}
	for _, address := range addresses {
		fmt.Fprintf(&text, "%s\t%s\n", address, names)
	}
	text.WriteString(Aliases(pod))
	return text.String()
}

// Aliases are the lines of /etc/hosts that the Pod itself asks for.
func Aliases(pod *v1.Pod) string {
	var text strings.Builder
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&text, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return text.String()
}
