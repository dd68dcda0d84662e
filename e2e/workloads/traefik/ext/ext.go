// Package ext stands for the one of this name in Traefik's repository, which its module cannot name: what others may
// add to Traefik's configuration, which is nothing.
package ext

// HTTP is nothing more for a configuration of HTTP.
// +k8s:deepcopy-gen=true
type HTTP struct{}

// DeepCopyInto copies nothing.
func (*HTTP) DeepCopyInto(*HTTP) {}

// Router is nothing more for a router.
type Router struct{}

// DeepCopyInto copies nothing.
func (*Router) DeepCopyInto(*Router) {}
