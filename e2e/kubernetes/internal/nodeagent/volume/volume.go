// Package volume makes the volumes of a Pod: directories of the machine with
// what the Pod's processes shall find in them.
package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume/util"
)

// Unsupported says that the lab has no volumes of a kind.
type Unsupported struct{ Volume string }

func (e *Unsupported) Error() string {
	return fmt.Sprintf("volume %s is of a kind that the lab's node agent does not mount: "+
		"use emptyDir, configMap, secret, downwardAPI, projected or hostPath", e.Volume)
}

// Path is where a volume of a Pod lies, given the Pod's directory.
func Path(directory string, volume *v1.Volume) string {
	if volume.HostPath != nil {
		return volume.HostPath.Path
	}
	return filepath.Join(directory, "volumes", volume.Name)
}

// Make makes a volume, or brings its files up to date.
func Make(ctx context.Context, directory string, volume *v1.Volume, objects Objects, fields Fields) error {
	if volume.HostPath != nil {
		return checkHostPath(volume.HostPath)
	}
	path := Path(directory, volume)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if volume.EmptyDir != nil {
		// Whoever the processes are, it is theirs.
		return os.Chmod(path, 0o777)
	}
	payload, err := payloadOf(ctx, volume, objects, fields)
	if err != nil {
		return fmt.Errorf("volume %s: %w", volume.Name, err)
	}
	writer, err := util.NewAtomicWriter(path, "volume "+volume.Name)
	if err != nil {
		return err
	}
	return writer.Write(payload, nil)
}

// Changes says if the files of a volume can differ from what they were.
func Changes(volume *v1.Volume) bool {
	return volume.EmptyDir == nil && volume.HostPath == nil
}

func payloadOf(ctx context.Context, volume *v1.Volume, objects Objects, fields Fields) (files, error) {
	switch {
	case volume.ConfigMap != nil:
		return objects.configMap(ctx, volume.ConfigMap)
	case volume.Secret != nil:
		return objects.secret(ctx, volume.Secret)
	case volume.DownwardAPI != nil:
		return downward(volume.DownwardAPI.Items, volume.DownwardAPI.DefaultMode, fields)
	case volume.Projected != nil:
		return objects.projected(ctx, volume.Projected, fields)
	default:
		return nil, &Unsupported{Volume: volume.Name}
	}
}

// checkHostPath makes nothing: the machine is not the lab's.
func checkHostPath(source *v1.HostPathVolumeSource) error {
	if _, err := os.Stat(source.Path); err != nil {
		return fmt.Errorf("hostPath: %w", err)
	}
	return nil
}
