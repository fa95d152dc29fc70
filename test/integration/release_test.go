package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// startControllers runs the Job, ReplicaSet and StatefulSet controllers of Kubernetes.
func startControllers(t *testing.T) {
	t.Helper()
	program := filepath.Join("..", "..", "bin", "kube-controller-manager")
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		program = filepath.Join(assets, "kube-controller-manager")
	}
	command := exec.CommandContext(t.Context(), program, "--kubeconfig="+kubeconfig(t), "--controllers=job-controller,replicaset-controller,statefulset-controller",
		"--leader-elect=false", "--secure-port=0", "--v=1")
	if err := command.Start(); err != nil {
		t.Fatalf("starting %s: run make bin/kube-controller-manager: %v", program, err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
}

// ownedPods lists the pods of a controller that are not being deleted.
func ownedPods(t *testing.T, owner client.Object) []corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	if err := k8s.List(t.Context(), list, client.InNamespace(owner.GetNamespace())); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		c := metav1.GetControllerOf(&p)
		return p.DeletionTimestamp != nil || c == nil || c.UID != owner.GetUID()
	})
}

// waitForPods waits until a controller has so many pods.
func waitForPods(t *testing.T, owner client.Object, count int) []corev1.Pod {
	t.Helper()
	var pods []corev1.Pod
	eventually(t, 30*time.Second, func(context.Context) error {
		if pods = ownedPods(t, owner); len(pods) != count {
			return fmt.Errorf("%d pods, want %d", len(pods), count)
		}
		return nil
	})
	return pods
}

// runs binds a pod and lets it run, Ready or not.
func runs(t *testing.T, pod *corev1.Pod, ready bool) {
	t.Helper()
	binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: nodeA}}
	if err := k8s.SubResource("binding").Create(t.Context(), pod, binding); err != nil {
		t.Fatal(err)
	}
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase = corev1.PodRunning
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()})
	if err := k8s.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// becomes writes a pod in one patch, as the migration controller does.
func becomes(t *testing.T, from, to *corev1.Pod, err error) *corev1.Pod {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if err := asRebalancer(t).Patch(t.Context(), to, client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{})); err != nil {
		t.Fatal(err)
	}
	return to
}

func template() corev1.PodTemplateSpec {
	pod := fixture.MakePod("x").RestartPolicy(corev1.RestartPolicyNever).Label("app", "x").Container("c", nil).Obj()
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec}
}

// stays checks for a while that the original is not deleted, and that the Job
// counts nothing.
func stays(t *testing.T, original *corev1.Pod, job *batchv1.Job) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		found := &corev1.Pod{}
		if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(original), found); err != nil || found.DeletionTimestamp != nil {
			t.Fatalf("the original is gone or being deleted: %v", err)
		}
		if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(job), job); err != nil {
			t.Fatal(err)
		}
		if job.Status.Failed != 0 || len(job.Status.Conditions) != 0 {
			t.Fatalf("the Job counts: %+v", job.Status)
		}
	}
}

// runningJob is an indexed Job that a single failure would end, and one of its two
// pods, which is not Ready, as a pod is of which one container has finished: the
// Job would then rather keep a replacement that is.
func runningJob(t *testing.T) (*batchv1.Job, *corev1.Pod) {
	t.Helper()
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: "sum"}, Spec: batchv1.JobSpec{
		Parallelism: new(int32(2)), Completions: new(int32(2)), BackoffLimit: new(int32(0)),
		CompletionMode: new(batchv1.IndexedCompletion), Template: template(),
	}}
	if err := k8s.Create(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	pods := waitForPods(t, job, 2)
	runs(t, &pods[0], false)
	runs(t, &pods[1], true)
	eventually(t, 10*time.Second, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return err
		}
		if reason := owners.InFlight(owners.Owner{Reference: metav1.GetControllerOf(&pods[0]), Job: job}); reason != "" {
			return fmt.Errorf("in flight: %s", reason)
		}
		return nil
	})
	return job, &pods[0]
}

// What pkg/pods/owners says of the Job controller, tried on the real one.
func TestReleaseFromJob(t *testing.T) {
	startControllers(t)
	for name, replacementRuns := range map[string]bool{"replacement waits": false, "replacement is ready": true} {
		t.Run(name, func(t *testing.T) {
			job, original := runningJob(t)
			o := owners.Owner{Reference: metav1.GetControllerOf(original), Job: job}
			if r := owners.Refuse(original, o); r != nil {
				t.Fatalf("refused: %+v", r)
			}
			released, err := owners.Released(original, o)
			original = becomes(t, original, released, err)
			pods := waitForPods(t, job, 2)
			at := slices.IndexFunc(pods, func(p corev1.Pod) bool { return owners.Identity(&p, o) == original.Annotations[jobIndex] })
			if at < 0 {
				t.Fatal("the index was not recreated")
			}
			stays(t, original, job)
			if replacementRuns {
				runs(t, &pods[at], true)
			}

			// The undo, as Restored wants it.
			if rival := &pods[at]; owners.IsRival(rival, original, "m", new(metav1.Now())) != replacementRuns {
				t.Fatalf("a rival: %v", !replacementRuns)
			} else if replacementRuns {
				rival = becomes(t, rival, owners.Discarded(rival), nil)
				if err := k8s.Delete(t.Context(), rival); err != nil {
					t.Fatal(err)
				}
			}
			original = returns(t, original)
			if !owners.IsTracked(original) {
				t.Error("the Job does not track the pod that it has adopted again")
			}
			stays(t, original, job)
			waitForPods(t, job, 2)
		})
	}
}

// returns gives a released original back to its owner, which takes it itself.
func returns(t *testing.T, original *corev1.Pod) *corev1.Pod {
	t.Helper()
	returned, err := owners.Returned(original)
	original = becomes(t, original, returned, err)
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(original), original); err != nil {
			return err
		}
		if !owners.IsAdoptedAgain(original) {
			return fmt.Errorf("pod %s has the owners %v", original.Name, original.OwnerReferences)
		}
		return nil
	})
	restored, err := owners.Restored(original)
	return becomes(t, original, restored, err)
}

func TestReleaseFromReplicaSet(t *testing.T) {
	startControllers(t)
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: newNamespace(t), Name: "web"}, Spec: appsv1.ReplicaSetSpec{
		Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}, Template: template(),
	}}
	rs.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	if err := k8s.Create(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	pods := waitForPods(t, rs, 2)
	runs(t, &pods[0], false)
	runs(t, &pods[1], true)
	original := &pods[0]
	o := owners.Owner{Reference: metav1.GetControllerOf(original), ReplicaSet: rs}
	released, err := owners.Released(original, o)
	original = becomes(t, original, released, err)
	waitForPods(t, rs, 2)
	original = returns(t, original)
	// The one that has no node goes.
	left := waitForPods(t, rs, 2)
	for _, pod := range left {
		if pod.Spec.NodeName == "" || pod.Annotations[v1alpha1.ReleasedAnnotation] != "" {
			t.Errorf("pod %s is left: %+v", pod.Name, pod.ObjectMeta)
		}
	}
	if !slices.ContainsFunc(left, func(p corev1.Pod) bool { return p.UID == original.UID }) {
		t.Error("the original was deleted")
	}
}
