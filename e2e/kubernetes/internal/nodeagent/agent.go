package nodeagent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/image"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/naming"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/network"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/node"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/pod"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/restart"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/server"
)

// Settings are the arguments of an agent.
type Settings struct {
	Node              string
	Namespace         string
	Kubeconfig        string
	NetworkKubeconfig string
	Addresses         []netip.Addr
	PodNetworks       []netip.Prefix
	State             string
	Images            image.Catalog
	Labels            map[string]string
	Port              int32
	Restart           restart.Policy
	Naming            naming.Cluster
}

// Run stands for the node until the context ends, and ends its Pods then.
func Run(ctx context.Context, settings Settings) error {
	if err := settings.checkNamespace(); err != nil {
		return err
	}
	directory := filepath.Join(settings.State, "pods")
	if err := removeLeftovers(directory); err != nil {
		return err
	}
	config, client, err := connect(settings.Kubeconfig)
	if err != nil {
		return err
	}
	_, networkClient, err := connect(settings.NetworkKubeconfig)
	if err != nil {
		return err
	}
	pods := newPods(&pod.Host{
		Node:      settings.Node,
		Addresses: settings.Addresses,
		Client:    client,
		Events:    recorder(client, settings.Node),
		Images:    settings.Images,
		Restart:   settings.Restart,
		Directory: directory,
		Naming:    settings.Naming,
	})
	if err := settings.serve(ctx, config, pods); err != nil {
		return err
	}
	nodes := watchNodes(ctx, networkClient)
	description := settings.describe()
	pods.host.Network, err = settings.openNetwork(ctx, client, description, nodes)
	if err != nil {
		return stopped(ctx, err)
	}
	slog.Info("Node is ready", "node", settings.Node)
	go network.KeepRoutes(ctx, nodes.changed, func() map[network.Route]bool {
		return network.DesiredRoutes(settings.Node, nodes.list())
	})
	go node.KeepReporting(ctx, client, description)
	go lease.NewController(
		clock.RealClock{}, client, settings.Node, leaseSeconds, nil, renewEvery,
		settings.Node, v1.NamespaceNodeLease, nil,
	).Run(ctx)
	pods.watch(ctx, client)
	<-ctx.Done()
	pods.end()
	return nil
}

// stopped is no error if the agent was told to stop.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// checkNamespace refuses to run in another network namespace than the node's:
// the agent would change the network of the machine.
func (s Settings) checkNamespace() error {
	if s.Namespace == "" {
		return nil
	}
	var own, wanted unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		return err
	}
	path := network.Path(s.Namespace)
	if err := unix.Stat(path, &wanted); err != nil {
		return fmt.Errorf("--node-netns %s: %s: %w", s.Namespace, path, err)
	}
	if own.Dev != wanted.Dev || own.Ino != wanted.Ino {
		return fmt.Errorf("the agent runs in another network namespace than %s: start it with nsenter --net=%s", s.Namespace, path)
	}
	return nil
}

func (s Settings) describe() node.Description {
	return node.Description{
		Name: s.Node, Addresses: s.Addresses, PodNetworks: s.PodNetworks,
		Labels: s.Labels, Images: s.Images.Names(), Port: s.Port,
	}
}

// serve starts the node's HTTPS endpoint.
func (s Settings) serve(ctx context.Context, config *rest.Config, pods *pods) error {
	var addresses []net.IP
	for _, address := range s.Addresses {
		addresses = append(addresses, address.AsSlice())
	}
	endpoint, err := server.New(s.Node, addresses, config.CAData, pods)
	if err != nil {
		return err
	}
	go func() {
		if err := endpoint.Serve(ctx, s.Port); err != nil {
			slog.Error("Logs are not served", "port", s.Port, "error", err)
		}
	}()
	return nil
}

// openNetwork registers the Node, waits for its Pod networks and opens them.
// The API server's word on them counts.
func (s Settings) openNetwork(ctx context.Context, client kubernetes.Interface, description node.Description, nodes *nodes) (*network.Network, error) {
	registered, err := s.register(ctx, client, description)
	if err != nil {
		return nil, err
	}
	texts := registered.Spec.PodCIDRs
	if len(texts) == 0 {
		if texts, err = nodes.podNetworks(ctx, s.Node); err != nil {
			return nil, err
		}
	}
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := parseNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("podCIDR %q of the Node: %w", text, err)
		}
		prefixes = append(prefixes, prefix)
	}
	opened, err := network.Open(prefixes)
	if err != nil {
		return nil, err
	}
	return opened, persist(ctx, "Node is not reported ready, it will be tried again", func() error {
		_, err := node.Report(ctx, client, description, true)
		return err
	})
}

// register waits for the API server.
func (s Settings) register(ctx context.Context, client kubernetes.Interface, description node.Description) (*v1.Node, error) {
	var registered *v1.Node
	err := persist(ctx, "Node is not registered, it will be tried again", func() error {
		var err error
		registered, err = node.Register(ctx, client, description, false)
		return err
	})
	return registered, err
}

// persist tries until it succeeds, the context ends or the API server finds the
// request itself wrong.
func persist(ctx context.Context, complaint string, try func() error) error {
	for {
		err := try()
		if err == nil || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			return err
		}
		slog.Warn(complaint, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryEvery):
		}
	}
}

func connect(kubeconfig string) (*rest.Config, kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	config.QPS = -1
	config.UserAgent = "foghorn-lab-node-agent"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	if err := rest.LoadTLSFiles(config); err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	return config, client, err
}

func recorder(client kubernetes.Interface, name string) record.EventRecorder {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: name})
}

// removeLeftovers ends what an agent left that was killed itself.
func removeLeftovers(directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		slog.Info("A Pod of an earlier run is ended", "pod", entry.Name())
		if err := pod.RemoveLeftover(directory, entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

const (
	leaseSeconds = 40
	renewEvery   = 10 * time.Second
	retryEvery   = 200 * time.Millisecond
)
