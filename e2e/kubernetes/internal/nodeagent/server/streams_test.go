package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/streams"
)

// onePod is a source with one container that runs, web/one/main, whose Pod
// answers at one port.
type onePod struct {
	oneFile
	answers string
}

func (o onePod) Running(namespace, pod, container string) (Run, error) {
	if namespace != "web" || pod != "one" || container != "main" {
		return nil, errors.New("no such container")
	}
	return o, nil
}

func (o onePod) Pod(_, _ string) (Dial, error) {
	return func(_ context.Context, port int32) (net.Conn, error) {
		if port != 80 {
			return nil, errors.New("connection refused")
		}
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			question := make([]byte, len("who?"))
			_, _ = io.ReadFull(theirs, question)
			_, _ = theirs.Write([]byte(string(question) + o.answers))
		}()
		return ours, nil
	}, nil
}

func (o onePod) Exec(ctx context.Context, command []string, connected streams.Streams) error {
	return streams.Run(exec.CommandContext(ctx, command[0], command[1:]...), (*exec.Cmd).Start, connected)
}

func (o onePod) Attach(_ context.Context, connected streams.Streams) error {
	_, err := connected.Out.Write([]byte(o.answers))
	return err
}

// start serves the source; URLs are those that the API server asks.
func start(t *testing.T, source Source) func(path string, query url.Values) *url.URL {
	server := httptest.NewServer(handler(source))
	t.Cleanup(server.Close)
	return func(path string, query url.Values) *url.URL {
		location, err := url.Parse(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		location.RawQuery = query.Encode()
		return location
	}
}

func TestExecAndAttach(t *testing.T) {
	at := start(t, onePod{answers: "hello"})
	for name, row := range map[string]struct {
		path    string
		command []string
		in, out string
		code    int
	}{
		"output":        {"/exec/web/one/main", []string{"echo", "a"}, "", "a\n", 0},
		"input":         {"/exec/web/one/main", []string{"cat"}, "b", "b", 0},
		"an exit code":  {"/exec/web/one/main", []string{"sh", "-c", "exit 7"}, "", "", 7},
		"attach":        {"/attach/web/one/main", nil, "", "hello", 0},
		"no such thing": {"/exec/web/two/main", []string{"true"}, "", "", -1},
	} {
		query := url.Values{"command": row.command, "output": {"1"}}
		var out strings.Builder
		options := remotecommand.StreamOptions{Stdout: &out}
		if row.in != "" {
			query.Set("input", "1")
			options.Stdin = strings.NewReader(row.in)
		}
		client, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, at(row.path, query))
		if err != nil {
			t.Fatal(err)
		}
		err = client.StreamWithContext(t.Context(), options)
		code := 0
		if failure, failed := errors.AsType[utilexec.CodeExitError](err); failed {
			code = failure.Code
		} else if err != nil {
			code = -1
		}
		if out.String() != row.out || code != row.code {
			t.Errorf("%s: %q, %v", name, out.String(), err)
		}
	}
}

func TestPortForward(t *testing.T) {
	at := start(t, onePod{answers: " me"})
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, at("/portForward/web/one", nil))
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(ports[0].Local)}
	connection, err := net.DialTCP("tcp", nil, address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := connection.Write([]byte("who?")); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(connection)
	if err != nil || string(answer) != "who? me" {
		t.Errorf("%q, %v", answer, err)
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
