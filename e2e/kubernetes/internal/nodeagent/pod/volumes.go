package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"foghorn.dev/e2e/kubernetes/internal/nodeagent/filetree"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/image"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/naming"
	"foghorn.dev/e2e/kubernetes/internal/nodeagent/volume"
)

// provide makes the Pod's files and volumes; it tries until they are there or
// the Pod goes.
func (w *Worker) provide() bool {
	for wait := firstRetry; ; wait = min(2*wait, longestRetry) {
		err := w.writeFiles()
		if err == nil {
			err = w.makeVolumes(func(*v1.Volume) bool { return true })
		}
		if err == nil {
			return true
		}
		// The API server's node authorizer hears of a Pod a moment after the node.
		if wait > patienceBeforeWarning {
			w.host.warn(w.latest(), "FailedMount", fmt.Sprintf("MountVolume.SetUp failed: %v", err))
		}
		select {
		case <-w.stopping:
			return false
		case <-time.After(wait):
		}
	}
}

// keepVolumes brings the files of volumes up to date, as tokens run out and
// config maps change, until the Pod goes.
func (w *Worker) keepVolumes() {
	ticker := time.NewTicker(renewVolumes)
	defer ticker.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-w.stopping:
			return
		case <-ticker.C:
			if err := w.makeVolumes(volume.Changes); err != nil {
				slog.Warn("Volumes are not brought up to date, it will be tried again", "pod", w.uid, "error", err)
			}
		}
	}
}

func (w *Worker) makeVolumes(which func(*v1.Volume) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	pod, around := w.latest(), w.surroundings()
	fields := func(source *v1.ObjectFieldSelector) (string, error) { return fieldOf(pod, source, around) }
	var failures []error
	for index := range pod.Spec.Volumes {
		if each := &pod.Spec.Volumes[index]; which(each) {
			failures = append(failures, volume.Make(ctx, w.directory(), each, w.objects(), fields))
		}
	}
	return errors.Join(failures...)
}

// writeFiles writes what every container finds below /etc.
func (w *Worker) writeFiles() error {
	node, err := os.ReadFile(resolverFile)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	pod, around := w.latest(), w.surroundings()
	hosts := naming.Hosts(pod, around.hostname, around.addresses, w.host.Naming.Domain)
	if pod.Spec.HostNetwork {
		own, err := os.ReadFile(hostsFile)
		if err != nil {
			return err
		}
		hosts = string(own) + naming.Aliases(pod)
	}
	if err := os.MkdirAll(w.treeRoot(), 0o755); err != nil {
		return err
	}
	resolver := naming.ResolverOf(pod, w.host.Naming, naming.ParseResolver(string(node)))
	return errors.Join(
		os.WriteFile(filepath.Join(w.directory(), "hosts"), []byte(hosts), 0o644),
		os.WriteFile(filepath.Join(w.directory(), "resolv.conf"), []byte(resolver.String()), 0o644),
	)
}

// treeOf is the file tree of a container, whose environment is known already.
// The image's program and its other files lie where images have theirs: at the
// top.
func (w *Worker) treeOf(pod *v1.Pod, spec *v1.Container, program image.Program, environment []string) (filetree.Tree, error) {
	tree := filetree.Tree{Root: w.treeRoot(), Mounts: []filetree.Mount{
		{Source: filepath.Join(w.directory(), "hosts"), Target: hostsFile},
		{Source: filepath.Join(w.directory(), "resolv.conf"), Target: resolverFile},
	}}
	for _, file := range program.Files() {
		tree.Mounts = append(tree.Mounts, filetree.Mount{Source: file, Target: "/" + filepath.Base(file), ReadOnly: true})
	}
	volumes := map[string]*v1.Volume{}
	for index := range pod.Spec.Volumes {
		volumes[pod.Spec.Volumes[index].Name] = &pod.Spec.Volumes[index]
	}
	for _, mount := range spec.VolumeMounts {
		source := volume.Path(w.directory(), volumes[mount.Name])
		below := mount.SubPath
		if mount.SubPathExpr != "" {
			below = expansion.Expand(mount.SubPathExpr, lookup(environment))
		}
		if below != "" {
			source = filepath.Join(source, filepath.Clean("/"+below))
			if err := makeBelow(source, volumes[mount.Name]); err != nil {
				return filetree.Tree{}, fmt.Errorf("volume %s: subPath %s: %w", mount.Name, below, err)
			}
		}
		tree.Mounts = append(tree.Mounts, filetree.Mount{Source: source, Target: mount.MountPath, ReadOnly: mount.ReadOnly})
	}
	return tree, nil
}

// makeBelow makes a directory in a volume that the Pod's processes may fill.
func makeBelow(path string, of *v1.Volume) error {
	if _, err := os.Stat(path); err == nil || of.EmptyDir == nil {
		return err
	}
	return os.MkdirAll(path, 0o777)
}

func lookup(environment []string) func(string) string {
	values := map[string]string{}
	for _, entry := range environment {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	return expansion.MappingFuncFor(values)
}

func (w *Worker) objects() volume.Objects {
	return volume.Objects{Client: w.host.Client, Pod: w.latest()}
}

func (w *Worker) directory() string { return filepath.Join(w.host.Directory, w.uid) }

func (w *Worker) treeRoot() string { return filepath.Join(w.directory(), "root") }

const (
	hostsFile    = "/etc/hosts"
	resolverFile = "/etc/resolv.conf"
	renewVolumes = time.Minute
	// patienceBeforeWarning is the longest wait for another attempt of which
	// nothing is said.
	patienceBeforeWarning = 500 * time.Millisecond
)
