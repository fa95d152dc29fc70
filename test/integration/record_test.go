package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
)

func TestWithoutMetricsTheRecordSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{Metrics: samples{none: true}, MeasureTimeout: 200 * time.Millisecond})
	w.request(newMigration(w.namespace, "m", "train"))
	m := w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	for name, r := range map[string]*v1alpha1.ResourceRecord{"before": m.Status.Before, "after": m.Status.After} {
		if r.Source != v1alpha1.UsageUnavailable || r.Usage != nil || r.Requests.Cpu().IsZero() {
			t.Errorf("%s = %+v, want requests and no usage", name, r)
		}
	}
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionMeasured); c == nil || c.Status != "False" {
		t.Errorf("condition Measured = %+v, want False", c)
	}
}

// The real API server has no metrics API here, which must read as no measurement.
func TestNoMetricsAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	api, err := metricsclient.NewForConfig(rebalancerConfig(t))
	w.must(err)
	w.controller(migration.Options{Metrics: api, MeasureTimeout: 200 * time.Millisecond})
	w.request(newMigration(w.namespace, "m", "train"))
	if m := w.waitForPhase("m", v1alpha1.PhaseSucceeded); m.Status.After.Source != v1alpha1.UsageUnavailable {
		t.Errorf("after = %+v", m.Status.After)
	}
}

func TestTimeToLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	m := keepingClaim(newMigration(w.namespace, "m", "train"))
	m.Spec.TTLSecondsAfterFinished = ptr.To[int32](1)
	w.request(m)
	w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		err := k8s.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: "m"}, &v1alpha1.PodMigration{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.New("the PodMigration is still there")
	})
	w.onlyPod()
	if len(w.claims()) != 1 {
		t.Error("the claim went with the record")
	}
}

// A namespace whose history is kept must go without the controller, such as
// after it was uninstalled.
func TestFinishedRecordGoesWithoutTheController(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	stop := w.controller(migration.Options{})
	w.request(newMigration(w.namespace, "good", "train"))
	w.request(newMigration(w.namespace, "refused", "no-such-pod"))
	for _, name := range []string{"good", "refused"} {
		w.waitFor(name, func(m *v1alpha1.PodMigration) bool { return m.Status.Phase.IsFinished() && len(m.Finalizers) == 0 })
	}
	stop()
	for _, name := range []string{"good", "refused"} {
		m := newMigration(w.namespace, name, "train")
		w.must(k8s.Delete(t.Context(), m))
		if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(m), m); !apierrors.IsNotFound(err) {
			t.Errorf("PodMigration %s is still there: %v", name, err)
		}
	}
}

func TestRetainedClaimHasNoOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	m := newMigration(w.namespace, "m", "train")
	m.Spec.Checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain
	w.request(m)
	w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	if claims := w.claims(); len(claims) != 1 || len(claims[0].OwnerReferences) != 0 {
		t.Errorf("claims = %v, want one without an owner", claims)
	}
}

func TestSecondMigrationKeepsTheRootAndTheFirstClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Annotation(v1alpha1.DiscardableVolumesAnnotation, v1alpha1.CheckpointVolumeName).Obj())
	w.controller(migration.Options{})
	w.request(keepingClaim(newMigration(w.namespace, "first", "train")))
	first := w.waitForPhase("first", v1alpha1.PhaseSucceeded)
	// As if it had been one to go with its pod.
	claim := &w.claims()[0]
	claim.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: first.Status.Replacement.Name, UID: first.Status.Replacement.UID}}
	w.must(k8s.Update(t.Context(), claim))
	w.change(func(w *world) { w.place = func(*corev1.Pod) string { return nodeA } })
	w.request(keepingClaim(newMigration(w.namespace, "second", first.Status.Replacement.Name)))
	second := w.waitForPhase("second", v1alpha1.PhaseSucceeded)
	left := w.onlyPod()
	if strings.Count(left.Name, "-migrated-") != 1 || left.Name == first.Status.Replacement.Name || left.Spec.NodeName != nodeA {
		t.Errorf("the pod left is %s on %s, want another train-migrated-… back on %s", left.Name, left.Spec.NodeName, nodeA)
	}
	claims := w.claims()
	if len(claims) != 2 || first.Status.CheckpointClaim == second.Status.CheckpointClaim {
		t.Fatalf("claims = %v, want two", claims)
	}
	for _, c := range claims {
		owners, isFirst := c.OwnerReferences, c.Name == first.Status.CheckpointClaim
		if isFirst && (len(owners) == 0 || owners[len(owners)-1].UID != left.UID) || !isFirst && len(owners) > 0 {
			t.Errorf("claim %s has owners %v, want the pod left to own the first one alone", c.Name, owners)
		}
	}
}

func TestBudgetLetsOneThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.place, w.refusal = nil, "no room" })
	limits := budget.Limits{InFlight: 100, PerNode: 100, PerNamespace: 1, PerWorkload: 1}
	w.controller(migration.Options{UnschedulableGrace: time.Hour, Budget: &limits})
	var names []string
	for i := range 4 {
		name := fmt.Sprintf("train-%d", i)
		w.createOriginal(threeContainers(name).Obj())
		w.request(newMigration(w.namespace, name, name))
		names = append(names, name)
	}
	eventually(t, 30*time.Second, func(ctx context.Context) error {
		accepted, waiting := 0, 0
		list := &v1alpha1.PodMigrationList{}
		w.must(k8s.List(ctx, list, client.InNamespace(w.namespace)))
		for _, m := range list.Items {
			switch {
			case meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionAccepted):
				accepted++
			case strings.Contains(m.Status.Message, "1 of 1 migrations in flight in namespace"):
				waiting++
			}
		}
		if accepted > 1 {
			t.Fatalf("%d were accepted, the budget is 1", accepted)
		}
		if accepted != 1 || waiting != len(names)-1 {
			return fmt.Errorf("%d accepted, %d waiting", accepted, waiting)
		}
		return nil
	})
}

func TestEventsTellTheStory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	w.request(newMigration(w.namespace, "m", "train"))
	w.waitForPhase("m", v1alpha1.PhaseSucceeded)
	want := map[string]string{
		decide.ReasonAccepted:   "Moving pod train away from node node-a",
		decide.ReasonPrepared:   "left out: batch",
		decide.ReasonCreated:    "pod train keeps running until it is ready",
		decide.ReasonPlaced:     "was placed on node node-b",
		decide.ReasonHandedOver: "has taken over",
		decide.ReasonSucceeded:  "requests freed: cpu 900m, memory 64Mi",
	}
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		list := &eventsv1.EventList{}
		w.must(k8s.List(ctx, list, client.InNamespace(w.namespace)))
		told := map[string]bool{}
		for _, e := range list.Items {
			if words, known := want[e.Reason]; known && strings.Contains(e.Note, words) {
				told[e.Reason+"/"+e.Regarding.Kind] = true
			}
		}
		for reason := range want {
			if !told[reason+"/PodMigration"] || !told[reason+"/Pod"] {
				return fmt.Errorf("no event %s on both objects: %v", reason, told)
			}
		}
		return nil
	})
}

func TestKubectlGetReadsWell(t *testing.T) {
	t.Parallel()
	kubectl := filepath.Join("..", "..", "bin", "kubectl")
	if _, err := os.Stat(kubectl); err != nil {
		t.Fatalf("kubectl is missing: run make bin/kubectl: %v", err)
	}
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{})
	w.request(newMigration(w.namespace, "train-to-b", "train"))
	w.waitForPhase("train-to-b", v1alpha1.PhaseSucceeded)
	output, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", kubeconfig(t), "get", "pmig", "-n", w.namespace).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	t.Logf("\n%s", output)
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	if got := strings.Join(strings.Fields(lines[0]), " "); got != "NAME POD FROM TO PHASE AGE" {
		t.Errorf("columns are %q", got)
	}
	if got := strings.Join(strings.Fields(lines[1])[:5], " "); got != "train-to-b train node-a node-b Succeeded" {
		t.Errorf("row is %q", got)
	}
}
