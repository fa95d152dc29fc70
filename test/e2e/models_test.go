//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/simulate"
)

var everyScript = flag.Bool("every-script", false, "hold every script against the models, not only those that are brief")

// What the simulation says of a scenario is what happens on real nodes: the same script is
// run on both, with the controller held at the same step while the same happens, and what
// is left in the end is put into the same words.
func TestModelsEndAsRealNodesDo(t *testing.T) {
	t.Parallel()
	for _, script := range simulate.Scripts {
		if !script.Brief && !*everyScript && !isFull() {
			continue
		}
		t.Run(script.String(), func(t *testing.T) {
			t.Parallel()
			want, err := script.Play(1)
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			s := startScripted(t, script)
			s.play(t)
			s.wantEnd(t, want)
			t.Logf("after %s both ended with\n%s", time.Since(begun).Round(time.Second), want)
		})
	}
}

// scripted is a script on real nodes.
type scripted struct {
	simulate.Script
	namespace string
	original  *corev1.Pod
	migration *v1alpha1.PodMigration
	// before is for how long the original had worked when its migration was requested.
	before time.Duration
}

// scriptedName is that of everything that a script has in its namespace.
const scriptedName = "work"

const scriptedProgress = "/scratch/progress"

// startScripted runs the pod of a script on the first node.
func startScripted(t *testing.T, script simulate.Script) *scripted {
	t.Helper()
	s := &scripted{Script: script, namespace: newNamespace(t)}
	c := container("work", 10)
	spec := corev1.PodSpec{SchedulerName: v1alpha1.SchedulerName, RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: new(int64(5))}
	if script.Carries {
		c.Args = append(c.Args, "--write="+scriptedProgress)
		c.VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
		spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	}
	spec.Containers = []corev1.Container{c}
	label := openLabel(s.namespace)
	spec.NodeSelector = map[string]string{label: ""}
	openTo(t, label, env.nodes[0])
	for _, kind := range workloadKinds {
		if kind.name == string(script.Owner) || kind.name == "bare pod" && script.Owner == simulate.Bare {
			create(t, kind.make(s.namespace, scriptedName, templateOf(scriptedName, spec)))
		}
	}
	s.original = awaitOnly(t, s.namespace, scriptedName, 2*time.Minute)
	openTo(t, label, env.nodes[1])
	if script.Carries {
		// Enough to distinguish one that continues from one that has started again.
		eventually(t, time.Minute, "the pod works", func(context.Context) (err error) {
			if s.before, err = progressOf(s.original, scriptedProgress); err == nil && s.before < 2*workSlack {
				err = fmt.Errorf("it has worked for %s", s.before)
			}
			return err
		})
	}
	return s
}

// play migrates the pod, holds the controller at the step of the script, and lets happen
// what the script says.
func (s *scripted) play(t *testing.T) {
	t.Helper()
	await, proceed := env.breakpoints.armOne(t, s.namespace, scriptedName, s.At)
	s.migration = s.Request(s.namespace, scriptedName, s.original.Name)
	create(t, s.migration)
	await()
	if err := env.client.Get(t.Context(), client.ObjectKeyFromObject(s.migration), s.migration); err != nil {
		t.Fatal(err)
	}
	s.act(t)
	eventually(t, 2*time.Minute, string(s.Act), func(ctx context.Context) error {
		original, err := findPod(ctx, s.namespace, s.original.Name)
		if err != nil {
			return err
		}
		if original != nil && original.UID != s.original.UID {
			original = nil
		}
		var replacement *corev1.Pod
		if r := s.migration.Status.Replacement; r != nil {
			if replacement, err = findPod(ctx, s.namespace, r.Name); err != nil {
				return err
			}
		}
		if !s.IsDone(s.migration, original, replacement, time.Now()) {
			return errors.New("it has not happened yet")
		}
		return nil
	})
	proceed()
}

// findPod is nil when there is no such pod.
func findPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod, err := getPod(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return pod, err
}

