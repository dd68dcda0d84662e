package volume

import (
	"context"
	"fmt"
	"maps"
	"path"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/kubernetes/pkg/volume/secret"
	"k8s.io/kubernetes/pkg/volume/util"
)

// files are the files of a volume by their paths in it.
type files = map[string]util.FileProjection

// Fields says what a field of the Pod is, such as `metadata.name`.
type Fields func(source *v1.ObjectFieldSelector) (string, error)

func (o Objects) configMap(ctx context.Context, source *v1.ConfigMapVolumeSource) (files, error) {
	found, err := o.ConfigMap(ctx, source.Name, source.Optional)
	if err != nil {
		return nil, err
	}
	if found == nil {
		found = &v1.ConfigMap{}
	}
	return configmap.MakePayload(source.Items, found, source.DefaultMode, nil, isTrue(source.Optional))
}

func (o Objects) secret(ctx context.Context, source *v1.SecretVolumeSource) (files, error) {
	found, err := o.Secret(ctx, source.SecretName, source.Optional)
	if err != nil {
		return nil, err
	}
	if found == nil {
		found = &v1.Secret{}
	}
	return secret.MakePayload(source.Items, found, source.DefaultMode, nil, isTrue(source.Optional))
}

func downward(items []v1.DownwardAPIVolumeFile, mode *int32, fields Fields) (files, error) {
	payload := files{}
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, fmt.Errorf("%s: only fieldRef is supported by the lab's node agent", item.Path)
		}
		value, err := fields(item.FieldRef)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", item.Path, err)
		}
		payload[path.Clean(item.Path)] = util.FileProjection{Data: []byte(value), Mode: first(item.Mode, mode)}
	}
	return payload, nil
}

func (o Objects) projected(ctx context.Context, source *v1.ProjectedVolumeSource, fields Fields) (files, error) {
	payload := files{}
	for _, part := range source.Sources {
		more, err := o.projection(ctx, part, source.DefaultMode, fields)
		if err != nil {
			return nil, err
		}
		maps.Copy(payload, more)
	}
	return payload, nil
}

func (o Objects) projection(ctx context.Context, part v1.VolumeProjection, mode *int32, fields Fields) (files, error) {
	switch {
	case part.ConfigMap != nil:
		return o.configMap(ctx, &v1.ConfigMapVolumeSource{
			LocalObjectReference: part.ConfigMap.LocalObjectReference,
			Items:                part.ConfigMap.Items, Optional: part.ConfigMap.Optional, DefaultMode: mode,
		})
	case part.Secret != nil:
		return o.secret(ctx, &v1.SecretVolumeSource{
			SecretName: part.Secret.Name, Items: part.Secret.Items, Optional: part.Secret.Optional, DefaultMode: mode,
		})
	case part.DownwardAPI != nil:
		return downward(part.DownwardAPI.Items, mode, fields)
	case part.ServiceAccountToken != nil:
		token, err := o.Token(ctx, part.ServiceAccountToken)
		if err != nil {
			return nil, err
		}
		return files{part.ServiceAccountToken.Path: {Data: []byte(token), Mode: first(nil, mode)}}, nil
	default:
		return nil, fmt.Errorf("a source of the projected volume is not supported by the lab's node agent")
	}
}

func first(one, other *int32) int32 {
	switch {
	case one != nil:
		return *one
	case other != nil:
		return *other
	default:
		return defaultMode
	}
}

func isTrue(flag *bool) bool { return flag != nil && *flag }

// defaultMode is that of a file when neither it nor its volume says another.
const defaultMode = 0o644
