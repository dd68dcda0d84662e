// Package streams connects a command to a client far away: its input and
// output, or a terminal.
package streams

import (
	"errors"
	"io"
	"os/exec"
	"syscall"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// Streams are what the client offers; what it does not is nil.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Terminal says that the command runs on a terminal, of which Resize tells
	// the size.
	Terminal bool
	Resize   <-chan remotecommand.TerminalSize
}

// Run starts the command, which exec.CommandContext made, with the streams in a
// session of its own and waits for its end. The error of a command that fails
// carries its exit code.
func Run(command *exec.Cmd, start func(*exec.Cmd) error, streams Streams) error {
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	var err error
	if streams.Terminal {
		err = runOnTerminal(command, start, streams)
	} else {
		err = runWithPipes(command, start, streams)
	}
	if failure, failed := errors.AsType[*exec.ExitError](err); failed {
		return utilexec.CodeExitError{Err: err, Code: exitCode(failure)}
	}
	return err
}

func runWithPipes(command *exec.Cmd, start func(*exec.Cmd) error, streams Streams) error {
	// Assigned only if there are any: an interface that holds nothing is not nil.
	if streams.Out != nil {
		command.Stdout = streams.Out
	}
	if streams.Err != nil {
		command.Stderr = streams.Err
	}
	if streams.In == nil {
		if err := start(command); err != nil {
			return err
		}
		return command.Wait()
	}
	// The command may end before the client has said everything: nobody waits
	// for the rest.
	input, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := start(command); err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(input, streams.In)
		_ = input.Close()
	}()
	return command.Wait()
}

func runOnTerminal(command *exec.Cmd, start func(*exec.Cmd) error, streams Streams) error {
	ours, theirs, err := pty.Open()
	if err != nil {
		return err
	}
	defer ours.Close()
	command.Stdin, command.Stdout, command.Stderr = theirs, theirs, theirs
	command.SysProcAttr.Setctty = true
	err = start(command)
	_ = theirs.Close()
	if err != nil {
		return err
	}
	if streams.In != nil {
		go func() { _, _ = io.Copy(ours, streams.In) }()
	}
	go func() {
		for size := range streams.Resize {
			_ = pty.Setsize(ours, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		}
	}()
	written := make(chan struct{})
	go func() {
		defer close(written)
		if streams.Out != nil {
			// A terminal that nobody holds any more is an error, not an end.
			_, _ = io.Copy(streams.Out, ours)
		}
	}()
	err = command.Wait()
	<-written
	return err
}

// exitCode is that which a shell would report.
func exitCode(failure *exec.ExitError) int {
	if status, known := failure.Sys().(syscall.WaitStatus); known && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return failure.ExitCode()
}
