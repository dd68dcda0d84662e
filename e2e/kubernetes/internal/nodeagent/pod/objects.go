package pod

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/volume"
)

// server is the Service `kubernetes`: its address does not change.
type server struct {
	mutex  sync.Mutex
	values map[string]string
}

// variables are what processes find in their environment about the API server.
func (s *server) variables(ctx context.Context, client kubernetes.Interface) (map[string]string, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.values != nil {
		return s.values, nil
	}
	service, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("the Service of the API server: %w", err)
	}
	s.values = serverVariables(service)
	return s.values, nil
}

// serverVariables are those that a kubelet derives from the Service.
func serverVariables(service *v1.Service) map[string]string {
	address, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil || len(service.Spec.Ports) == 0 {
		return nil
	}
	number := service.Spec.Ports[0].Port
	port := strconv.Itoa(int(number))
	url := "tcp://" + netip.AddrPortFrom(address, uint16(number)).String()
	prefix := "KUBERNETES_PORT_" + port + "_TCP"
	return map[string]string{
		"KUBERNETES_SERVICE_HOST": address.String(), "KUBERNETES_SERVICE_PORT": port, "KUBERNETES_SERVICE_PORT_HTTPS": port,
		"KUBERNETES_PORT": url, prefix: url, prefix + "_PROTO": "tcp", prefix + "_PORT": port, prefix + "_ADDR": address.String(),
	}
}

// surroundingsOf are the surroundings of a container with what the API server
// holds for it.
func (w *Worker) surroundingsOf(pod *v1.Pod, spec *v1.Container) (surroundings, error) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	around := w.surroundings()
	var err error
	if around.server, err = w.host.server.variables(ctx, w.host.Client); err != nil {
		return surroundings{}, err
	}
	around.sources = map[source]map[string]string{}
	objects := w.objects()
	for wanted, optional := range sourcesOf(spec) {
		if around.sources[wanted], err = read(ctx, objects, wanted, &optional); err != nil {
			return surroundings{}, fmt.Errorf("container %s: %w", spec.Name, err)
		}
	}
	return around, nil
}

// source is a config map or a secret with values of variables.
type source struct {
	secret bool
	name   string
}

// sourcesOf are those that a container names, and whether they may be missing.
func sourcesOf(spec *v1.Container) map[source]bool {
	sources := map[source]bool{}
	add := func(wanted source, optional *bool) {
		missing := optional != nil && *optional
		if before, known := sources[wanted]; known {
			missing = missing && before
		}
		sources[wanted] = missing
	}
	for _, from := range spec.EnvFrom {
		if from.ConfigMapRef != nil {
			add(source{name: from.ConfigMapRef.Name}, from.ConfigMapRef.Optional)
		}
		if from.SecretRef != nil {
			add(source{secret: true, name: from.SecretRef.Name}, from.SecretRef.Optional)
		}
	}
	for _, variable := range spec.Env {
		from := variable.ValueFrom
		if from != nil && from.ConfigMapKeyRef != nil {
			add(source{name: from.ConfigMapKeyRef.Name}, from.ConfigMapKeyRef.Optional)
		}
		if from != nil && from.SecretKeyRef != nil {
			add(source{secret: true, name: from.SecretKeyRef.Name}, from.SecretKeyRef.Optional)
		}
	}
	return sources
}

func read(ctx context.Context, objects volume.Objects, wanted source, optional *bool) (map[string]string, error) {
	if !wanted.secret {
		found, err := objects.ConfigMap(ctx, wanted.name, optional)
		if err != nil || found == nil {
			return nil, err
		}
		return found.Data, nil
	}
	found, err := objects.Secret(ctx, wanted.name, optional)
	if err != nil || found == nil {
		return nil, err
	}
	values := map[string]string{}
	for key, value := range found.Data {
		values[key] = string(value)
	}
	return values, nil
}

// variablesFrom are the variables of an envFrom in the order of their names.
func variablesFrom(from v1.EnvFromSource, sources map[source]map[string]string) []v1.EnvVar {
	wanted := source{}
	if from.ConfigMapRef != nil {
		wanted.name = from.ConfigMapRef.Name
	}
	if from.SecretRef != nil {
		wanted = source{secret: true, name: from.SecretRef.Name}
	}
	values := sources[wanted]
	var variables []v1.EnvVar
	for _, key := range slices.Sorted(maps.Keys(values)) {
		variables = append(variables, v1.EnvVar{Name: from.Prefix + key, Value: values[key]})
	}
	return variables
}
