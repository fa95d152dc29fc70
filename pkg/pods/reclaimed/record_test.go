package reclaimed_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
)

func cpu(amount string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}}
}

// resized is a pod whose only container was resized from 900m to 1m, and has the
// resources that are given now.
func resized(t *testing.T, now corev1.ResourceRequirements) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "batch", Resources: now}}}}
	record := reclaimed.Record{Containers: map[string]reclaimed.Change{"batch": {Original: cpu("900m"), Resized: cpu("1m")}}}
	if err := record.Write(pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestOriginalRestoresOnlyWhatTheRecordExplains(t *testing.T) {
	for name, test := range map[string]struct{ now, want string }{
		"resized":                      {"1m", "900m"},
		"set in between by another":    {"300m", "300m"},
		"restored by another client":   {"900m", "900m"},
		"raised by another client":     {"2", "2"},
		"without a request ever since": {"0", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := resized(t, cpu(test.now))
			before := pod.DeepCopy()
			original, err := reclaimed.Original(pod)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(cpu(test.want), original.Spec.Containers[0].Resources); diff != "" {
				t.Errorf("resources (-want +got):\n%s", diff)
			}
			if len(original.Annotations) != 0 {
				t.Errorf("the record stays on the pod: %v", original.Annotations)
			}
			if diff := cmp.Diff(before, pod); diff != "" {
				t.Errorf("the pod that was given has changed:\n%s", diff)
			}
		})
	}
}

// While a resize is about to be done, a crash leaves what was found or what was
// wanted, and nothing else.
func TestOriginalOfAResizeThatIsPending(t *testing.T) {
	for now, want := range map[string]string{"1m": "900m", "400m": "900m", "25m": "25m", "900m": "900m", "399m": "399m"} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "batch", Resources: cpu(now)}}}}
		change := reclaimed.Change{Original: cpu("900m")}.Pending(cpu("400m"), cpu("1m"))
		record := reclaimed.Record{Containers: map[string]reclaimed.Change{"batch": change}}
		if err := record.Write(pod); err != nil {
			t.Fatal(err)
		}
		original, err := reclaimed.Original(pod)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(cpu(want), original.Spec.Containers[0].Resources); diff != "" {
			t.Errorf("now %s (-want +got):\n%s", now, diff)
		}
	}
	if done := (reclaimed.Change{Original: cpu("900m")}).Pending(cpu("1m"), cpu("1m")); done.Before != nil {
		t.Errorf("a resize that is done is pending: %+v", done)
	}
}

func TestARecordThatCannotBeRead(t *testing.T) {
	pod := resized(t, cpu("1m"))
	for key := range pod.Annotations {
		pod.Annotations[key] = "{"
	}
	if original, err := reclaimed.Original(pod); err == nil || original != pod {
		t.Errorf("got %v, error %v, want the pod itself and an error", original, err)
	}
}
