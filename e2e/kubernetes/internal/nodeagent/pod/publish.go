package pod

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// publish writes the Pod's status if it differs from what the API server holds.
func (w *Worker) publish(stopped bool) error {
	for {
		pod, view, gone := w.view(stopped)
		if gone {
			return nil
		}
		status := statusOf(pod, view)
		if equality.Semantic.DeepEqual(status, pod.Status) {
			return nil
		}
		changed := pod.DeepCopy()
		changed.Status = status
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		written, err := w.host.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
		cancel()
		switch {
		case err == nil:
			w.take(written)
			return nil
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			if err := w.refresh(pod); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// refresh reads the Pod; another one of its name means that ours is gone.
func (w *Worker) refresh(pod *v1.Pod) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	read, err := w.host.Client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && read.UID != pod.UID:
		w.Abandon()
		return nil
	case err != nil:
		return err
	default:
		w.take(read)
		return nil
	}
}

// remove deletes the Pod for good: its processes have ended.
func (w *Worker) remove() error {
	pod := w.latest()
	now, uid := int64(0), types.UID(w.uid)
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	err := w.host.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now,
		Preconditions:      &metav1.Preconditions{UID: &uid},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// take keeps a version of the Pod that the API server returned.
func (w *Worker) take(pod *v1.Pod) {
	w.mutex.Lock()
	newer := newer(pod, w.pod)
	w.mutex.Unlock()
	if newer {
		w.Update(pod)
	}
}

func (w *Worker) view(stopped bool) (*v1.Pod, View, bool) {
	// The containers' locks come before the worker's.
	initial, main := states(w.initial), states(w.main)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	terminating := w.pod.DeletionTimestamp != nil
	view := View{
		Started:   w.first,
		HostIPs:   w.host.Addresses,
		Addresses: w.addresses,
		Initial:   initial,
		Main:      main,
		Stopped:   stopped && terminating,
	}
	return w.pod, view, w.gone
}

func states(containers []*container) []State {
	var all []State
	for _, container := range containers {
		all = append(all, container.snapshot())
	}
	return all
}

const writeTimeout = 5 * time.Second
