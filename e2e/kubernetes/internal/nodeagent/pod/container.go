package pod

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/image"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/restart"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/sandbox"
)

// container runs one container of a Pod again and again, as its restart policy
// says, until it is stopped.
type container struct {
	worker  *Worker
	name    string
	initial bool

	mutex   sync.Mutex
	state   State
	begun   bool
	run     *process
	backoff restart.Backoff
	// renewed says that the container's image was changed: it starts again
	// whatever its policy says.
	renewed bool
	ending  ending

	stopping chan struct{}
	renewal  chan struct{}
	started  chan struct{}
	done     chan struct{}
}

// ending is how long a stopped container may take.
type ending struct {
	deadline time.Time
	asked    bool
}

func newContainer(worker *Worker, name string, initial bool, state State) *container {
	return &container{
		worker: worker, name: name, initial: initial, state: state,
		stopping: make(chan struct{}), renewal: make(chan struct{}, 1),
		started: make(chan struct{}), done: make(chan struct{}),
	}
}

// loop is the goroutine of the container.
func (c *container) loop() {
	defer c.worker.changed()
	defer close(c.done)
	for {
		select {
		case <-c.stopping:
			return
		default:
		}
		wait, again := c.once()
		if !again || !c.rest(wait) {
			return
		}
	}
}

// once starts the container and follows it to its end, or says why it cannot
// start; again says if there is a next time, after the wait.
func (c *container) once() (wait time.Duration, again bool) {
	pod, spec := c.worker.specOf(c)
	prepared, err := c.prepare(pod, spec)
	if unknown, is := errors.AsType[*image.Unknown](err); is {
		c.change(func(state *State) { state.Current = waiting("ErrImageNeverPull", unknown.Error()) })
		c.worker.host.warn(pod, "Failed", "Error: ErrImageNeverPull: "+unknown.Error())
		return untilRenewal, true
	}
	if err != nil {
		c.change(func(state *State) { state.Current = waiting("CreateContainerConfigError", err.Error()) })
		c.worker.host.warn(pod, "Failed", "Error: "+err.Error())
		return retryConfiguration, true
	}
	begun := time.Now()
	end := c.execute(pod, spec, prepared)
	return c.ended(pod, spec, end, time.Since(begun))
}

// execute runs the container's program and returns how it ended.
func (c *container) execute(pod *v1.Pod, spec *v1.Container, prepared prepared) v1.ContainerStateTerminated {
	number := c.nextRun()
	id := fmt.Sprintf("process://%s/%s/%d", c.worker.uid, c.name, number)
	log := c.worker.host.LogFile(c.worker.uid, c.name, number)
	run, err := startProcess(prepared.inside, prepared.words, prepared.environment, spec, log)
	if err != nil {
		now := second(time.Now())
		c.worker.host.warn(pod, "Failed", fmt.Sprintf("Error: container %s does not start: %v", c.name, err))
		return v1.ContainerStateTerminated{
			ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: now, FinishedAt: now, ContainerID: id,
		}
	}
	c.follow(pod, spec, run, prepared.environment, id)
	reason := "Completed"
	if run.code != 0 {
		reason = "Error"
	}
	return v1.ContainerStateTerminated{
		ExitCode: run.code, Signal: run.signal, Reason: reason, ContainerID: id,
		StartedAt: second(run.started), FinishedAt: second(run.ended),
	}
}

// nextRun counts the restarts and returns the number of the run that begins.
func (c *container) nextRun() int32 {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.state.Current.Terminated != nil {
		c.state.Last = c.state.Current
	}
	if c.state.Last.Terminated != nil {
		c.state.Restarts++
	}
	return c.state.Restarts
}

// follow probes a run until it ended.
func (c *container) follow(pod *v1.Pod, spec *v1.Container, run *process, environment []string, id string) {
	c.mutex.Lock()
	c.run = run
	c.state.ID = id
	ending := c.ending
	c.mutex.Unlock()
	if ending.asked {
		run.terminate(ending.deadline, nil)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		if !c.afterStart(ctx, pod, spec, run) {
			return
		}
		c.ifCurrent(run, func(state *State) {
			state.Current = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: second(run.started)}}
		})
		c.worker.changed()
		c.worker.host.note(pod, "Started", "Started container "+c.name)
		c.probe(ctx, pod, spec, run, environment)
	}()
	<-run.exited
	c.mutex.Lock()
	c.run = nil
	c.mutex.Unlock()
}

