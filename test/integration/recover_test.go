package integration

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/kubectl"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

// agents report as node agents do that find nothing wrong. They restore only while they
// may.
func (w *world) agents(mayRestore *atomic.Bool) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	// One client writes what two agents do.
	writer := asRebalancer(w.t)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			list := &v1alpha1.PodMigrationList{}
			if err := k8s.List(ctx, list, client.InNamespace(w.namespace)); err == nil {
				for i := range list.Items {
					m := &list.Items[i]
					if m.Status.Checkpoint != nil && !m.Status.Phase.IsFinished() && report(m, mayRestore.Load()) {
						// A conflict is tried again with the next round.
						_ = writer.Status().Update(ctx, m)
					}
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

// report writes what the agents have to report next; false when that is nothing.
func report(m *v1alpha1.PodMigration, mayRestore bool) bool {
	c, now := m.Status.Checkpoint, ptr.To(metav1.NowMicro())
	if c.Source == nil || c.Source.Attempt != c.Attempt {
		c.Source = &v1alpha1.SourceReport{Node: m.Status.Original.NodeName, Attempt: c.Attempt, Bytes: 4096, Files: 1}
	}
	source, phase := c.Source, c.Source.Phase
	switch c.Step {
	case v1alpha1.StepMeasure:
		source.Phase = v1alpha1.SourceMeasured
	case v1alpha1.StepCopy:
		source.Phase, source.Pass = v1alpha1.SourceCopied, 1
		if pod := m.DestinationPod(); pod != nil && c.Destination == nil {
			c.Destination = &v1alpha1.DestinationReport{Node: pod.NodeName, Attempt: c.Attempt, PodUID: pod.UID, Phase: v1alpha1.DestinationWarm, Pass: 1}
			return true
		}
	case v1alpha1.StepSeal:
		if phase != v1alpha1.SourceSealed {
			source.Phase, source.Pass, source.ManifestDigest, source.FrozenAt, source.SealedAt = v1alpha1.SourceSealed, 2, fixture.SealedDigest, now, now
			c.Destination.Phase, c.Destination.Pass, c.Destination.ManifestDigest, c.Destination.ClaimSealed = v1alpha1.DestinationStored, 2, fixture.SealedDigest, true
			return true
		}
		r := m.Status.Replacement
		if mayRestore && r.UID != "" && r.NodeName != "" && (c.Destination == nil || c.Destination.PodUID != r.UID) {
			c.Destination = &v1alpha1.DestinationReport{Node: r.NodeName, Attempt: c.Attempt, PodUID: r.UID, Phase: v1alpha1.DestinationRestored, Pass: source.Pass, ManifestDigest: source.ManifestDigest, RestoredAt: now}
			return true
		}
	case v1alpha1.StepRelease:
		if c.Destination.Phase == v1alpha1.DestinationRestored {
			c.Destination.Phase, c.Destination.ReleasedAt = v1alpha1.DestinationReleased, now
			return true
		}
	case v1alpha1.StepAbort:
		source.Phase = v1alpha1.SourceThawed
	}
	return source.Phase != phase
}

// failedWithCopy lets migration m of pod train fail after its original has gone.
func (w *world) failedWithCopy() *v1alpha1.PodMigration {
	w.t.Helper()
	w.createOriginal(threeContainers("train").Label("app", "train").Volume("work", fixture.EmptyDir()).
		Container("writer", fixture.Running(), fixture.Mount("work", "/work")).Obj())
	m := newMigration(w.namespace, "m", "train")
	m.Spec.TTLSecondsAfterFinished, m.Spec.ForceRestart = ptr.To(int32(0)), true
	w.request(m)
	m = w.waitFor("m", func(m *v1alpha1.PodMigration) bool {
		return meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionHandedOver)
	})
	w.must(k8s.Delete(w.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: m.Status.Replacement.Name}}))
	return w.waitForPhase("m", v1alpha1.PhaseFailed)
}

