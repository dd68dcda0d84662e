package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long killed processes may take to go.
const patience = 5 * time.Second

// Kill ends all processes of the sandbox, also those that left their parents,
// and returns when they are gone.
func (s Sandbox) Kill() error {
	deadline := time.Now().Add(patience)
	for {
		members := s.members()
		if len(members) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of Pod %s do not end", members, s.UID)
		}
		var waits []unix.PollFd
		for _, member := range members {
			descriptor, err := unix.PidfdOpen(member, 0)
			if err != nil {
				continue
			}
			_ = unix.PidfdSendSignal(descriptor, unix.SIGKILL, nil, 0)
			waits = append(waits, unix.PollFd{Fd: int32(descriptor), Events: unix.POLLIN})
		}
		for len(waits) > 0 {
			_, _ = unix.Poll(waits[:1], int(time.Until(deadline).Milliseconds())+1)
			_ = unix.Close(int(waits[0].Fd))
			waits = waits[1:]
		}
	}
}

// members are the processes that carry the mark or live in the network
// namespace. A process that already ended has neither.
func (s Sandbox) members() []int {
	mark := []byte("\x00" + Mark + "=" + s.UID + "\x00")
	var network unix.Stat_t
	own := s.Network != "" && unix.Stat(s.Network, &network) == nil
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var members []int
	for _, entry := range entries {
		process, err := strconv.Atoi(entry.Name())
		if err != nil || process == os.Getpid() {
			continue
		}
		directory := filepath.Join("/proc", entry.Name())
		var found unix.Stat_t
		inside := own && unix.Stat(filepath.Join(directory, "ns/net"), &found) == nil &&
			found.Dev == network.Dev && found.Ino == network.Ino
		if !inside {
			environment, err := os.ReadFile(filepath.Join(directory, "environ"))
			inside = err == nil && bytes.Contains(append([]byte{0}, environment...), mark)
		}
		if inside {
			members = append(members, process)
		}
	}
	return members
}
