// Package pod runs the Pods of a node: one worker for each Pod, one goroutine
// for each of its containers.
//
// The containers keep what they know in a State; the worker turns all of them
// into the status of the Pod and writes it when it differs from what the API
// server holds.
package pod

import (
	"net/netip"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/image"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/naming"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/network"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/restart"
)

// Host is what the Pods of a node share.
type Host struct {
	Node      string
	Addresses []netip.Addr
	Client    kubernetes.Interface
	Events    record.EventRecorder
	Images    image.Catalog
	Restart   restart.Policy
	Network   *network.Network
	// Naming is where the cluster's names are answered.
	Naming naming.Cluster
	// Directory holds one directory for each Pod, named by its UID.
	Directory string

	server server
}

// LogFile is where a container's output of one run is.
func (h *Host) LogFile(uid, container string, run int32) string {
	return filepath.Join(h.Directory, uid, container, logName(run))
}

// NamespaceOf is the name of the network namespace of a Pod.
func NamespaceOf(uid string) string {
	return "pod-" + uid[:min(len(uid), 8)]
}

func (h *Host) event(pod *v1.Pod, kind, reason, message string) {
	h.Events.Event(pod, kind, reason, message)
}

func (h *Host) warn(pod *v1.Pod, reason, message string) {
	h.event(pod, v1.EventTypeWarning, reason, message)
}

func (h *Host) note(pod *v1.Pod, reason, message string) {
	h.event(pod, v1.EventTypeNormal, reason, message)
}