func TestTheOnlyCopyIsRecovered(t *testing.T) {
	const agentImage = "docker.io/library/agent:1"
	a, w := startAPI(t, nil, func(o *restapi.Options) {
		o.Preflight = migration.NewPreflight(o.Live, o.Cached, migration.Options{AgentImage: agentImage})
	}), newWorld(t)
	token, mayRestore := operator(t), &atomic.Bool{}
	w.agents(mayRestore)
	w.controller(migration.Options{AgentImage: agentImage})
	failed := w.failedWithCopy()
	claims := w.claims()
	if len(claims) != 1 || len(claims[0].OwnerReferences) > 0 || !meta.IsStatusConditionTrue(failed.Status.Conditions, v1alpha1.ConditionCheckpointKept) {
		t.Fatalf("claims %v, status %+v", claims, failed.Status)
	}
	var view restapi.Migration
	a.waitFor(token, string(failed.UID), v1alpha1.PhaseFailed)
	a.do(request{method: "GET", path: "/api/v1/migrations/" + string(failed.UID), token: token}).into(t, http.StatusOK, &view)
	if !view.OnlyCopyKept {
		t.Errorf("the API says %+v", view)
	}
	code, text := migrate(t.Context(), t, w.namespace, "list", "--kept", "-o", "name")
	wantAnswer(t, code, kubectl.ExitDone, text, "/m")
	code, text = migrate(t.Context(), t, w.namespace, "recover", "m", "--dry-run")
	wantAnswer(t, code, kubectl.ExitDone, text, "can be recovered from claim "+claims[0].Name)
	w.refusedWhileUsed(claims[0].Name)

	// The first attempt is cancelled, and keeps the claim in its turn.
	var first restapi.Migration
	a.do(request{method: "POST", path: "/api/v1/migrations/" + string(failed.UID) + "/recover", token: token, body: `{"pod_name":"train"}`}).into(t, http.StatusAccepted, &first)
	a.waitFor(token, first.ID, v1alpha1.PhaseHandingOver)
	// The record of the failed one has outlived its time, and goes now: another one has the claim.
	eventually(t, 20*time.Second, func(ctx context.Context) error { return gone(ctx, failed) })
	code, text = migrate(t.Context(), t, w.namespace, "recover", first.Name, "--pod=another")
	wantAnswer(t, code, kubectl.ExitRefused, text, "cannot be recovered", "has not ended")
	code, text = migrate(t.Context(), t, w.namespace, "cancel", first.Name, "--wait")
	wantAnswer(t, code, kubectl.ExitDone, text, "Cancelled", "is kept on claim")
	if left := w.claims(); len(w.pods()) > 0 || len(left) != 1 || left[0].UID != claims[0].UID {
		t.Fatalf("%d pods and %d claims are left by a recovery that was cancelled", len(w.pods()), len(left))
	}

	mayRestore.Store(true)
	code, text = migrate(t.Context(), t, w.namespace, "recover", first.Name, "--wait")
	wantAnswer(t, code, kubectl.ExitDone, text, "Succeeded", "runs on node node-b with the state that migration "+first.Name+" had kept", "Restored:")
	w.checkRecovered(failed, claims[0])
	code, text = migrate(t.Context(), t, w.namespace, "recover", first.Name)
	wantAnswer(t, code, kubectl.ExitRefused, text, decide.ReasonAlreadyRecovered)
	a.do(request{method: "POST", path: "/api/v1/migrations/" + first.ID + "/recover", token: token, body: `{}`}).refusal(t, http.StatusConflict, decide.ReasonAlreadyRecovered, "id")
}

// gone reports an error while an object exists.
func gone(ctx context.Context, object client.Object) error {
	err := k8s.Get(ctx, client.ObjectKeyFromObject(object), object.DeepCopyObject().(client.Object))
	if err == nil {
		return fmt.Errorf("%s still exists", object.GetName())
	}
	return client.IgnoreNotFound(err)
}

// refusedWhileUsed asks while a pod reads the claim.
func (w *world) refusedWhileUsed(claim string) {
	w.t.Helper()
	reader := fixture.MakePod("reader").Node(nodeA).Container("c", fixture.Running()).Volume("kept", corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	}).Obj()
	reader = w.createOriginal(reader)
	code, text := migrate(w.t.Context(), w.t, w.namespace, "recover", "m")
	wantAnswer(w.t, code, kubectl.ExitRefused, text, decide.ReasonKeptClaimInUse, "pod reader uses claim")
	w.must(k8s.Delete(w.t.Context(), reader, client.GracePeriodSeconds(0)))
	eventually(w.t, 20*time.Second, func(ctx context.Context) error { return gone(ctx, reader) })
}

// checkRecovered looks at the pod that was recovered, and at its claim.
func (w *world) checkRecovered(failed *v1alpha1.PodMigration, claim corev1.PersistentVolumeClaim) {
	w.t.Helper()
	pod := w.onlyPod()
	if pod.Name != "train" || pod.UID == failed.Status.Original.UID || pod.Labels["app"] != "train" || len(pod.OwnerReferences) > 0 {
		w.t.Errorf("the recovered pod is %+v", pod.ObjectMeta)
	}
	if !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == v1alpha1.GateContainer }) {
		w.t.Error("the recovered pod has no gate, so that nothing holds its containers until the state is there")
	}
	for _, c := range pod.Spec.Containers {
		if strings.HasPrefix(c.Name, "batch") {
			w.t.Error("the container that had finished has come back")
		}
	}
	left := w.claims()
	if len(left) != 1 || left[0].UID != claim.UID || len(left[0].OwnerReferences) != 1 || left[0].OwnerReferences[0].UID != pod.UID {
		w.t.Errorf("claims %+v: the claim should go with the recovered pod, as its policy says", left)
	}
	recovery := &v1alpha1.PodMigrationList{}
	w.must(k8s.List(w.t.Context(), recovery, client.InNamespace(w.namespace)))
	for _, m := range recovery.Items {
		if m.Status.Phase == v1alpha1.PhaseSucceeded && (m.CheckpointUID() != failed.UID || m.Status.Checkpoint.Source.ManifestDigest != fixture.SealedDigest) {
			w.t.Errorf("restored from %s with digest %s", m.CheckpointUID(), m.Status.Checkpoint.Source.ManifestDigest)
		}
		if m.Status.Checkpoint != nil && m.Status.Checkpoint.Manifest != "" {
			w.t.Errorf("PodMigration %s still has a manifest, and keeps nothing", m.Name)
		}
	}
}
