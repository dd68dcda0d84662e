package pod

import (
	"errors"
	"fmt"
	"time"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/network"
)

// launch makes the Pod's network and starts its containers: init containers
// one after the other, then all others together.
func (w *Worker) launch() {
	defer w.changed()
	defer close(w.launched)
	if !w.attach() || !w.provide() {
		return
	}
	go w.keepVolumes()
	for _, container := range w.initial {
		if container.snapshot().Over {
			if failed(container.snapshot()) {
				return
			}
			continue
		}
		if w.ending() {
			return
		}
		container.begin()
		if !w.awaitInitial(container) {
			return
		}
	}
	for _, container := range w.main {
		if w.ending() {
			return
		}
		if !container.snapshot().Over {
			container.begin()
		}
	}
}

// awaitInitial waits until the next container may start.
func (w *Worker) awaitInitial(container *container) bool {
	sidecar := w.isSidecar(container)
	started := container.started
	if !sidecar {
		started = nil
	}
	select {
	case <-started:
		return true
	case <-container.done:
		return !sidecar && !failed(container.snapshot())
	case <-w.stopping:
		return false
	}
}

// attach gives the Pod its network; it tries until it has one or the Pod goes.
func (w *Worker) attach() bool {
	pod := w.latest()
	for {
		attachment, err := w.connect()
		if err == nil {
			w.setAddresses(attachment)
			return true
		}
		w.host.warn(pod, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
		select {
		case <-w.stopping:
			return false
		case <-time.After(retryAttach):
		}
	}
}

func (w *Worker) connect() (network.Attachment, error) {
	if err := w.recordStart(); err != nil {
		return network.Attachment{}, err
	}
	if w.latest().Spec.HostNetwork {
		return network.Attachment{Addresses: w.host.Addresses}, nil
	}
	name := NamespaceOf(w.uid)
	attachment, err := w.host.Network.Attach(name)
	if err != nil {
		return network.Attachment{}, err
	}
	if err := w.host.Network.OpenPorts(name, network.HostPortsOf(w.latest(), attachment.Addresses)); err != nil {
		return network.Attachment{}, errors.Join(err, w.host.Network.Detach(name))
	}
	return attachment, nil
}

func (w *Worker) setAddresses(attachment network.Attachment) {
	w.mutex.Lock()
	w.addresses = attachment.Addresses
	w.attached = true
	w.mutex.Unlock()
}

func (w *Worker) ending() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}

func networkPath(uid string) string { return network.Path(NamespaceOf(uid)) }

const retryAttach = time.Second
