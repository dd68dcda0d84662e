package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/network"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/sandbox"
)

// Is says if this is the worker of the Pod of that name.
func (w *Worker) Is(namespace, name string) bool {
	pod := w.latest()
	return pod.Namespace == namespace && pod.Name == name
}

// LogFile is the log of the current or the previous run of a container.
func (w *Worker) LogFile(name string, previous bool) (string, error) {
	container, err := w.container(name)
	if err != nil {
		return "", err
	}
	return w.logOf(container, previous)
}

func (w *Worker) logOf(container *container, previous bool) (string, error) {
	state := container.snapshot()
	switch {
	case previous && state.Restarts == 0:
		return "", fmt.Errorf("container %s has no previous run", container.name)
	case previous:
		return w.host.LogFile(w.uid, container.name, state.Restarts-1), nil
	case state.ID == "":
		return "", fmt.Errorf("container %s is waiting to start: %s", container.name, reasonOf(state.Current))
	default:
		return w.host.LogFile(w.uid, container.name, state.Restarts), nil
	}
}

func reasonOf(state v1.ContainerState) string {
	if state.Waiting != nil {
		return state.Waiting.Reason
	}
	return "unknown"
}

// recordStart leaves a trace of the Pod, by which a later agent finds what
// this one may leave.
func (w *Worker) recordStart() error {
	return os.MkdirAll(filepath.Join(w.host.Directory, w.uid), 0o755)
}

// RemoveLeftover ends a Pod that an earlier agent left.
func RemoveLeftover(directory, uid string) error {
	inside := sandbox.Sandbox{UID: uid, Network: networkPath(uid)}
	return errors.Join(
		inside.Kill(),
		network.Remove(NamespaceOf(uid)),
		os.RemoveAll(filepath.Join(directory, uid)),
	)
}
