package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/streams"
)

// Run is a container that runs.
type Run interface {
	Exec(ctx context.Context, command []string, connected streams.Streams) error
	Attach(ctx context.Context, connected streams.Streams) error
}

// Dial connects to a port of a Pod.
type Dial func(ctx context.Context, port int32) (net.Conn, error)

// exec runs a command in a container, over SPDY or WebSocket, with the query
// parameters of the kubelet.
func (s streamed) exec(writer http.ResponseWriter, request *http.Request) {
	run, options, ok := s.find(writer, request)
	if !ok {
		return
	}
	remotecommand.ServeExec(writer, request, executor{run}, "", "", request.PathValue("container"), request.URL.Query()["command"], options,
		streaming.DefaultConfig.StreamIdleTimeout, streaming.DefaultConfig.StreamCreationTimeout, streaming.DefaultConfig.SupportedRemoteCommandProtocols)
}

// attach connects to the input and output of a container.
func (s streamed) attach(writer http.ResponseWriter, request *http.Request) {
	run, options, ok := s.find(writer, request)
	if !ok {
		return
	}
	remotecommand.ServeAttach(writer, request, executor{run}, "", "", request.PathValue("container"), options,
		streaming.DefaultConfig.StreamIdleTimeout, streaming.DefaultConfig.StreamCreationTimeout, streaming.DefaultConfig.SupportedRemoteCommandProtocols)
}

// portForward connects to ports of a Pod.
func (s streamed) portForward(writer http.ResponseWriter, request *http.Request) {
	options, err := portforward.NewV4Options(request)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	dial, err := s.source.Pod(request.PathValue("namespace"), request.PathValue("pod"))
	if err != nil {
		http.Error(writer, err.Error(), http.StatusNotFound)
		return
	}
	portforward.ServePortForward(writer, request, forwarder(dial), "", "", options,
		streaming.DefaultConfig.StreamIdleTimeout, streaming.DefaultConfig.StreamCreationTimeout, streaming.DefaultConfig.SupportedPortForwardProtocols)
}

type streamed struct{ source Source }

// find says what is wrong with the request while it is still an HTTP request.
func (s streamed) find(writer http.ResponseWriter, request *http.Request) (Run, *remotecommand.Options, bool) {
	options, err := remotecommand.NewOptions(request)
	if err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return nil, nil, false
	}
	run, err := s.source.Running(request.PathValue("namespace"), request.PathValue("pod"), request.PathValue("container"))
	if err != nil {
		http.Error(writer, err.Error(), http.StatusNotFound)
		return nil, nil, false
	}
	return run, options, true
}

// executor hands the library's calls on to a run.
type executor struct{ run Run }

func (e executor) ExecInContainer(
	ctx context.Context, _, _, _ string, command []string, in io.Reader, out, err io.WriteCloser,
	terminal bool, resize <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	return e.run.Exec(ctx, command, connected(in, out, err, terminal, resize))
}

func (e executor) AttachContainer(
	ctx context.Context, _, _, _ string, in io.Reader, out, err io.WriteCloser,
	terminal bool, resize <-chan remotecommand.TerminalSize,
) error {
	return e.run.Attach(ctx, connected(in, out, err, terminal, resize))
}

// connected makes the streams that the client does not offer plain nil.
func connected(in io.Reader, out, err io.WriteCloser, terminal bool, resize <-chan remotecommand.TerminalSize) streams.Streams {
	all := streams.Streams{In: in, Terminal: terminal, Resize: resize}
	if out != nil {
		all.Out = out
	}
	if err != nil {
		all.Err = err
	}
	return all
}

// forwarder copies between a client's streams and connections to a Pod.
type forwarder Dial

func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	connection, err := f(ctx, port)
	if err != nil {
		return fmt.Errorf("nobody answers at port %d: %w", port, err)
	}
	defer connection.Close()
	answered := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, connection)
		answered <- err
	}()
	asked := make(chan error, 1)
	go func() {
		_, err := io.Copy(connection, stream)
		if half, is := connection.(interface{ CloseWrite() error }); is {
			_ = half.CloseWrite()
		}
		asked <- err
	}()
	select {
	case err := <-answered:
		return err
	case err := <-asked:
		if err != nil {
			return err
		}
		return <-answered
	}
}
