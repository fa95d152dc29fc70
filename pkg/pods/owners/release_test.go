package owners_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// jobPod is a pod as the Job controller makes it.
func jobPod(changes ...func(*corev1.Pod)) *corev1.Pod {
	made := func(p *corev1.Pod) {
		p.Labels = map[string]string{
			"app": "sum", jobController: "uid-of-owner", "controller-uid": "uid-of-owner",
			batchv1.JobNameLabel: "sum", "job-name": "sum", jobIndex: "2",
		}
		p.Annotations = map[string]string{jobIndex: "2"}
		p.Finalizers = []string{jobTracking}
	}
	return podOf(reference("batch/v1", "Job", "sum"), append([]func(*corev1.Pod){made}, changes...)...)
}

func TestReleasedIsNotAdoptedAgain(t *testing.T) {
	job, rs := jobOwner(asIs), replicaSetOwner(asIs)
	rsPod := podOf(rs.Reference, func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web", "pod-template-hash": "abc"} })
	for name, test := range map[string]struct {
		owner    owners.Owner
		pod      *corev1.Pod
		selector *metav1.LabelSelector
		labels   map[string]string
	}{
		"Job":        {job, jobPod(), job.Job.Spec.Selector, map[string]string{"app": "sum", jobIndex: "2"}},
		"ReplicaSet": {rs, rsPod, rs.ReplicaSet.Spec.Selector, map[string]string{"app": "web"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.pod.DeepCopy()
			got, err := owners.Released(test.pod, test.owner)
			if err != nil {
				t.Fatal(err)
			}
			selector, err := metav1.LabelSelectorAsSelector(test.selector)
			if err != nil {
				t.Fatal(err)
			}
			if metav1.GetControllerOf(got) != nil || len(got.OwnerReferences) != 0 || len(got.Finalizers) != 0 || selector.Matches(labels.Set(got.Labels)) {
				t.Errorf("still tied to its owner: %+v", got.ObjectMeta)
			}
			if !equality.Semantic.DeepEqual(got.Labels, test.labels) {
				t.Errorf("labels %v, want %v", got.Labels, test.labels)
			}
			if !owners.IsReleased(got) || owners.IsReleased(test.pod) || !equality.Semantic.DeepEqual(before, test.pod) {
				t.Error("the mark is missing, or the pod that was given is changed")
			}
			if _, err := owners.Released(got, test.owner); err == nil {
				t.Error("released twice: what was removed first would be lost")
			}
		})
	}
}

// What is released and restored is what it was, whatever else is on the pod.
func TestRestoredUndoesReleased(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	some := func(n int, format string) []string {
		var names []string
		for i := range random.IntN(n + 1) {
			names = append(names, fmt.Sprintf(format, i))
		}
		return names
	}
	for range 500 {
		o := jobOwner(asIs)
		if random.IntN(2) == 0 {
			o = replicaSetOwner(asIs)
		}
		pod := fixture.MakePod("p").Obj()
		keys := append(some(3, "label-%d"), jobController, "controller-uid", batchv1.JobNameLabel, "job-name", "app", "pod-template-hash")
		for _, key := range keys {
			if random.IntN(4) > 0 {
				metav1.SetMetaDataLabel(&pod.ObjectMeta, key, fmt.Sprint("v", random.IntN(9)))
			}
		}
		for _, key := range some(3, "annotation-%d") {
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, key, `"quoted"`)
		}
		for _, name := range some(3, "owner-%d") {
			pod.OwnerReferences = append(pod.OwnerReferences, metav1.OwnerReference{Name: name, UID: "other"})
		}
		pod.OwnerReferences = slices.Insert(pod.OwnerReferences, random.IntN(len(pod.OwnerReferences)+1), *o.Reference)
		pod.Finalizers = some(3, "example.org/finalizer-%d")
		if random.IntN(4) > 0 {
			pod.Finalizers = slices.Insert(pod.Finalizers, random.IntN(len(pod.Finalizers)+1), jobTracking)
		}

		released, err := owners.Released(pod, o)
		if err != nil {
			t.Fatal(err)
		}
		restored, err := owners.Restored(released)
		if err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(restored, pod) {
			t.Fatalf("restored\n%+v\nwant\n%+v\nreleased\n%+v", restored.ObjectMeta, pod.ObjectMeta, released.ObjectMeta)
		}
	}
}

func TestRestoredAfterOthersWrote(t *testing.T) {
	now := metav1.Now()
	released, err := owners.Released(jobPod(), jobOwner(asIs))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("being deleted", func(t *testing.T) {
		pod := released.DeepCopy()
		pod.DeletionTimestamp = &now
		restored, err := owners.Restored(pod)
		if err != nil {
			t.Fatal(err)
		}
		if len(restored.Finalizers) != 0 || metav1.GetControllerOf(restored) == nil {
			t.Errorf("finalizers %v: the API server takes no new one for such a pod", restored.Finalizers)
		}
	})
	t.Run("more was added", func(t *testing.T) {
		pod := released.DeepCopy()
		pod.Labels["mine"], pod.Annotations["mine"] = "1", "2"
		pod.Finalizers = []string{"example.org/mine"}
		restored, err := owners.Restored(pod)
		if err != nil {
			t.Fatal(err)
		}
		if restored.Labels["mine"] != "1" || restored.Annotations["mine"] != "2" || !slices.Contains(restored.Finalizers, "example.org/mine") || !slices.Contains(restored.Finalizers, jobTracking) {
			t.Errorf("what others wrote is lost: %+v", restored.ObjectMeta)
		}
	})
	for name, record := range map[string]string{"not released": "", "broken": "{", "empty": "{}"} {
		t.Run(name, func(t *testing.T) {
			pod := jobPod()
			pod.Annotations[v1alpha1.ReleasedAnnotation] = record
			if _, err := owners.Restored(pod); err == nil {
				t.Error("restored from nothing")
			}
		})
	}
}

