package volume

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Objects are what the API server holds for a Pod.
type Objects struct {
	Client kubernetes.Interface
	Pod    *v1.Pod
}

// ConfigMap of the Pod's namespace; nil if there is none and it is optional.
func (o Objects) ConfigMap(ctx context.Context, name string, optional *bool) (*v1.ConfigMap, error) {
	found, err := o.Client.CoreV1().ConfigMaps(o.Pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	return ifThere(found, err, optional)
}

// Secret of the Pod's namespace; nil if there is none and it is optional.
func (o Objects) Secret(ctx context.Context, name string, optional *bool) (*v1.Secret, error) {
	found, err := o.Client.CoreV1().Secrets(o.Pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	return ifThere(found, err, optional)
}

// Token is a new token of the Pod's service account, bound to the Pod.
func (o Objects) Token(ctx context.Context, source *v1.ServiceAccountTokenProjection) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: o.Pod.Name, UID: o.Pod.UID,
		},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	account := o.Pod.Spec.ServiceAccountName
	granted, err := o.Client.CoreV1().ServiceAccounts(o.Pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of service account %s: %w", account, err)
	}
	return granted.Status.Token, nil
}

func ifThere[T any](found *T, err error, optional *bool) (*T, error) {
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}
