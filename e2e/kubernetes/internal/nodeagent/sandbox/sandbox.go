// Package sandbox starts processes in the namespaces of a Pod and ends them.
//
// A Pod's processes share a network namespace and see the Pod's name as their
// host name; each container has a file tree of its own. They carry the Pod's UID
// in their environment, so that all of them can be found again, whatever they
// did to their parents and sessions.
package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/filetree"
)

// Mark is the environment variable that holds the UID of a process's Pod.
const Mark = "LAB_POD_UID"

// Sandbox is where the processes of one Pod run.
type Sandbox struct {
	// UID of the Pod.
	UID string
	// Network is the file of the network namespace; empty means that of the
	// agent, which is the node's.
	Network string
	// Hostname that the processes see; empty means that of the lab.
	Hostname string
	// Tree is the file tree that the processes see; without a root, that of
	// the lab.
	Tree filetree.Tree
	// Beside is a process whose file tree and host name a new process shares
	// instead; 0 means none.
	Beside int
}

// Start starts a command inside. The caller waits for it as for any other.
func (s Sandbox) Start(command *exec.Cmd) error {
	command.Env = append(command.Env, Mark+"="+s.UID)
	result := make(chan error, 1)
	go func() {
		// A process inherits the namespaces of the thread that makes it. This
		// one is never unlocked and ends with the goroutine, so no other
		// goroutine ever runs in these namespaces.
		runtime.LockOSThread()
		if err := s.enter(); err != nil {
			result <- fmt.Errorf("enter the namespaces of Pod %s: %w", s.UID, err)
			return
		}
		result <- command.Start()
	}()
	return <-result
}

// enter moves the current thread into the sandbox.
func (s Sandbox) enter() error {
	if s.Network != "" {
		if err := join(s.Network, unix.CLONE_NEWNET); err != nil {
			return err
		}
	}
	if s.Beside != 0 {
		return s.enterBeside()
	}
	if s.Hostname != "" {
		if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return err
		}
	}
	if s.Tree.Root != "" {
		return s.Tree.Enter()
	}
	return nil
}

func (s Sandbox) enterBeside() error {
	if err := join(fmt.Sprintf("/proc/%d/ns/uts", s.Beside), unix.CLONE_NEWUTS); err != nil {
		return err
	}
	// The threads of the agent share one root directory; this one leaves them.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return join(fmt.Sprintf("/proc/%d/ns/mnt", s.Beside), unix.CLONE_NEWNS)
}

func join(path string, kind int) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Setns(int(file.Fd()), kind)
}