// ended notes the end of a run and decides what comes next.
func (c *container) ended(pod *v1.Pod, spec *v1.Container, end v1.ContainerStateTerminated, ran time.Duration) (wait time.Duration, again bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	defer c.worker.changed()
	terminated := v1.ContainerState{Terminated: &end}
	c.state.Current, c.state.Started, c.state.Ready = terminated, false, false
	again = !c.ending.asked && (c.renewed || restarts(pod, spec, c.initial, end.ExitCode))
	if !again {
		c.state.Over = true
		return 0, false
	}
	if c.renewed {
		c.backoff = restart.Backoff{}
	}
	c.renewed = false
	wait = c.backoff.Ended(c.worker.host.Restart, ran)
	if wait > 0 {
		c.state.Last = terminated
		message := fmt.Sprintf("back-off %v restarting failed container=%s pod=%s_%s(%s)", wait, c.name, pod.Name, pod.Namespace, pod.UID)
		c.state.Current = waiting("CrashLoopBackOff", message)
		c.worker.host.warn(pod, "BackOff", "Back-off restarting failed container "+c.name+" in pod "+pod.Name)
	}
	return wait, true
}

// restarts says if a container that ended with the exit code runs again.
func restarts(pod *v1.Pod, spec *v1.Container, initial bool, exitCode int32) bool {
	if initial && exitCode == 0 && !podutil.IsRestartableInitContainer(spec) {
		return false
	}
	return podutil.ContainerShouldRestart(*spec, pod.Spec, exitCode)
}

// rest waits for the next start; false if the container is stopped meanwhile.
func (c *container) rest(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-c.stopping:
		return false
	case <-c.renewal:
		return true
	case <-timer.C:
		return true
	}
}

// prepared is what to run, where and with which environment.
type prepared struct {
	inside      sandbox.Sandbox
	words       []string
	environment []string
}

func (c *container) prepare(pod *v1.Pod, spec *v1.Container) (prepared, error) {
	program, err := c.worker.host.Images.Find(spec.Image)
	if err != nil {
		return prepared{}, err
	}
	around, err := c.worker.surroundingsOf(pod, spec)
	if err != nil {
		return prepared{}, err
	}
	entries, command, args, err := environment(pod, spec, around)
	if err != nil {
		return prepared{}, err
	}
	inside := c.worker.inside()
	if inside.Tree, err = c.worker.treeOf(pod, spec, program, entries); err != nil {
		return prepared{}, err
	}
	return prepared{inside: inside, words: program.Command(command, args), environment: entries}, nil
}

// stop ends the container by the deadline and for good. Called again, it can
// only bring the deadline forward.
func (c *container) stop(deadline time.Time) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.ending.asked {
		close(c.stopping)
	}
	if !c.ending.asked || deadline.Before(c.ending.deadline) {
		c.ending = ending{deadline: deadline, asked: true}
	}
	if c.run != nil {
		c.run.terminate(c.ending.deadline, c.beforeStop(c.run))
	}
}

// renew starts the container anew, since its image was changed.
func (c *container) renew() {
	pod, _ := c.worker.specOf(c)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.run != nil {
		c.renewed = true
		c.run.terminate(time.Now().Add(gracePeriod(pod, nil)), c.beforeStop(c.run))
		return
	}
	select {
	case c.renewal <- struct{}{}:
	default:
	}
}

// begin makes the container's goroutine.
func (c *container) begin() {
	c.mutex.Lock()
	c.begun = true
	c.mutex.Unlock()
	go c.loop()
}

// idle says that no goroutine of the container runs.
func (c *container) idle() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.begun {
		return true
	}
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *container) snapshot() State {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.state
}

func (c *container) change(change func(*State)) {
	c.mutex.Lock()
	change(&c.state)
	c.mutex.Unlock()
	c.worker.changed()
}

// gracePeriod is that of a probe, else that of the Pod.
func gracePeriod(pod *v1.Pod, probe *v1.Probe) time.Duration {
	seconds := int64(30)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		seconds = *pod.Spec.TerminationGracePeriodSeconds
	}
	if probe != nil && probe.TerminationGracePeriodSeconds != nil {
		seconds = *probe.TerminationGracePeriodSeconds
	}
	return time.Duration(seconds) * time.Second
}

const (
	retryConfiguration = 10 * time.Second
	untilRenewal       = time.Hour
)
