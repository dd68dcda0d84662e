package pod

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/sandbox"
)

// Worker runs one Pod from its first sight to its end.
type Worker struct {
	host  *Host
	uid   string
	first metav1.Time

	poke     chan struct{}
	stopping chan struct{}
	launched chan struct{}
	done     chan struct{}

	mutex     sync.Mutex
	pod       *v1.Pod
	gone      bool
	grace     time.Duration
	deadline  time.Time
	addresses []netip.Addr
	attached  bool
	released  bool
	initial   []*container
	main      []*container
}

// Start begins the work for a Pod.
func Start(host *Host, pod *v1.Pod) *Worker {
	w := &Worker{
		host: host, uid: string(pod.UID), first: second(time.Now()), pod: pod,
		poke: make(chan struct{}, 1), stopping: make(chan struct{}),
		launched: make(chan struct{}), done: make(chan struct{}),
	}
	reason := "ContainerCreating"
	if len(pod.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	w.initial = w.containers(pod.Spec.InitContainers, pod.Status.InitContainerStatuses, true, "PodInitializing")
	w.main = w.containers(pod.Spec.Containers, pod.Status.ContainerStatuses, false, reason)
	go w.loop()
	return w
}

// Update tells the worker a newer version of its Pod.
func (w *Worker) Update(pod *v1.Pod) {
	w.mutex.Lock()
	var renewed []*container
	if newer(pod, w.pod) {
		renewed = w.renewed(pod)
		w.pod = pod
	}
	w.mutex.Unlock()
	for _, container := range renewed {
		container.renew()
	}
	w.changed()
}

// Abandon ends the Pod's processes at once and writes nothing more about it:
// the Pod is gone, or the agent goes.
func (w *Worker) Abandon() {
	w.mutex.Lock()
	w.gone = true
	w.mutex.Unlock()
	w.changed()
}

// Done is closed when nothing is left of the Pod on the node.
func (w *Worker) Done() <-chan struct{} { return w.done }

// loop reacts to every change until the Pod is gone.
func (w *Worker) loop() {
	defer close(w.done)
	if w.mayRun() {
		go w.launch()
	} else {
		close(w.launched)
	}
	var failures int
	for {
		w.react()
		stopped := w.stopped()
		err := w.publish(stopped)
		if stopped {
			w.release()
		}
		if stopped && w.isGone() {
			return
		}
		if err == nil && stopped && w.isTerminating() {
			if err = w.remove(); err == nil {
				return
			}
		}
		if err == nil {
			failures = 0
		} else {
			failures++
			slog.Warn("Pod is not written, it will be tried again", "pod", w.uid, "error", err)
		}
		w.await(failures)
	}
}

// mayRun says that the Pod has something to run.
func (w *Worker) mayRun() bool {
	phase := w.pod.Status.Phase
	return phase != v1.PodSucceeded && phase != v1.PodFailed && w.pod.DeletionTimestamp == nil
}

// react stops what has to stop: everything of a Pod that goes, init containers
// that keep running after all others.
func (w *Worker) react() {
	w.mutex.Lock()
	ends := w.gone || w.pod.DeletionTimestamp != nil
	if ends {
		w.setDeadline(time.Now())
	}
	deadline := w.deadline
	w.mutex.Unlock()
	if ends {
		w.closeStopping()
		for _, container := range w.main {
			container.stop(deadline)
		}
		for _, container := range w.initial {
			if !w.isSidecar(container) {
				container.stop(deadline)
			}
		}
	}
	if (ends || w.launchedAll()) && idle(w.main) {
		if !ends {
			deadline = time.Now().Add(gracePeriod(w.latest(), nil))
		}
		for _, container := range w.initial {
			container.stop(deadline)
		}
	}
}

// setDeadline derives the end of the grace period from what the Pod says; it
// only ever comes closer. The caller holds the mutex.
func (w *Worker) setDeadline(now time.Time) {
	grace := time.Duration(0)
	if seconds := w.pod.DeletionGracePeriodSeconds; seconds != nil && !w.gone {
		grace = time.Duration(*seconds) * time.Second
	}
	switch {
	case w.deadline.IsZero():
		w.host.note(w.pod, "Killing", "Stopping the containers of the Pod")
	case grace >= w.grace:
		return
	}
	w.grace = grace
	w.deadline = now.Add(grace)
}

func (w *Worker) closeStopping() {
	select {
	case <-w.stopping:
	default:
		close(w.stopping)
	}
}

// stopped says that nothing of the Pod runs or will run.
func (w *Worker) stopped() bool {
	return w.launchedAll() && idle(w.main) && idle(w.initial)
}

func (w *Worker) launchedAll() bool {
	select {
	case <-w.launched:
		return true
	default:
		return false
	}
}

func idle(containers []*container) bool {
	for _, container := range containers {
		if !container.idle() {
			return false
		}
	}
	return true
}

// await waits for the next change, after failures also for the next attempt.
func (w *Worker) await(failures int) {
	if failures == 0 {
		<-w.poke
		return
	}
	timer := time.NewTimer(min(firstRetry<<min(failures-1, 8), longestRetry))
	defer timer.Stop()
	select {
	case <-w.poke:
	case <-timer.C:
	}
}

// changed wakes the worker.
func (w *Worker) changed() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// release ends what is left of the Pod's processes and its network, once.
func (w *Worker) release() {
	w.mutex.Lock()
	attached, released, own := w.attached, w.released, !w.pod.Spec.HostNetwork
	w.released = true
	gone := w.gone || w.pod.DeletionTimestamp != nil
	w.mutex.Unlock()
	if attached && !released {
		if err := w.inside().Kill(); err != nil {
			slog.Warn("Pod leaves processes", "pod", w.uid, "error", err)
		}
		if own {
			if err := w.host.Network.Detach(NamespaceOf(w.uid)); err != nil {
				slog.Warn("Pod leaves its network", "pod", w.uid, "error", err)
			}
		}
	}
	if gone {
		if err := os.RemoveAll(filepath.Join(w.host.Directory, w.uid)); err != nil {
			slog.Warn("Pod leaves files", "pod", w.uid, "error", err)
		}
	}
}

// renewed are the containers whose image differs in the new version.
func (w *Worker) renewed(pod *v1.Pod) []*container {
	var renewed []*container
	for index, container := range w.main {
		if pod.Spec.Containers[index].Image != w.pod.Spec.Containers[index].Image {
			renewed = append(renewed, container)
		}
	}
	return renewed
}

func (w *Worker) containers(specs []v1.Container, statuses []v1.ContainerStatus, initial bool, reason string) []*container {
	var all []*container
	for _, spec := range specs {
		state := fresh(reason)
		if status, known := podutil.GetContainerStatus(statuses, spec.Name); known {
			again := func(exitCode int32) bool { return restarts(w.pod, &spec, initial, exitCode) }
			state = recovered(status, reason, again, second(time.Now()))
		}
		all = append(all, newContainer(w, spec.Name, initial, state))
	}
	return all
}

// specOf returns the newest version of the Pod and of a container in it.
func (w *Worker) specOf(c *container) (*v1.Pod, *v1.Container) {
	pod := w.latest()
	specs := pod.Spec.Containers
	if c.initial {
		specs = pod.Spec.InitContainers
	}
	for index := range specs {
		if specs[index].Name == c.name {
			return pod, &specs[index]
		}
	}
	return pod, &v1.Container{Name: c.name}
}

func (w *Worker) isSidecar(c *container) bool {
	_, spec := w.specOf(c)
	return c.initial && podutil.IsRestartableInitContainer(spec)
}

func (w *Worker) latest() *v1.Pod {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.pod
}

func (w *Worker) isGone() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.gone
}

