// Package nodeagent is the node agent of the lab: it registers a Node and runs
// the Pods bound to it as processes in network namespaces.
package nodeagent

import (
	"context"
	"fmt"
	"net/netip"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/image"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/naming"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/restart"
)

// flags are the arguments as given.
type flags struct {
	node              string
	namespace         string
	kubeconfig        string
	networkKubeconfig string
	addresses         []string
	podNetworks       []string
	state             string
	images            []string
	labels            []string
	port              int32
	restart           restart.Policy
	clusterDNS        []string
	clusterDomain     string
}

// NewCommand is the subcommand `node-agent`.
func NewCommand() *cobra.Command {
	var given flags
	command := &cobra.Command{
		Use:          "node-agent",
		Short:        "Stand for a node: run its Pods as processes in network namespaces",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			settings, err := given.parse()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return Run(ctx, settings)
		},
	}
	set := command.Flags()
	set.StringVar(&given.node, "node-name", "", "name of the Node")
	set.StringVar(&given.namespace, "node-netns", "", "network namespace of the node in /run/netns, which the agent has to be started in (not checked if empty)")
	set.StringVar(&given.kubeconfig, "kubeconfig", "", "credentials of the node")
	set.StringVar(&given.networkKubeconfig, "network-kubeconfig", "", "credentials that may list all Nodes (default: kube-proxy.kubeconfig beside --kubeconfig)")
	set.StringSliceVar(&given.addresses, "node-addresses", nil, "internal addresses of the node, one for each family")
	set.StringSliceVar(&given.podNetworks, "pod-networks", nil, "Pod networks to register the Node with (default: what the controller manager assigns)")
	set.StringVar(&given.state, "state-directory", "", "where logs and traces of running Pods are kept")
	set.StringArrayVar(&given.images, "image", nil, "program that stands for an image: NAME=PROGRAM [ARGUMENT ..]; or NAME=DIRECTORY/ with its programs")
	set.StringArrayVar(&given.labels, "label", nil, "label of the Node: KEY=VALUE; zone=VALUE is topology.kubernetes.io/zone")
	set.Int32Var(&given.port, "port", 10250, "port of the node's HTTPS endpoint")
	set.DurationVar(&given.restart.Initial, "restart-backoff", 10*time.Second, "wait before the second restart of a container")
	set.DurationVar(&given.restart.Maximum, "restart-backoff-max", 5*time.Minute, "longest wait before a restart")
	set.StringSliceVar(&given.clusterDNS, "cluster-dns", []string{"10.96.0.10"}, "addresses of the cluster's DNS server")
	set.StringVar(&given.clusterDomain, "cluster-domain", "cluster.local", "domain of the cluster's names")
	for _, required := range []string{"node-name", "kubeconfig", "node-addresses", "state-directory"} {
		if err := command.MarkFlagRequired(required); err != nil {
			panic(err)
		}
	}
	return command
}

// parse turns the arguments into settings or says which one is wrong.
func (f flags) parse() (Settings, error) {
	settings := Settings{
		Node: f.node, Namespace: f.namespace, Kubeconfig: f.kubeconfig, NetworkKubeconfig: f.networkKubeconfig,
		State: f.state, Port: f.port, Restart: f.restart, Labels: map[string]string{},
		Naming: naming.Cluster{Domain: f.clusterDomain},
	}
	if settings.NetworkKubeconfig == "" {
		settings.NetworkKubeconfig = filepath.Join(filepath.Dir(f.kubeconfig), "kube-proxy.kubeconfig")
	}
	for _, text := range f.addresses {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return Settings{}, fmt.Errorf("--node-addresses %q: %w", text, err)
		}
		settings.Addresses = append(settings.Addresses, address)
	}
	for _, text := range f.clusterDNS {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return Settings{}, fmt.Errorf("--cluster-dns %q: %w", text, err)
		}
		settings.Naming.Servers = append(settings.Naming.Servers, address)
	}
	for _, text := range f.podNetworks {
		network, err := parseNetwork(text)
		if err != nil {
			return Settings{}, fmt.Errorf("--pod-networks %q: %w", text, err)
		}
		settings.PodNetworks = append(settings.PodNetworks, network)
	}
	for _, text := range f.labels {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" {
			return Settings{}, fmt.Errorf("--label %q: write KEY=VALUE", text)
		}
		if key == "zone" {
			key = "topology.kubernetes.io/zone"
		}
		settings.Labels[key] = value
	}
	var err error
	settings.Images, err = image.ParseCatalog(f.images)
	return settings, err
}

// parseNetwork takes networks with room for a bridge and a Pod.
func parseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if network != network.Masked() {
		return netip.Prefix{}, fmt.Errorf("has host bits set: write %s", network.Masked())
	}
	if network.Addr().BitLen()-network.Bits() < 2 {
		return netip.Prefix{}, fmt.Errorf("has no room for a bridge and a Pod: give it 4 addresses or more")
	}
	return network, nil
}
