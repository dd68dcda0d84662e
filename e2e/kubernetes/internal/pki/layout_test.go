package pki

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func written(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	layout := Layout{
		Directory:       directory,
		ServerAddresses: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")},
		ServerURL:       "https://192.0.2.1:6443",
		Nodes:           []string{"one"},
	}
	if err := layout.Write(now); err != nil {
		t.Fatal(err)
	}
	return directory
}

func certificate(t *testing.T, encoded []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(encoded)
	if block == nil {
		t.Fatal("not PEM")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func read(t *testing.T, parts ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestTheServerIsKnownByEveryNameAndAddress(t *testing.T) {
	directory := written(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(t, directory, "ca.crt"))
	server := certificate(t, read(t, directory, "apiserver.crt"))
	for _, name := range []string{
		"192.0.2.1", "2001:db8::1", "127.0.0.1", "::1", "10.96.0.1", "fd12:3456:789a:10::1",
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
	} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKubeconfigsNameTheirHolders(t *testing.T) {
	directory := written(t)
	for file, want := range map[string]struct{ user, group string }{
		"admin":              {"admin", "system:masters"},
		"controller-manager": {"system:kube-controller-manager", ""},
		"scheduler":          {"system:kube-scheduler", ""},
		"kube-proxy":         {"system:kube-proxy", "system:node-proxier"},
		"node-one":           {"system:node:one", "system:nodes"},
	} {
		config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(directory, file+".kubeconfig"))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if config.Host != "https://192.0.2.1:6443" {
			t.Errorf("%s: the server is %s", file, config.Host)
		}
		subject := certificate(t, config.CertData).Subject
		group := ""
		if len(subject.Organization) > 0 {
			group = subject.Organization[0]
		}
		if subject.CommonName != want.user || group != want.group {
			t.Errorf("%s: user %q, group %q, want %v", file, subject.CommonName, group, want)
		}
	}
}