// The owner adopts again what has the labels, and nothing else is written for it.
func TestReturned(t *testing.T) {
	for name, test := range map[string]struct {
		pod   *corev1.Pod
		owner owners.Owner
	}{"Job": {jobPod(), jobOwner(asIs)}, "ReplicaSet": {podOf(reference("apps/v1", "ReplicaSet", "web"), func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "web", "pod-template-hash": "abc"}
	}), replicaSetOwner(asIs)}} {
		released, err := owners.Released(test.pod, test.owner)
		if err != nil {
			t.Fatal(err)
		}
		returned, err := owners.Returned(released)
		if err != nil {
			t.Fatal(err)
		}
		if owners.IsReturned(released) || !owners.IsReturned(returned) || owners.IsAdoptedAgain(returned) || metav1.GetControllerOf(returned) != nil || len(returned.Finalizers) != len(released.Finalizers) {
			t.Errorf("%s: returned as %+v", name, returned.ObjectMeta)
		}
		taken := returned.DeepCopy()
		taken.OwnerReferences = test.pod.OwnerReferences
		if restored, err := owners.Restored(taken); err != nil || !owners.IsAdoptedAgain(taken) || !equality.Semantic.DeepEqual(restored.ObjectMeta, test.pod.ObjectMeta) {
			t.Errorf("%s: restored as %+v, error %v, want %+v", name, restored.ObjectMeta, err, test.pod.ObjectMeta)
		}
	}
	for name, record := range map[string]string{"not released": "", "broken": "{", "empty": "{}"} {
		pod := jobPod()
		pod.Annotations[v1alpha1.ReleasedAnnotation] = record
		if _, err := owners.Returned(pod); err == nil || owners.IsReturned(pod) || owners.IsAdoptedAgain(pod) {
			t.Errorf("%s: returned", name)
		}
	}
}

func TestReleasedFails(t *testing.T) {
	for name, test := range map[string]struct {
		pod   *corev1.Pod
		owner owners.Owner
	}{
		"no controller":           {podOf(nil), owners.Owner{}},
		"of another owner":        {jobPod(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "other" }), jobOwner(asIs)},
		"StatefulSet":             {podOf(reference("apps/v1", "StatefulSet", "db")), statefulSetOwner(asIs)},
		"ReplicaSet that is gone": {podOf(reference("apps/v1", "ReplicaSet", "web")), without(replicaSetOwner(asIs))},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := owners.Released(test.pod, test.owner); err == nil {
				t.Error("released")
			}
		})
	}
}

func TestIsRival(t *testing.T) {
	now := metav1.Now()
	original, err := owners.Released(jobPod(), jobOwner(asIs))
	if err != nil {
		t.Fatal(err)
	}
	with := func(changes ...func(*corev1.Pod)) *corev1.Pod {
		return jobPod(append(changes, func(p *corev1.Pod) { p.UID = "another" })...)
	}
	index := func(value string) func(*corev1.Pod) { return annotated(jobIndex, value) }
	ours := func(p *corev1.Pod) { p.Labels[v1alpha1.MigrationUIDLabel] = "m" }
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"same index, bound":     {with(), true},
		"same index, unbound":   {with(func(p *corev1.Pod) { p.Spec.NodeName = "" }), false},
		"same index, ending":    {with(func(p *corev1.Pod) { p.DeletionTimestamp = &now }), false},
		"same index, done":      {with(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), false},
		"another index":         {with(index("1")), false},
		"replacement, no index": {with(index(""), func(p *corev1.Pod) { delete(p.Labels, jobIndex) }, ours), true},
		"of another Job":        {with(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "other" }), false},
		"the original":          {original, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := owners.IsRival(test.pod, original, "m", &now); got != test.want {
				t.Errorf("rival: %v, want %v", got, test.want)
			}
		})
	}
	plain := func(p *corev1.Pod) { index("")(p); delete(p.Labels, jobIndex) }
	if original, err = owners.Released(jobPod(plain), jobOwner(asIs)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		age   time.Duration
		ours  types.UID
		since *metav1.Time
		want  bool
	}{
		"no index, created since": {0, "", &now, true}, "no index, older": {time.Minute, "", &now, false},
		"no index, the replacement of another": {0, "other", &now, false}, "no index, nothing was to be released": {0, "", nil, false},
	} {
		pod := with(plain, func(p *corev1.Pod) {
			p.CreationTimestamp = metav1.NewTime(now.Add(-test.age))
			if test.ours != "" {
				p.Labels[v1alpha1.MigrationUIDLabel] = string(test.ours)
			}
		})
		if got := owners.IsRival(pod, original, "m", test.since); got != test.want {
			t.Errorf("%s: rival: %v, want %v", name, got, test.want)
		}
	}
	if discarded := owners.Discarded(with()); slices.Contains(discarded.Finalizers, jobTracking) || metav1.GetControllerOf(discarded) == nil {
		t.Errorf("discarded: %+v", discarded.ObjectMeta)
	}
}
