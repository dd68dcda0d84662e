package pki

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// The first addresses of the Service networks: the Service `kubernetes`.
var serviceAddresses = []net.IP{net.ParseIP("10.96.0.1"), net.ParseIP("fd12:3456:789a:10::1")}

// Layout says which files to write.
type Layout struct {
	// Directory gets the files.
	Directory string
	// ServerAddresses are those under which the API server is reached, beyond
	// loopback and the Service `kubernetes`.
	ServerAddresses []net.IP
	// ServerNames are those of the server beyond those of every API server.
	ServerNames []string
	// ServerURL goes into the kubeconfig files.
	ServerURL string
	// Nodes get a kubeconfig file each.
	Nodes []string
}

// Write makes everything anew and replaces what was there.
func (l Layout) Write(now time.Time) error {
	if err := os.MkdirAll(l.Directory, 0o700); err != nil {
		return err
	}
	authority, err := l.authority("ca", "foghorn-lab", now)
	if err != nil {
		return err
	}
	server, err := authority.Server("kube-apiserver", append(serverNames(), l.ServerNames...), l.serverAddresses(), now)
	if err != nil {
		return err
	}
	kubelet, err := authority.Client(Identity{User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}}, now)
	if err != nil {
		return err
	}
	front, err := l.authority("front-proxy-ca", "foghorn-lab-front-proxy", now)
	if err != nil {
		return err
	}
	frontClient, err := front.Client(Identity{User: "front-proxy-client"}, now)
	if err != nil {
		return err
	}
	for name, pair := range map[string]Pair{
		"apiserver":                server,
		"apiserver-kubelet-client": kubelet,
		"front-proxy-client":       frontClient,
	} {
		if err := l.writePair(name, pair); err != nil {
			return err
		}
	}
	private, public, err := SigningKey()
	if err != nil {
		return err
	}
	if err := l.writeFile("sa.key", private); err != nil {
		return err
	}
	if err := l.writeFile("sa.pub", public); err != nil {
		return err
	}
	for name, identity := range identities(l.Nodes) {
		if err := l.writeKubeconfig(name, authority, identity, now); err != nil {
			return err
		}
	}
	return nil
}

// identities maps the name of a kubeconfig file to whom it makes known.
func identities(nodes []string) map[string]Identity {
	all := map[string]Identity{
		"admin":              {User: "admin", Groups: []string{"system:masters"}},
		"controller-manager": {User: "system:kube-controller-manager"},
		"scheduler":          {User: "system:kube-scheduler"},
		"kube-proxy":         {User: "system:kube-proxy", Groups: []string{"system:node-proxier"}},
	}
	for _, node := range nodes {
		all["node-"+node] = Identity{User: "system:node:" + node, Groups: []string{"system:nodes"}}
	}
	return all
}

func serverNames() []string {
	return []string{
		"localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
}

func (l Layout) serverAddresses() []net.IP {
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	addresses = append(addresses, serviceAddresses...)
	return append(addresses, l.ServerAddresses...)
}

func (l Layout) authority(file, name string, now time.Time) (*Authority, error) {
	authority, err := NewAuthority(name, now)
	if err != nil {
		return nil, err
	}
	return authority, l.writePair(file, authority.Pair)
}

func (l Layout) writeKubeconfig(name string, authority *Authority, identity Identity, now time.Time) error {
	pair, err := authority.Client(identity, now)
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: l.ServerURL, CertificateAuthorityData: authority.Certificate}
	config.AuthInfos[identity.User] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.Certificate, ClientKeyData: pair.Key}
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: identity.User}
	config.CurrentContext = "lab"
	path := filepath.Join(l.Directory, name+".kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (l Layout) writePair(name string, pair Pair) error {
	if err := l.writeFile(name+".crt", pair.Certificate); err != nil {
		return err
	}
	return l.writeFile(name+".key", pair.Key)
}

func (l Layout) writeFile(name string, content []byte) error {
	return os.WriteFile(filepath.Join(l.Directory, name), content, 0o600)
}
