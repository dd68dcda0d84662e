package pod

import (
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubeletstatus "k8s.io/kubernetes/pkg/kubelet/status"
)

// View is what a Pod's status says.
type View struct {
	Started   metav1.Time
	HostIPs   []netip.Addr
	Addresses []netip.Addr
	Initial   []State
	Main      []State
	// Stopped says that a terminating Pod has nothing that runs.
	Stopped bool
}

// statusOf is the status of a Pod. The conditions that the kubelet computes are
// computed with the kubelet's own code; those of others stay.
func statusOf(pod *v1.Pod, view View) v1.PodStatus {
	status := *pod.Status.DeepCopy()
	status.ObservedGeneration = pod.Generation
	if status.StartTime == nil {
		status.StartTime = &view.Started
	}
	status.HostIP, status.HostIPs = first(view.HostIPs), nil
	for _, address := range view.HostIPs {
		status.HostIPs = append(status.HostIPs, v1.HostIP{IP: address.String()})
	}
	if len(view.Addresses) > 0 {
		status.PodIP, status.PodIPs = first(view.Addresses), nil
		for _, address := range view.Addresses {
			status.PodIPs = append(status.PodIPs, v1.PodIP{IP: address.String()})
		}
	}
	status.InitContainerStatuses = containerStatuses(pod.Spec.InitContainers, view.Initial, true)
	status.ContainerStatuses = containerStatuses(pod.Spec.Containers, view.Main, false)
	if status.Phase != v1.PodFailed && status.Phase != v1.PodSucceeded {
		status.Phase = phase(pod, view)
	}
	all := slices.Concat(status.InitContainerStatuses, status.ContainerStatuses)
	for _, condition := range []v1.PodCondition{
		readyToStart(view),
		kubeletstatus.GeneratePodInitializedCondition(pod, &pod.Status, all, status.Phase),
		kubeletstatus.GenerateContainersReadyCondition(pod, &pod.Status, all, status.Phase),
		kubeletstatus.GeneratePodReadyCondition(pod, &pod.Status, status.Conditions, all, status.Phase),
	} {
		condition.LastProbeTime = metav1.Time{}
		condition.ObservedGeneration = pod.Generation
		podutil.UpdatePodCondition(&status, &condition)
	}
	return status
}

func readyToStart(view View) v1.PodCondition {
	condition := v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionFalse}
	if len(view.Addresses) > 0 && !view.Stopped {
		condition.Status = v1.ConditionTrue
	}
	return condition
}

func containerStatuses(containers []v1.Container, states []State, initial bool) []v1.ContainerStatus {
	var statuses []v1.ContainerStatus
	for index, container := range containers {
		state := states[index]
		started := state.Started
		status := v1.ContainerStatus{
			Name:                 container.Name,
			State:                state.Current,
			LastTerminationState: state.Last,
			Ready:                state.Ready,
			Started:              &started,
			RestartCount:         state.Restarts,
			Image:                container.Image,
			ContainerID:          state.ID,
		}
		if state.ID != "" {
			status.ImageID = container.Image
		}
		if end := state.Current.Terminated; initial && end != nil && !podutil.IsRestartableInitContainer(&container) {
			status.Ready = end.ExitCode == 0
		}
		statuses = append(statuses, status)
	}
	return statuses
}

// phase follows the rules of the Pod lifecycle: pending until every
// container has run, failed or succeeded when none runs again.
func phase(pod *v1.Pod, view View) v1.PodPhase {
	for index, container := range pod.Spec.InitContainers {
		switch standing := view.Initial[index]; {
		case podutil.IsRestartableInitContainer(&container):
			if !standing.Started && !hasRun(standing) && !view.Stopped {
				return v1.PodPending
			}
		case standing.Over && failed(standing):
			return v1.PodFailed
		case !standing.Over && !view.Stopped:
			return v1.PodPending
		}
	}
	over, succeeded := 0, 0
	for _, state := range view.Main {
		if state.Current.Waiting != nil && !hasRun(state) && !view.Stopped {
			return v1.PodPending
		}
		if state.Over || view.Stopped {
			over++
			if !failed(state) {
				succeeded++
			}
		}
	}
	switch total := len(view.Main); {
	case over < total:
		return v1.PodRunning
	case succeeded == total:
		return v1.PodSucceeded
	default:
		return v1.PodFailed
	}
}

func hasRun(state State) bool {
	return state.Current.Terminated != nil || state.Last.Terminated != nil
}

// failed says of a container that does not run that its last run failed, or
// that it never had one.
func failed(state State) bool {
	end := state.Current.Terminated
	if end == nil {
		end = state.Last.Terminated
	}
	return end == nil || end.ExitCode != 0
}

// second is a time as the API server keeps it. With a fraction of a second the
// status would differ from what was written, again and again.
func second(moment time.Time) metav1.Time {
	return metav1.NewTime(moment).Rfc3339Copy()
}
