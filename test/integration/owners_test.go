package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// change writes a change of an object that another client may write too.
func change[T client.Object](t *testing.T, object T, make func(T)) {
	t.Helper()
	before, is := object.DeepCopyObject().(T)
	if !is {
		t.Fatalf("%T is copied as another type", object)
	}
	make(object)
	if err := k8s.Patch(t.Context(), object, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// endPods plays the kubelet: pods that are being deleted are gone at once.
func endPods(ctx context.Context, namespace string) error {
	list := &corev1.PodList{}
	if err := k8s.List(ctx, list, client.InNamespace(namespace)); err != nil {
		return err
	}
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			continue
		}
		if err := k8s.Delete(ctx, &list.Items[i], client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

// releasedFrom is a pod that a running Job has released, and its successor.
func releasedFrom(t *testing.T) (*batchv1.Job, *corev1.Pod) {
	t.Helper()
	job, original := runningJob(t)
	released, err := owners.Released(original, owners.Owner{Reference: metav1.GetControllerOf(original), Job: job})
	original = becomes(t, original, released, err)
	waitForPods(t, job, 2)
	return job, original
}

// A Job that was suspended meanwhile makes no pod, and deletes the one that is given
// back to it, without counting it.
func TestASuspendedJobDeletesWhatItGetsBack(t *testing.T) {
	startControllers(t)
	job, original := releasedFrom(t)
	reference := metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))
	change(t, job, func(j *batchv1.Job) { j.Spec.Suspend = new(true) })
	o := owners.Owner{Reference: reference, Job: job}
	if r := owners.NoNextPod(o, owners.Identity(original, o), ownedPods(t, job)); r == nil || owners.Suspended(o) != r.Message || owners.Abandons(o) != "" {
		t.Fatalf("no next pod: %+v, suspended %q, abandons %q", r, owners.Suspended(o), owners.Abandons(o))
	}
	waitForPods(t, job, 0)
	restored, err := owners.Restored(original)
	original = becomes(t, original, restored, err)
	eventually(t, 10*time.Second, func(ctx context.Context) error {
		found := &corev1.Pod{}
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(original), found); err != nil || found.DeletionTimestamp != nil {
			return client.IgnoreNotFound(err)
		}
		return fmt.Errorf("the Job has not deleted pod %s", found.Name)
	})
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(job), job); err != nil || job.Status.Failed != 0 {
		t.Errorf("the Job counts %d failures, error %v", job.Status.Failed, err)
	}
}

// A Job that has failed meanwhile does nothing with what it gets back: the pod would
// run on. Abandons says so.
func TestAFailedJobAbandonsWhatItGetsBack(t *testing.T) {
	startControllers(t)
	job, original := releasedFrom(t)
	change(t, job, func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = new(int64(1)) })
	o := owners.Owner{Reference: metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))}
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		if err := endPods(ctx, job.Namespace); err != nil {
			return err
		}
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return err
		}
		for _, c := range job.Status.Conditions {
			if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("the Job has not failed: %+v", job.Status)
	})
	if o.Job = job; owners.Ended(o, owners.Identity(original, o)) == "" || owners.Abandons(o) == "" {
		t.Errorf("ended %q, abandons %q", owners.Ended(o, ""), owners.Abandons(o))
	}
	restored, err := owners.Restored(original)
	original = becomes(t, original, restored, err)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(original), original); err != nil || original.DeletionTimestamp != nil {
			t.Fatalf("the Job deletes the pod after all (%v): Abandons is too careful", err)
		}
	}
}

// What pkg/pods/owners says of the revision of the next pod, tried on the real
// StatefulSet controller.
func TestTheRevisionOfTheNextPod(t *testing.T) {
	startControllers(t)
	for name, test := range map[string]struct {
		strategy appsv1.StatefulSetUpdateStrategy
		refused  bool
	}{
		"OnDelete":            {appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}, true},
		"below the partition": {appsv1.StatefulSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: new(int32(1))}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: "db"}, Spec: appsv1.StatefulSetSpec{
				Replicas: new(int32(1)), ServiceName: "db", UpdateStrategy: test.strategy,
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}, Template: template(),
			}}
			set.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways
			if err := k8s.Create(t.Context(), set); err != nil {
				t.Fatal(err)
			}
			pod := &waitForPods(t, set, 1)[0]
			runs(t, pod, true)
			change(t, set, func(s *appsv1.StatefulSet) {
				s.Spec.Template.Annotations = map[string]string{"example.test/version": "2"}
			})
			o := owners.Owner{Reference: metav1.GetControllerOf(pod), StatefulSet: set}
			eventually(t, 10*time.Second, func(ctx context.Context) error {
				if err := k8s.Get(ctx, client.ObjectKeyFromObject(set), set); err != nil {
					return err
				}
				if reason := owners.InFlight(o); reason != "" || set.Status.UpdateRevision == set.Status.CurrentRevision {
					return fmt.Errorf("in flight: %q, status %+v", reason, set.Status)
				}
				return nil
			})
			if r := owners.Refuse(pod, o); (r != nil) != test.refused {
				t.Fatalf("refused: %+v, want %v", r, test.refused)
			}
			// What a move does: the pod goes, and the StatefulSet creates it again.
			before := pod.DeepCopy()
			if err := k8s.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
				t.Fatal(err)
			}
			eventually(t, 10*time.Second, func(ctx context.Context) error {
				if err := k8s.Get(ctx, client.ObjectKeyFromObject(before), pod); err != nil {
					return err
				}
				if pod.UID == before.UID {
					return errors.New("the pod is still the one of before")
				}
				return nil
			})
			changed := pod.Labels[appsv1.StatefulSetRevisionLabel] != before.Labels[appsv1.StatefulSetRevisionLabel]
			if changed != test.refused || changed != (pod.Annotations["example.test/version"] != "") {
				t.Errorf("the revision changes: %v, want %v; annotations %v", changed, test.refused, pod.Annotations)
			}
		})
	}
}
