package pod

import (
	"net/netip"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

var now = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

func running(ready bool) State {
	return State{Current: v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: now}}, Started: true, Ready: ready, ID: "x"}
}

func exited(code int32, over bool) State {
	return State{Current: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code}}, Over: over, ID: "x"}
}

func crashing() State {
	return State{Current: waiting("CrashLoopBackOff", ""), Last: exited(1, false).Current, ID: "x"}
}

func podWith(initial, main int, sidecar bool) *v1.Pod {
	pod := &v1.Pod{}
	names := []string{"a", "b", "c"}
	always := v1.ContainerRestartPolicyAlways
	for _, name := range names[:initial] {
		container := v1.Container{Name: "init-" + name}
		if sidecar {
			container.RestartPolicy = &always
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, container)
	}
	for _, name := range names[:main] {
		pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Name: name})
	}
	return pod
}

func TestPhaseAndReadiness(t *testing.T) {
	created := fresh("ContainerCreating")
	for name, row := range map[string]struct {
		initial, main []State
		sidecar       bool
		stopped       bool
		phase         v1.PodPhase
		ready         bool
	}{
		"nothing started":                         {main: []State{created}, phase: v1.PodPending},
		"one of two started":                      {main: []State{running(true), created}, phase: v1.PodPending},
		"all run and are ready":                   {main: []State{running(true), running(true)}, phase: v1.PodRunning, ready: true},
		"one is not ready":                        {main: []State{running(true), running(false)}, phase: v1.PodRunning},
		"one crashes again and again":             {main: []State{running(true), crashing()}, phase: v1.PodRunning},
		"the only one crashes again and again":    {main: []State{crashing()}, phase: v1.PodRunning},
		"ended, to be restarted":                  {main: []State{exited(1, false)}, phase: v1.PodRunning},
		"one of two is over":                      {main: []State{running(true), exited(0, true)}, phase: v1.PodRunning},
		"all over and well":                       {main: []State{exited(0, true), exited(0, true)}, phase: v1.PodSucceeded},
		"all over, one failed":                    {main: []State{exited(0, true), exited(3, true)}, phase: v1.PodFailed},
		"deleted, ended well":                     {main: []State{exited(0, true)}, stopped: true, phase: v1.PodSucceeded},
		"deleted, killed":                         {main: []State{exited(137, true)}, stopped: true, phase: v1.PodFailed},
		"deleted before it ran":                   {main: []State{created}, stopped: true, phase: v1.PodFailed},
		"an init container runs":                  {initial: []State{running(false)}, main: []State{created}, phase: v1.PodPending},
		"an init container failed for good":       {initial: []State{exited(1, true)}, main: []State{created}, phase: v1.PodFailed},
		"an init container is tried again":        {initial: []State{crashing()}, main: []State{created}, phase: v1.PodPending},
		"after the init container":                {initial: []State{exited(0, true)}, main: []State{running(true)}, phase: v1.PodRunning, ready: true},
		"a sidecar starts":                        {initial: []State{created}, sidecar: true, main: []State{created}, phase: v1.PodPending},
		"a sidecar runs beside":                   {initial: []State{running(true)}, sidecar: true, main: []State{running(true)}, phase: v1.PodRunning, ready: true},
		"a sidecar that is not ready counts":      {initial: []State{running(false)}, sidecar: true, main: []State{running(true)}, phase: v1.PodRunning},
		"a sidecar that runs keeps no Pod alive":  {initial: []State{running(true)}, sidecar: true, main: []State{exited(0, true)}, phase: v1.PodSucceeded},
		"a deleted one with a sidecar that ended": {initial: []State{exited(143, true)}, sidecar: true, main: []State{exited(0, true)}, stopped: true, phase: v1.PodSucceeded},
	} {
		pod := podWith(len(row.initial), len(row.main), row.sidecar)
		status := statusOf(pod, View{Started: now, Initial: row.initial, Main: row.main, Stopped: row.stopped})
		if status.Phase != row.phase {
			t.Errorf("%s: phase %s, want %s", name, status.Phase, row.phase)
		}
		if ready := podutil.IsPodReadyConditionTrue(status); ready != row.ready {
			t.Errorf("%s: ready %v, want %v: %+v", name, ready, row.ready, status.Conditions)
		}
	}
}

func TestStatusKeepsWhatOthersWrote(t *testing.T) {
	pod := podWith(0, 1, false)
	pod.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "lab/gate"}}
	gate := v1.PodCondition{Type: "lab/gate", Status: v1.ConditionFalse}
	pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionTrue}, gate}
	addresses := []netip.Addr{netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("2001:db8:1::2")}
	view := View{Started: now, HostIPs: addresses[:1], Addresses: addresses, Main: []State{running(true)}}
	status := statusOf(pod, view)
	if len(status.Conditions) != 6 || podutil.IsPodReadyConditionTrue(status) || !podutil.IsContainersReadyConditionTrue(status) {
		t.Errorf("conditions %+v", status.Conditions)
	}
	if status.PodIP != "10.0.1.2" || len(status.PodIPs) != 2 || status.PodIPs[1].IP != "2001:db8:1::2" {
		t.Errorf("podIPs %v", status.PodIPs)
	}
	pod.Status = status
	pod.Status.Conditions[1].Status = v1.ConditionTrue
	if status = statusOf(pod, view); !podutil.IsPodReadyConditionTrue(status) {
		t.Errorf("the gate is open: %+v", status.Conditions)
	}
}

func TestWhatAnEarlierAgentLeft(t *testing.T) {
	always := func(int32) bool { return true }
	onFailure := func(code int32) bool { return code != 0 }
	never := func(int32) bool { return false }
	ended := func(code int32) v1.ContainerState {
		return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code}}
	}
	for name, row := range map[string]struct {
		status   v1.ContainerStatus
		restarts func(int32) bool
		over     bool
		last     int32
	}{
		"it never ran":                {v1.ContainerStatus{State: waiting("ContainerCreating", "")}, never, false, -1},
		"it ran":                      {v1.ContainerStatus{State: running(true).Current}, always, false, 137},
		"it ran and may not again":    {v1.ContainerStatus{State: running(true).Current}, never, true, 137},
		"it had ended well":           {v1.ContainerStatus{State: ended(0)}, onFailure, true, 0},
		"it had failed":               {v1.ContainerStatus{State: ended(2)}, onFailure, false, 2},
		"it waited for its next run":  {v1.ContainerStatus{State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(2)}, always, false, 2},
		"it waited, and ends anyhow ": {v1.ContainerStatus{State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(2)}, never, true, 2},
	} {
		row.status.RestartCount = 4
		state := recovered(row.status, "ContainerCreating", row.restarts, now)
		end := state.Last.Terminated
		if state.Over {
			end = state.Current.Terminated
		}
		if state.Over != row.over || state.Restarts != 4 || (end == nil) != (row.last < 0) || (end != nil && end.ExitCode != row.last) {
			t.Errorf("%s: %+v", name, state)
		}
	}
}
