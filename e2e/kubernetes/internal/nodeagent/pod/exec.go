package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/streams"
)

// Run is a run of a container that has not ended when it was found.
type Run struct {
	worker  *Worker
	spec    *v1.Container
	process *process
	log     string
}

// Running finds the run of a container; without a name, that of the first.
func (w *Worker) Running(name string) (*Run, error) {
	container, err := w.container(name)
	if err != nil {
		return nil, err
	}
	container.mutex.Lock()
	run, state := container.run, container.state
	container.mutex.Unlock()
	if run == nil {
		return nil, fmt.Errorf("container %s of Pod %s does not run: %s", container.name, w.latest().Name, reasonOf(state.Current))
	}
	_, spec := w.specOf(container)
	return &Run{worker: w, spec: spec, process: run, log: w.host.LogFile(w.uid, container.name, state.Restarts)}, nil
}

// Exec runs a command in the container until it ends, the container does, or
// the context.
func (r *Run) Exec(ctx context.Context, words []string, connected streams.Streams) error {
	if len(words) == 0 {
		return errors.New("the command is empty")
	}
	program, err := r.worker.host.Images.Find(r.spec.Image)
	if err != nil {
		return err
	}
	words = program.Command(words, nil)
	file, err := fileOf(words[0])
	if err != nil {
		return err
	}
	ctx, cancel := r.untilEnd(ctx)
	defer cancel()
	command := exec.CommandContext(ctx, file, words[1:]...)
	command.Env = r.process.environment
	if connected.Terminal {
		command.Env = append(command.Environ(), "TERM=xterm")
	}
	command.Dir = r.spec.WorkingDir
	return streams.Run(command, r.worker.beside(r.process).Start, connected)
}

// Attach shows what the container writes from now on, until it or the context
// ends, and hands it what the client says if the container has an input. Both
// kinds of output come as one, since the log does not tell them apart.
func (r *Run) Attach(ctx context.Context, connected streams.Streams) error {
	ctx, cancel := r.untilEnd(ctx)
	defer cancel()
	if connected.In != nil && r.process.input != nil {
		go r.say(connected.In)
	}
	output := connected.Out
	if output == nil {
		output = connected.Err
	}
	if output == nil {
		<-ctx.Done()
		return nil
	}
	file, err := os.Open(r.log)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		if _, err := io.Copy(output, file); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			_, err := io.Copy(output, file)
			return err
		case <-ticker.C:
		}
	}
}

// say hands on what a client says; the end counts if the container wants to
// hear of one client only.
func (r *Run) say(in io.Reader) {
	_, _ = io.Copy(r.process.input, in)
	if r.spec.StdinOnce {
		_ = r.process.input.Close()
	}
}

// untilEnd is a context that ends with the run too.
func (r *Run) untilEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-r.process.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Dial connects to a port of the Pod as one of its processes would, at
// whichever loopback address somebody listens.
func (w *Worker) Dial(ctx context.Context, port int32) (net.Conn, error) {
	var failures []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		connection, err := w.inside().Dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return connection, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// container finds a container by its name; without one, the first.
func (w *Worker) container(name string) (*container, error) {
	for _, containers := range [][]*container{w.main, w.initial} {
		for _, container := range containers {
			if container.name == name || name == "" {
				return container, nil
			}
		}
	}
	return nil, fmt.Errorf("pod %s has no container %s", w.latest().Name, name)
}

// fileOf finds a program: a path is one of the container's own file tree, where
// it is looked for when it starts.
func fileOf(word string) (string, error) {
	if strings.Contains(word, "/") {
		return word, nil
	}
	return exec.LookPath(word)
}

const followEvery = 50 * time.Millisecond
