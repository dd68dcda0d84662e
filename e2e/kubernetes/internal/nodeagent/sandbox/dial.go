package sandbox

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to an address, which must be a number, as a process of the
// sandbox would.
func (s Sandbox) Dial(ctx context.Context, protocol, address string) (net.Conn, error) {
	type outcome struct {
		connection net.Conn
		err        error
	}
	result := make(chan outcome, 1)
	go func() {
		// A socket belongs to the namespace of the thread that makes it; see Start.
		runtime.LockOSThread()
		if s.Network != "" {
			if err := join(s.Network, unix.CLONE_NEWNET); err != nil {
				result <- outcome{err: fmt.Errorf("enter the network of Pod %s: %w", s.UID, err)}
				return
			}
		}
		connection, err := (&net.Dialer{}).DialContext(ctx, protocol, address)
		result <- outcome{connection, err}
	}()
	found := <-result
	return found.connection, found.err
}
