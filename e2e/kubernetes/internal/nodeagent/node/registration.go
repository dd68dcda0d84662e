// Package node tells the API server about the node that the agent stands for.
package node

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-base/version"
)

// Description is what the API server is told about the node.
type Description struct {
	Name        string
	Addresses   []netip.Addr
	PodNetworks []netip.Prefix
	Labels      map[string]string
	Images      []string
	Port        int32
}

// Register creates the Node or brings an existing one up to date, ready or not
// yet, and returns it.
func Register(ctx context.Context, client kubernetes.Interface, description Description, ready bool) (*v1.Node, error) {
	nodes := client.CoreV1().Nodes()
	desired := &v1.Node{}
	desired.Name = description.Name
	desired.Labels = description.labels()
	for _, network := range description.PodNetworks {
		desired.Spec.PodCIDRs = append(desired.Spec.PodCIDRs, network.String())
	}
	if len(desired.Spec.PodCIDRs) > 0 {
		desired.Spec.PodCIDR = desired.Spec.PodCIDRs[0]
	}
	desired.Status = description.status(v1.NodeStatus{}, ready, metav1.Now())
	created, err := nodes.Create(ctx, desired, metav1.CreateOptions{})
	if err == nil || !apierrors.IsAlreadyExists(err) {
		return created, err
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		existing, err := nodes.Get(ctx, description.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		labels := maps.Clone(existing.Labels)
		maps.Copy(labels, desired.Labels)
		if equality.Semantic.DeepEqual(labels, existing.Labels) {
			return nil
		}
		existing.Labels = labels
		_, err = nodes.Update(ctx, existing, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return Report(ctx, client, description, ready)
}

// Report writes the node's status.
func Report(ctx context.Context, client kubernetes.Interface, description Description, ready bool) (*v1.Node, error) {
	nodes := client.CoreV1().Nodes()
	var written *v1.Node
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := nodes.Get(ctx, description.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status = description.status(node.Status, ready, metav1.Now())
		written, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
	return written, err
}

// KeepReporting writes a ready node's status now and then, and registers the
// node again if somebody deleted it.
func KeepReporting(ctx context.Context, client kubernetes.Interface, description Description) {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		call, cancel := context.WithTimeout(ctx, reportEvery)
		_, err := Report(call, client, description, true)
		if apierrors.IsNotFound(err) {
			_, err = Register(call, client, description, true)
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			slog.Warn("Node status is not written", "error", err)
		}
	}
}

func (d Description) labels() map[string]string {
	labels := map[string]string{
		v1.LabelHostname:   d.Name,
		v1.LabelOSStable:   runtime.GOOS,
		v1.LabelArchStable: runtime.GOARCH,
	}
	maps.Copy(labels, d.Labels)
	return labels
}

// status is the node's status; conditions that did not change keep the time of
// their last change, those of others stay.
func (d Description) status(held v1.NodeStatus, ready bool, now metav1.Time) v1.NodeStatus {
	status := *held.DeepCopy()
	status.Addresses = nil
	for _, address := range d.Addresses {
		status.Addresses = append(status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address.String()})
	}
	status.Addresses = append(status.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: d.Name})
	status.Capacity = v1.ResourceList{
		v1.ResourceCPU:              resource.MustParse("64"),
		v1.ResourceMemory:           resource.MustParse("256Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		v1.ResourcePods:             resource.MustParse("250"),
	}
	status.Allocatable = status.Capacity
	status.DaemonEndpoints.KubeletEndpoint.Port = d.Port
	status.NodeInfo = nodeInfo()
	status.Images = nil
	for _, image := range d.Images {
		status.Images = append(status.Images, v1.ContainerImage{Names: []string{image}})
	}
	for _, condition := range conditions(ready) {
		setCondition(&status, condition, now)
	}
	return status
}

func conditions(ready bool) []v1.NodeCondition {
	readiness := v1.NodeCondition{
		Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "the node agent runs Pods",
	}
	if !ready {
		readiness.Status = v1.ConditionFalse
		readiness.Reason = "KubeletNotReady"
		readiness.Message = "the node has no Pod networks yet"
	}
	return []v1.NodeCondition{
		{Type: v1.NodeMemoryPressure, Status: v1.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "memory is not watched"},
		{Type: v1.NodeDiskPressure, Status: v1.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "the disk is not watched"},
		{Type: v1.NodePIDPressure, Status: v1.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "processes are not counted"},
		readiness,
	}
}

func setCondition(status *v1.NodeStatus, condition v1.NodeCondition, now metav1.Time) {
	condition.LastHeartbeatTime, condition.LastTransitionTime = now, now
	for index, held := range status.Conditions {
		if held.Type != condition.Type {
			continue
		}
		if held.Status == condition.Status {
			condition.LastTransitionTime = held.LastTransitionTime
		}
		status.Conditions[index] = condition
		return
	}
	status.Conditions = append(status.Conditions, condition)
}

func nodeInfo() v1.NodeSystemInfo {
	var system unix.Utsname
	_ = unix.Uname(&system)
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return v1.NodeSystemInfo{
		BootID:                  strings.TrimSpace(string(boot)),
		KernelVersion:           unix.ByteSliceToString(system.Release[:]),
		OSImage:                 "network namespace",
		OperatingSystem:         runtime.GOOS,
		Architecture:            runtime.GOARCH,
		ContainerRuntimeVersion: "process://1",
		KubeletVersion:          version.Get().GitVersion,
	}
}

const reportEvery = 10 * time.Second