// act does what the script says.
func (s *scripted) act(t *testing.T) {
	t.Helper()
	metadata := metav1.ObjectMeta{Namespace: s.namespace, Name: scriptedName}
	patch := func(object client.Object, content string) error {
		return env.client.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(content)))
	}
	remove := func(object client.Object) error { return env.client.Delete(t.Context(), object) }
	pod := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	}
	var err error
	switch s.Act {
	case simulate.Cancel:
		err = patch(&v1alpha1.PodMigration{ObjectMeta: metadata}, `{"spec":{"cancel":true}}`)
	case simulate.DeleteMigration:
		err = remove(&v1alpha1.PodMigration{ObjectMeta: metadata})
	case simulate.TimeOut: // by itself
	case simulate.Suspend:
		err = patch(&batchv1.Job{ObjectMeta: metadata}, `{"spec":{"suspend":true}}`)
	case simulate.ScaleToZero:
		err = patch(&appsv1.StatefulSet{ObjectMeta: metadata}, `{"spec":{"replicas":0}}`)
	case simulate.RollOut:
		err = patch(&appsv1.Deployment{ObjectMeta: metadata}, `{"spec":{"template":{"metadata":{"annotations":{"revision":"2"}}}}}`)
	case simulate.DeleteOriginal:
		err = remove(pod(s.original.Name))
	case simulate.DeleteReplacement:
		err = remove(pod(s.migration.Status.Replacement.Name))
	case simulate.DeletePlaceholder:
		err = remove(pod(s.migration.Status.Placeholder.Name))
	case simulate.DeleteOwner:
		err = env.client.Delete(t.Context(), &batchv1.Job{ObjectMeta: metadata}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	case simulate.EvictOriginal:
		err = env.client.SubResource("eviction").Create(t.Context(), s.original.DeepCopy(), &policyv1.Eviction{ObjectMeta: s.original.ObjectMeta})
	case simulate.DeleteClaim:
		err = remove(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.migration.Status.CheckpointClaim}})
	case simulate.FillQuota:
		s.fillQuota(t)
	default:
		t.Fatalf("a script says %q", s.Act)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fillQuota adds a quota that has no space for another pod.
func (s *scripted) fillQuota(t *testing.T) {
	t.Helper()
	pods := &corev1.PodList{}
	if err := env.client.List(t.Context(), pods, client.InNamespace(s.namespace)); err != nil {
		t.Fatal(err)
	}
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: scriptedName},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(int64(len(pods.Items)), resource.DecimalSI)}},
	}
	create(t, quota)
	eventually(t, time.Minute, "the quota is counted", func(ctx context.Context) error {
		if err := env.client.Get(ctx, client.ObjectKeyFromObject(quota), quota); err != nil {
			return err
		}
		if used := quota.Status.Used.Pods(); used.Value() != int64(len(pods.Items)) {
			return fmt.Errorf("%s pods are counted", used)
		}
		return nil
	})
}

// settledFor is for how long an end has to stay.
const settledFor = 3 * time.Second

// wantEnd wants what is left to become what the models have, and to stay so.
func (s *scripted) wantEnd(t *testing.T, want simulate.End) {
	t.Helper()
	eventually(t, 3*time.Minute, "the migration ends", func(ctx context.Context) error {
		err := env.client.Get(ctx, client.ObjectKeyFromObject(s.migration), s.migration)
		if err == nil && !s.migration.Status.Phase.IsFinished() {
			return fmt.Errorf("it is %s: %s", s.migration.Status.Phase, s.migration.Status.Message)
		}
		return client.IgnoreNotFound(err)
	})
	check := func(ctx context.Context) error {
		got, err := s.end(ctx)
		if difference := cmp.Diff(want, got); err == nil && difference != "" {
			err = fmt.Errorf("-models +real nodes:\n%s", difference)
		}
		return err
	}
	eventually(t, time.Minute, "it ends as the models do", check)
	time.Sleep(settledFor)
	if err := check(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("%s: %s", s.migration.Status.Phase, s.migration.Status.Message)
}

// end is what is left now.
func (s *scripted) end(ctx context.Context) (simulate.End, error) {
	pods, claims, migrations := &corev1.PodList{}, &corev1.PersistentVolumeClaimList{}, &v1alpha1.PodMigrationList{}
	o := simulate.Objects{Original: s.original}
	for _, list := range []client.ObjectList{pods, claims, migrations} {
		if err := env.client.List(ctx, list, client.InNamespace(s.namespace)); err != nil {
			return simulate.End{}, err
		}
	}
	o.Pods, o.Claims = pods.Items, claims.Items
	for i := range migrations.Items {
		o.Migration = &migrations.Items[i]
	}
	owner := map[simulate.Owner]client.Object{simulate.Deployment: &appsv1.Deployment{}, simulate.StatefulSet: &appsv1.StatefulSet{}, simulate.Job: &batchv1.Job{}}[s.Owner]
	if owner != nil {
		err := env.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: scriptedName}, owner)
		if client.IgnoreNotFound(err) != nil {
			return simulate.End{}, err
		}
		if err == nil {
			o.Owner = owner
		}
	}
	return o.End(s.continues), nil
}

// continues reports whether a pod works at what the original had done: it has worked for
// longer than it runs, or is the original, and it makes progress.
func (s *scripted) continues(pod *corev1.Pod) bool {
	if !s.Carries {
		// Nothing tells what a pod without state has done.
		return pod.UID == s.original.UID || pod.Labels[v1alpha1.MigrationUIDLabel] != ""
	}
	first, err := progressOf(pod, scriptedProgress)
	if err != nil || len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].State.Running == nil {
		return false
	}
	runs := time.Since(pod.Status.ContainerStatuses[0].State.Running.StartedAt.Time)
	if pod.UID != s.original.UID && first-runs < s.before-workSlack {
		return false
	}
	for range 10 {
		time.Sleep(200 * time.Millisecond)
		if second, err := progressOf(pod, scriptedProgress); err == nil && second > first {
			return true
		}
	}
	return false
}
