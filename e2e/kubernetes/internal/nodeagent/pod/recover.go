package pod

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// State is what is known of a container.
type State struct {
	Current  v1.ContainerState
	Last     v1.ContainerState
	Restarts int32
	Started  bool
	Ready    bool
	ID       string
	// Over says that the container does not start again.
	Over bool
}

// fresh is the state of a container that never ran.
func fresh(reason string) State {
	return State{Current: waiting(reason, "")}
}

func waiting(reason, message string) v1.ContainerState {
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// recovered is the state of a container after the agent itself was started
// again and ended what it had left running: what ran was killed, and what may
// not run again is over.
func recovered(status v1.ContainerStatus, reason string, restarts func(exitCode int32) bool, now metav1.Time) State {
	end := status.State.Terminated
	switch {
	case status.State.Running != nil:
		end = &v1.ContainerStateTerminated{
			ExitCode: 137, Signal: 9, Reason: "ContainerStatusUnknown",
			Message:   "the node agent was restarted and ended the container",
			StartedAt: status.State.Running.StartedAt, FinishedAt: now, ContainerID: status.ContainerID,
		}
	case end == nil:
		end = status.LastTerminationState.Terminated
	}
	if end == nil {
		return State{Current: waiting(reason, ""), Restarts: status.RestartCount}
	}
	ended := v1.ContainerState{Terminated: end}
	if !restarts(end.ExitCode) {
		return State{Current: ended, Restarts: status.RestartCount, ID: status.ContainerID, Over: true}
	}
	return State{Current: waiting(reason, ""), Last: ended, Restarts: status.RestartCount, ID: status.ContainerID}
}
