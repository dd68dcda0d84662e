package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/sandbox"
)

// process is one run of a container: a session of its own.
type process struct {
	command *exec.Cmd
	// environment is that of the container.
	environment []string
	// input is what the container reads, nil if that is nothing.
	input   io.WriteCloser
	exited  chan struct{}
	started time.Time
	ended   time.Time
	code    int32
	signal  int32

	mutex    sync.Mutex
	deadline time.Time
	kill     *time.Timer
}

// startProcess starts a program of a container inside with its output in a file.
func startProcess(inside sandbox.Sandbox, words, environment []string, spec *v1.Container, log string) (*process, error) {
	program, err := fileOf(words[0])
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, err
	}
	output, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	command := exec.Command(program, words[1:]...)
	command.Args[0] = words[0]
	command.Env = environment
	command.Dir = spec.WorkingDir
	command.Stdout = output
	command.Stderr = output
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p := &process{command: command, environment: environment, exited: make(chan struct{}), started: time.Now()}
	if spec.Stdin {
		if p.input, err = command.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := inside.Start(command); err != nil {
		return nil, err
	}
	go p.wait()
	return p, nil
}

// wait notes how the process ended and ends what it left in its session, as
// the end of a container's first process does.
func (p *process) wait() {
	_ = p.command.Wait()
	p.ended = time.Now()
	p.code, p.signal = exitOf(p.command.ProcessState)
	p.killGroup()
	close(p.exited)
}

// exitOf is the exit code as container runtimes report it, and the signal.
func exitOf(state *os.ProcessState) (code, signal int32) {
	if status, known := state.Sys().(syscall.WaitStatus); known && status.Signaled() {
		signal = int32(status.Signal())
		return 128 + signal, signal
	}
	return int32(state.ExitCode()), 0
}

// terminate lets before run, sends SIGTERM, and SIGKILL at the deadline. Called
// again, it can only bring the deadline forward.
func (p *process) terminate(deadline time.Time, before func(context.Context)) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.kill != nil {
		if deadline.Before(p.deadline) && p.kill.Stop() {
			p.deadline = deadline
			p.kill.Reset(time.Until(deadline))
		}
		return
	}
	p.deadline = deadline
	p.kill = time.AfterFunc(time.Until(deadline), p.killGroup)
	go func() {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		go func() {
			select {
			case <-p.exited:
				cancel()
			case <-ctx.Done():
			}
		}()
		if before != nil {
			before(ctx)
		}
		_ = p.command.Process.Signal(syscall.SIGTERM)
		<-p.exited
		p.kill.Stop()
	}()
}

func (p *process) killGroup() {
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
}

// runInside runs a command until it ends or the context does.
func runInside(ctx context.Context, inside sandbox.Sandbox, words, environment []string, directory string) (success bool, message string) {
	if len(words) == 0 {
		return false, "the command is empty"
	}
	program, err := fileOf(words[0])
	if err != nil {
		return false, err.Error()
	}
	command := exec.CommandContext(ctx, program, words[1:]...)
	command.Env = environment
	command.Dir = directory
	var output limitedBuffer
	command.Stdout = &output
	command.Stderr = &output
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = waitForOutput
	if err := inside.Start(command); err != nil {
		return false, err.Error()
	}
	err = command.Wait()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return false, fmt.Sprintf("%s does not end in time", words[0])
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return false, err.Error() + ": " + output.String()
	}
	return true, output.String()
}

// limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct{ content []byte }

func (b *limitedBuffer) Write(content []byte) (int, error) {
	room := max(0, outputLimit-len(b.content))
	b.content = append(b.content, content[:min(room, len(content))]...)
	return len(content), nil
}

func (b *limitedBuffer) String() string { return string(b.content) }

func logName(run int32) string { return strconv.Itoa(int(run)) + ".log" }

const (
	// outputLimit bounds what a probe's output may put into an Event, in octets.
	outputLimit = 1024
	// waitForOutput bounds the wait for children that hold a command's output.
	waitForOutput = 100 * time.Millisecond
)
