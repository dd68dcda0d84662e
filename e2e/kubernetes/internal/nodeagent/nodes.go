package nodeagent

import (
	"context"
	"log/slog"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// nodes are all Nodes of the cluster.
type nodes struct {
	lister listers.NodeLister
	// changed has a value after a change.
	changed chan struct{}
	// assigned has a value after a change, for who waits for Pod networks.
	assigned chan struct{}
}

func watchNodes(ctx context.Context, client kubernetes.Interface) *nodes {
	factory := informers.NewSharedInformerFactory(client, 0)
	watched := factory.Core().V1().Nodes()
	n := &nodes{lister: watched.Lister(), changed: make(chan struct{}, 1), assigned: make(chan struct{}, 1)}
	_, err := watched.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { n.poke() },
		UpdateFunc: func(any, any) { n.poke() },
		DeleteFunc: func(any) { n.poke() },
	})
	if err != nil {
		slog.Error("Nodes are not watched", "error", err)
	}
	factory.Start(ctx.Done())
	return n
}

func (n *nodes) poke() {
	for _, channel := range []chan struct{}{n.changed, n.assigned} {
		select {
		case channel <- struct{}{}:
		default:
		}
	}
}

func (n *nodes) list() []*v1.Node {
	all, err := n.lister.List(labels.Everything())
	if err != nil {
		return nil
	}
	return all
}

// podNetworks waits until the controller manager gave the node Pod networks.
func (n *nodes) podNetworks(ctx context.Context, name string) ([]string, error) {
	for {
		if node, err := n.lister.Get(name); err == nil && len(node.Spec.PodCIDRs) > 0 {
			return node.Spec.PodCIDRs, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-n.assigned:
		}
	}
}
