// Package server answers what the API server asks a node: the logs of its
// containers, and streams to and from them.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"foghorn.dev/e2e/kubernetes/internal/pki"
)

// Source finds what is asked for.
type Source interface {
	// LogFile is the log of a container's current or previous run.
	LogFile(namespace, pod, container string, previous bool) (string, error)
	// Logs is the folder of the node's logs.
	Logs() string
	// Running is a container that runs.
	Running(namespace, pod, container string) (Run, error)
	// Pod is how to connect to a Pod.
	Pod(namespace, pod string) (Dial, error)
}

// Server is the node's HTTPS endpoint. Who asks has to show a certificate of
// the lab's authority.
type Server struct {
	http.Server
}

// New makes a server with a certificate of its own.
func New(node string, addresses []net.IP, authority []byte, source Source) (*Server, error) {
	issuer, err := pki.NewAuthority(node, time.Now())
	if err != nil {
		return nil, err
	}
	pair, err := issuer.Server(node, []string{node}, addresses, time.Now())
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("the kubeconfig names no certificate authority")
	}
	return &Server{http.Server{
		Handler:           handler(source),
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{certificate},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    clients,
		},
	}}, nil
}

// Serve answers on the port until the context ends.
func (s *Server) Serve(ctx context.Context, port int32) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = s.Close()
	}()
	if err := s.ServeTLS(listener, "", ""); ctx.Err() == nil {
		return err
	}
	return nil
}

// handler answers the requests of the kubelet's API that the lab needs.
func handler(source Source) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", logs{source})
	mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir(source.Logs()))))
	streamed := streamed{source}
	for _, method := range []string{"GET", "POST"} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", streamed.exec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", streamed.attach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", streamed.portForward)
	}
	mux.HandleFunc("GET /healthz", func(writer http.ResponseWriter, _ *http.Request) {
		_, _ = writer.Write([]byte("ok"))
	})
	return mux
}
