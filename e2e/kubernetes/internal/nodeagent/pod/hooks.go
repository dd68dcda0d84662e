package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/probe"
)

// afterStart runs the postStart hook of a run; a container whose hook fails is
// ended, and what comes next is for its restart policy to say.
func (c *container) afterStart(ctx context.Context, pod *v1.Pod, spec *v1.Container, run *process) bool {
	if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil {
		return true
	}
	if err := c.hook(ctx, spec, spec.Lifecycle.PostStart, run); err != nil {
		c.worker.host.warn(pod, "FailedPostStartHook", fmt.Sprintf("PostStartHook of container %s failed: %v", c.name, err))
		run.terminate(time.Now().Add(gracePeriod(pod, nil)), nil)
		return false
	}
	return true
}

// beforeStop is the preStop hook of the container's run, nil if it has none.
func (c *container) beforeStop(run *process) func(context.Context) {
	pod, spec := c.worker.specOf(c)
	if spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil {
		return nil
	}
	return func(ctx context.Context) {
		if err := c.hook(ctx, spec, spec.Lifecycle.PreStop, run); err != nil {
			c.worker.host.warn(pod, "FailedPreStopHook", fmt.Sprintf("PreStopHook of container %s failed: %v", c.name, err))
		}
	}
}

// hook runs a hook until it or the context ends.
func (c *container) hook(ctx context.Context, spec *v1.Container, hook *v1.LifecycleHandler, run *process) error {
	if hook.Sleep != nil {
		select {
		case <-time.After(time.Duration(hook.Sleep.Seconds) * time.Second):
		case <-ctx.Done():
		}
		return nil
	}
	target := probe.Target{
		Address:   first(c.worker.surroundings().addresses),
		Container: spec,
		Exec: func(ctx context.Context, command []string) (bool, string) {
			return runInside(ctx, c.worker.beside(run), command, run.environment, spec.WorkingDir)
		},
	}
	handler := v1.ProbeHandler{Exec: hook.Exec, HTTPGet: hook.HTTPGet, TCPSocket: hook.TCPSocket}
	timeout := hookTimeout
	if deadline, bounded := ctx.Deadline(); bounded {
		timeout = time.Until(deadline)
	}
	if success, message := target.Attempt(handler)(ctx, timeout); !success {
		return errors.New(message)
	}
	return nil
}

const hookTimeout = time.Minute
