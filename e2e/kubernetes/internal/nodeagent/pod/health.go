package pod

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/probe"
)

// probe asks a run how it is: the startup probe first, then readiness and
// liveness together. Readiness is asked until the run ends, the others until
// the container is stopped.
func (c *container) probe(ctx context.Context, pod *v1.Pod, spec *v1.Container, run *process, environment []string) {
	target := probe.Target{
		Address:   first(c.worker.surroundings().addresses),
		Container: spec,
		Exec: func(ctx context.Context, command []string) (bool, string) {
			return runInside(ctx, c.worker.beside(run), command, environment, spec.WorkingDir)
		},
	}
	living, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.stopping:
			cancel()
		case <-living.Done():
		}
	}()
	if spec.StartupProbe != nil && !c.awaitStartup(living, pod, spec, run, target) {
		return
	}
	c.ifCurrent(run, func(state *State) {
		state.Started = true
		state.Ready = spec.ReadinessProbe == nil
	})
	if spec.LivenessProbe != nil {
		go c.watchLiveness(living, pod, spec, run, target)
	}
	if spec.ReadinessProbe != nil {
		c.watchReadiness(ctx, pod, spec, run, target)
	}
	<-ctx.Done()
}

// awaitStartup returns true once the startup probe succeeds.
func (c *container) awaitStartup(ctx context.Context, pod *v1.Pod, spec *v1.Container, run *process, target probe.Target) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	succeeded := false
	c.runProbe(ctx, pod, probe.Startup, spec.StartupProbe, target, func(verdict probe.Verdict) {
		switch verdict {
		case probe.Success:
			succeeded = true
			cancel()
		case probe.Failure:
			c.kill(pod, spec.StartupProbe, probe.Startup, run)
			cancel()
		}
	})
	return succeeded
}

func (c *container) watchLiveness(ctx context.Context, pod *v1.Pod, spec *v1.Container, run *process, target probe.Target) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.runProbe(ctx, pod, probe.Liveness, spec.LivenessProbe, target, func(verdict probe.Verdict) {
		if verdict == probe.Failure {
			c.kill(pod, spec.LivenessProbe, probe.Liveness, run)
			cancel()
		}
	})
}

func (c *container) watchReadiness(ctx context.Context, pod *v1.Pod, spec *v1.Container, run *process, target probe.Target) {
	c.runProbe(ctx, pod, probe.Readiness, spec.ReadinessProbe, target, func(verdict probe.Verdict) {
		c.ifCurrent(run, func(state *State) { state.Ready = verdict == probe.Success })
	})
}

// runProbe probes until the context ends; failures become Events.
func (c *container) runProbe(
	ctx context.Context, pod *v1.Pod, kind probe.Kind, spec *v1.Probe, target probe.Target, observe func(probe.Verdict),
) {
	timing := probe.TimingOf(spec)
	probe.Run(ctx, kind, timing, target.Attempt(spec.ProbeHandler), func(observation probe.Observation) {
		if !observation.Success {
			c.worker.host.warn(pod, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, observation.Message))
		}
		observe(observation.Verdict)
	})
}

// kill ends a run that a probe found to be dead; the restart policy decides
// about the next.
func (c *container) kill(pod *v1.Pod, spec *v1.Probe, kind probe.Kind, run *process) {
	c.worker.host.note(pod, "Killing", fmt.Sprintf("Container %s failed its %s probe and is ended", c.name, kind))
	run.terminate(time.Now().Add(gracePeriod(pod, spec)), c.beforeStop(run))
}

// ifCurrent changes the state if the run is still the current one.
func (c *container) ifCurrent(run *process, change func(*State)) {
	c.mutex.Lock()
	before := c.state
	current := c.run == run
	if current {
		change(&c.state)
		if c.state.Started && !before.Started {
			c.announceStarted()
		}
	}
	changed := current && (before.Ready != c.state.Ready || before.Started != c.state.Started)
	c.mutex.Unlock()
	if changed {
		c.worker.changed()
	}
}

// announceStarted tells once that the container has started.
func (c *container) announceStarted() {
	select {
	case <-c.started:
	default:
		close(c.started)
	}
}