func (w *Worker) isTerminating() bool { return w.latest().DeletionTimestamp != nil }

// inside is where the Pod's processes run.
func (w *Worker) inside() sandbox.Sandbox {
	pod := w.latest()
	if pod.Spec.HostNetwork {
		return sandbox.Sandbox{UID: w.uid, Hostname: w.host.Node}
	}
	return sandbox.Sandbox{UID: w.uid, Network: networkPath(w.uid), Hostname: hostname(pod)}
}

// beside is where what belongs to a container's run runs: in the same files.
func (w *Worker) beside(run *process) sandbox.Sandbox {
	inside := w.inside()
	inside.Beside = run.command.Process.Pid
	return inside
}

func (w *Worker) surroundings() surroundings {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	name := hostname(w.pod)
	if w.pod.Spec.HostNetwork {
		name = w.host.Node
	}
	return surroundings{node: w.host.Node, hostname: name, hostIPs: w.host.Addresses, addresses: w.addresses}
}

// newer compares resource versions, which the API server makes ever larger.
func newer(pod, than *v1.Pod) bool {
	left, errLeft := strconv.ParseUint(pod.ResourceVersion, 10, 64)
	right, errRight := strconv.ParseUint(than.ResourceVersion, 10, 64)
	return errLeft != nil || errRight != nil || left >= right
}

const (
	firstRetry   = 50 * time.Millisecond
	longestRetry = 5 * time.Second
)
