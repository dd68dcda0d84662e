package nodeagent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/pod"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/server"
)

// pods are the workers of the node's Pods.
type pods struct {
	host *pod.Host

	mutex   sync.Mutex
	workers map[types.UID]*pod.Worker
	ended   bool
}

func newPods(host *pod.Host) *pods {
	return &pods{host: host, workers: map[types.UID]*pod.Worker{}}
}

// watch follows the Pods that are bound to the node.
func (p *pods) watch(ctx context.Context, client kubernetes.Interface) {
	bound := fields.OneTermEqualSelector("spec.nodeName", p.host.Node).String()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.FieldSelector = bound }))
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { p.seen(object.(*v1.Pod)) },
		UpdateFunc: func(before, after any) {
			// One Pod may be deleted and another one of its name made unseen.
			if old := before.(*v1.Pod); old.UID != after.(*v1.Pod).UID {
				p.gone(old)
			}
			p.seen(after.(*v1.Pod))
		},
		DeleteFunc: func(object any) {
			if unseen, is := object.(cache.DeletedFinalStateUnknown); is {
				object = unseen.Obj
			}
			if deleted, is := object.(*v1.Pod); is {
				p.gone(deleted)
			}
		},
	})
	if err != nil {
		slog.Error("Pods are not watched", "error", err)
	}
	factory.Start(ctx.Done())
}

func (p *pods) seen(object *v1.Pod) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if worker, known := p.workers[object.UID]; known {
		worker.Update(object)
		return
	}
	if p.ended {
		return
	}
	worker := pod.Start(p.host, object)
	p.workers[object.UID] = worker
	go func() {
		<-worker.Done()
		p.mutex.Lock()
		defer p.mutex.Unlock()
		delete(p.workers, object.UID)
	}()
}

func (p *pods) gone(object *v1.Pod) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if worker, known := p.workers[object.UID]; known {
		worker.Abandon()
	}
}

// end ends all Pods at once, as the node's power would.
func (p *pods) end() {
	p.mutex.Lock()
	p.ended = true
	var left []*pod.Worker
	for _, worker := range p.workers {
		worker.Abandon()
		left = append(left, worker)
	}
	p.mutex.Unlock()
	patience := time.After(longestEnd)
	for _, worker := range left {
		select {
		case <-worker.Done():
		case <-patience:
			slog.Error("Pods do not end")
			return
		}
	}
}

// LogFile finds the log of a container.
func (p *pods) LogFile(namespace, name, container string, previous bool) (string, error) {
	worker, err := p.find(namespace, name)
	if err != nil {
		return "", err
	}
	return worker.LogFile(container, previous)
}

// Logs is where everything of the node's Pods is.
func (p *pods) Logs() string {
	return p.host.Directory
}

// Running finds a container that runs.
func (p *pods) Running(namespace, name, container string) (server.Run, error) {
	worker, err := p.find(namespace, name)
	if err != nil {
		return nil, err
	}
	run, err := worker.Running(container)
	if err != nil {
		return nil, err
	}
	return run, nil
}

// Pod finds how to connect to a Pod.
func (p *pods) Pod(namespace, name string) (server.Dial, error) {
	worker, err := p.find(namespace, name)
	if err != nil {
		return nil, err
	}
	return worker.Dial, nil
}

func (p *pods) find(namespace, name string) (*pod.Worker, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, worker := range p.workers {
		if worker.Is(namespace, name) {
			return worker, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s does not run on node %s", namespace, name, p.host.Node)
}

const longestEnd = 10 * time.Second
