package probe

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	kubeletprobe "k8s.io/kubernetes/pkg/probe"
	"k8s.io/kubernetes/pkg/probe/grpc"
	"k8s.io/kubernetes/pkg/probe/http"
	"k8s.io/kubernetes/pkg/probe/tcp"
)

// Target is whom to ask.
type Target struct {
	// Address of the Pod.
	Address string
	// Container whose ports may be named.
	Container *v1.Container
	// Exec runs a command in the container until it ends or the context does.
	Exec func(ctx context.Context, command []string) (success bool, message string)
}

// Attempt returns the attempt that a handler describes. The network is asked
// with the kubelet's own code.
func (t Target) Attempt(handler v1.ProbeHandler) Attempt {
	switch {
	case handler.Exec != nil:
		return func(ctx context.Context, timeout time.Duration) (bool, string) {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return t.Exec(ctx, handler.Exec.Command)
		}
	case handler.HTTPGet != nil:
		prober := http.New(false)
		return func(_ context.Context, timeout time.Duration) (bool, string) {
			request, err := http.NewRequestForHTTPGetAction(handler.HTTPGet, t.Container, t.Address, "probe")
			if err != nil {
				return false, err.Error()
			}
			return outcome(prober.Probe(request, timeout))
		}
	case handler.TCPSocket != nil:
		return func(_ context.Context, timeout time.Duration) (bool, string) {
			port, err := kubeletprobe.ResolveContainerPort(handler.TCPSocket.Port, t.Container)
			if err != nil {
				return false, err.Error()
			}
			host := handler.TCPSocket.Host
			if host == "" {
				host = t.Address
			}
			return outcome(tcp.New().Probe(host, port, timeout))
		}
	case handler.GRPC != nil:
		return func(_ context.Context, timeout time.Duration) (bool, string) {
			service := ""
			if handler.GRPC.Service != nil {
				service = *handler.GRPC.Service
			}
			return outcome(grpc.New().Probe(t.Address, service, int(handler.GRPC.Port), timeout, grpc.ProbeOptions{}))
		}
	default:
		return func(context.Context, time.Duration) (bool, string) { return false, "the probe names no handler" }
	}
}

func outcome(result kubeletprobe.Result, message string, err error) (bool, string) {
	switch {
	case err != nil:
		return false, err.Error()
	case result == kubeletprobe.Success || result == kubeletprobe.Warning:
		return true, message
	case message == "":
		return false, fmt.Sprintf("the probe's result is %s", result)
	default:
		return false, message
	}
}
