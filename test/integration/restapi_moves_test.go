package integration

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/scheduling/budget"
	"github.com/ai-storage/orchestrator/pkg/server/nodeview"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

func TestAPIMovesAPod(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, nil), newWorld(t)
	token, user := account(t, "operator", "", "*")
	original := w.createOriginal(threeContainers("train").Obj())
	var m restapi.Migration
	first := a.post(token, w.move(`,"preserve_pv":true,"timeout":120`))
	first.into(t, http.StatusAccepted, &m)
	if m.Phase != v1alpha1.PhasePending || m.Queued || m.RequestedBy != user || first.header.Get("Location") != "/api/v1/migrations/"+m.ID {
		t.Errorf("answered with %+v and %v", m, first.header)
	}
	stored := &v1alpha1.PodMigration{}
	must(t, k8s.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: m.Name}, stored))
	if s := stored.Spec; string(stored.UID) != m.ID || s.PodUID != original.UID || s.SourceNode != nodeA || s.TargetNode != nodeB ||
		s.TimeoutSeconds != 120 || s.Checkpoint.ReclaimPolicy != v1alpha1.ClaimRetain || stored.Labels[v1alpha1.CreatedByLabel] != "api" {
		t.Errorf("stored %+v %+v", stored.ObjectMeta, s)
	}
	w.controller(migration.Options{})
	m = a.waitFor(token, m.ID, v1alpha1.PhaseSucceeded)
	checkDetails(t, m)
	required := w.onlyPod().Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	onTarget := corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{nodeB}}
	if len(required) != 1 || !slices.ContainsFunc(required[0].MatchFields, func(r corev1.NodeSelectorRequirement) bool {
		return fmt.Sprint(r) == fmt.Sprint(onTarget)
	}) {
		t.Errorf("the replacement requires %+v", required)
	}
	a.do(request{method: "DELETE", path: "/api/v1/migrations/" + m.ID, token: token}).refusal(t, http.StatusConflict, "AlreadyFinished", "id")
	var figures restapi.Figures
	a.get(token, "/api/v1/metrics?namespace="+w.namespace).into(t, http.StatusOK, &figures)
	if f := figures; f.Migrations != (restapi.Counts{Total: 1, Succeeded: 1}) || f.SuccessPercent.N != 1 || *f.SuccessPercent.Value != 100 ||
		f.CPURequestSavingsPercent.N != 1 || math.Round(1000**f.CPURequestSavingsPercent.Value) != 56250 || f.CPUUsageSavingsPercent.N != 1 || *f.CPUUsageSavingsPercent.Value != 0 {
		t.Errorf("figures %+v, want 900m of 1600m saved, and no use", figures)
	}
}

// checkDetails looks at what the answer has to say of a migration that went well.
func checkDetails(t *testing.T, m restapi.Migration) {
	t.Helper()
	if m.SourceNode != nodeA || m.TargetNode != nodeB || m.NewNode != nodeB || !strings.HasPrefix(m.NewPod, "train-migrated-") ||
		m.CheckpointClaim == "" || m.CheckpointPath != "/migration-checkpoint" || !m.PreservePV || m.TimeoutSeconds != 120 ||
		m.Handover == nil || m.Handover.Order != v1alpha1.OrderStartFirst || m.DowntimeSeconds == nil || m.StartedAt == nil || m.FinishedAt == nil {
		t.Errorf("details %+v", m)
	}
	moves := map[string]string{}
	for _, c := range m.Containers {
		moves[c.Name] = fmt.Sprint(c.State, c.ShouldMigrate, c.Reason)
	}
	if moves["batch"] != "CompletedfalseCompleted" || moves["serve"] != "RunningtrueRunning" {
		t.Errorf("containers %v", moves)
	}
	before, after := m.OriginalResources, m.OptimizedResources
	if before == nil || after == nil || before.Requests[corev1.ResourceCPU] != "1600m" || after.Requests[corev1.ResourceCPU] != "700m" {
		t.Errorf("resources before %+v, after %+v", before, after)
	}
	var seen []v1alpha1.Phase
	for _, p := range m.PhaseTimes {
		seen = append(seen, p.Phase)
		if p.EndedAt == nil || p.Seconds == nil {
			t.Errorf("phase %s has no end", p.Phase)
		}
	}
	if want := []v1alpha1.Phase{v1alpha1.PhasePending, v1alpha1.PhasePreparing, v1alpha1.PhasePlacing, v1alpha1.PhaseHandingOver}; !slices.Equal(seen, want) {
		t.Errorf("phases %v, want %v", seen, want)
	}
}

// A pod whose processes cannot move is refused, or moves without them where the
// request says that it may.
func TestAPIAsksForProcesses(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, nil), newWorld(t)
	token := operator(t)
	w.createOriginal(threeContainers("train").Obj())
	a.post(token, w.move(`,"checkpoint_mode":"Process"`)).refusal(t, http.StatusUnprocessableEntity, containers.RefusalRuntimeClass, "checkpoint_mode")
	var m restapi.Migration
	a.post(token, w.move(`,"checkpoint_mode":"Process","checkpoint_fallback":"FreshStart","preserve_pv":true`)).into(t, http.StatusAccepted, &m)
	w.controller(migration.Options{})
	m = a.waitFor(token, m.ID, v1alpha1.PhaseSucceeded)
	if m.CheckpointMode != v1alpha1.CheckpointProcess || m.CheckpointFallback != v1alpha1.FallbackFreshStart || !strings.Contains(m.FallbackReason, "runtimeClassName") {
		t.Errorf("answered with %+v, want what was requested, and why it was not done", m)
	}
	claim := &corev1.PersistentVolumeClaim{}
	must(t, k8s.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: m.CheckpointClaim}, claim))
	if !slices.Equal(claim.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}) {
		t.Errorf("the claim has access modes %v", claim.Spec.AccessModes)
	}
}

func TestAPIRepeatsNothing(t *testing.T) {
	t.Parallel()
	replicas := []*api{startAPI(t, nil, nil), startAPI(t, nil, nil)}
	w := newWorld(t)
	token := operator(t)
	w.createOriginal(threeContainers("train").Obj())
	send := func(a *api, body string) answer {
		return a.do(request{method: "POST", path: "/api/v1/migrations", body: body, token: token, header: map[string]string{"Idempotency-Key": "once"}})
	}
	ids := make([]restapi.Migration, 20)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() { send(replicas[i%2], w.move("")).into(t, http.StatusAccepted, &ids[i]) })
	}
	group.Wait()
	for _, m := range ids {
		if m.ID != ids[0].ID {
			t.Errorf("ids %s and %s by one key", m.ID, ids[0].ID)
		}
	}
	again := send(replicas[0], w.move(`,"timeout":600,"preserve_pv":false`))
	if again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("defaults written out are another request: %d %s", again.code, again.body)
	}
	send(replicas[1], w.move(`,"timeout":601`)).refusal(t, http.StatusUnprocessableEntity, "IdempotencyKeyReused", "Idempotency-Key")
	list := &v1alpha1.PodMigrationList{}
	must(t, k8s.List(t.Context(), list, client.InNamespace(w.namespace)))
	if len(list.Items) != 1 {
		t.Errorf("%d migrations by one key", len(list.Items))
	}
	// The same key of another user is another one.
	other, _ := account(t, "other", "", "*")
	replicas[0].do(request{method: "POST", path: "/api/v1/migrations", body: w.move(""), token: other, header: map[string]string{"Idempotency-Key": "once"}}).
		refusal(t, http.StatusUnprocessableEntity, "AlreadyMigrating", "pod_name")
	for _, key := range []string{" ", strings.Repeat("k", 256)} {
		replicas[0].do(request{method: "POST", path: "/api/v1/migrations", body: w.move(""), token: token, header: map[string]string{"Idempotency-Key": key}, wrong: true}).
			refusal(t, http.StatusBadRequest, "InvalidField", "Idempotency-Key")
	}
}

func TestAPICancels(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, nil), newWorld(t)
	token := operator(t)
	w.change(func(w *world) { w.place, w.refusal = nil, "no room" })
	original := w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{UnschedulableGrace: time.Minute})
	var m restapi.Migration
	a.post(token, w.move("")).into(t, http.StatusAccepted, &m)
	a.waitFor(token, m.ID, v1alpha1.PhasePlacing)
	var cancelled restapi.Migration
	a.do(request{method: "DELETE", path: "/api/v1/migrations/" + m.ID, token: token}).into(t, http.StatusAccepted, &cancelled)
	if !cancelled.CancelRequested {
		t.Errorf("cancelling answered with %+v", cancelled)
	}
	a.waitFor(token, m.ID, v1alpha1.PhaseCancelled)
	w.wantUntouched(original)
	a.do(request{method: "DELETE", path: "/api/v1/migrations/" + m.ID, token: token}).refusal(t, http.StatusConflict, "AlreadyFinished", "id")

	w.change(func(w *world) { w.place, w.holdPods = func(*corev1.Pod) string { return nodeB }, true })
	a.post(token, w.move("")).into(t, http.StatusAccepted, &m)
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		pod := &corev1.Pod{}
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(original), pod); err != nil || pod.DeletionTimestamp == nil {
			return fmt.Errorf("the original was not evicted: %w", err)
		}
		return nil
	})
	a.do(request{method: "DELETE", path: "/api/v1/migrations/" + m.ID, token: token}).refusal(t, http.StatusConflict, "AlreadyCommitted", "id")
	w.change(func(w *world) { w.holdPods = false })
	a.waitFor(token, m.ID, v1alpha1.PhaseSucceeded)
}

func TestAPIQueuesOverBudget(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, &budget.Limits{InFlight: 1, PerNode: 1, PerNamespace: 1, PerWorkload: 1}, nil), newWorld(t)
	token := operator(t)
	w.createOriginal(threeContainers("train").Obj())
	w.createOriginal(threeContainers("second").Obj())
	w.request(newMigration(w.namespace, "first", "second"))
	inFlight := &v1alpha1.PodMigration{}
	must(t, k8s.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "first"}, inFlight))
	inFlight.Status.Phase = v1alpha1.PhasePlacing
	inFlight.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: "True", Reason: "Accepted", LastTransitionTime: metav1.Now()}}
	must(t, asRebalancer(t).Status().Update(t.Context(), inFlight))
	a.waitFor(token, string(inFlight.UID), v1alpha1.PhasePlacing)
	var m restapi.Migration
	a.post(token, w.move("")).into(t, http.StatusAccepted, &m)
	if !m.Queued || m.Message == "" {
		t.Errorf("over budget: queued %v, %q", m.Queued, m.Message)
	}
}

func TestAPILists(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, nil), newWorld(t)
	token := operator(t)
	var names []string
	for i := range 7 {
		m := w.request(newMigration(w.namespace, fmt.Sprint("m", i), fmt.Sprint("pod-", i%2)))
		names = append(names, m.Name)
		if i < 3 {
			m.Status.Phase = v1alpha1.PhaseFailed
			must(t, asRebalancer(t).Status().Update(t.Context(), m))
		}
	}
	path := "/api/v1/migrations?namespace=" + w.namespace
	page := func(more string) restapi.List {
		t.Helper()
		var list restapi.List
		a.get(token, path+more).into(t, http.StatusOK, &list)
		return list
	}
	eventually(t, 10*time.Second, func(context.Context) error {
		if list := page("&phase=Failed"); len(list.Items) != 3 || len(page("").Items) != 7 {
			return fmt.Errorf("%d have failed", len(list.Items))
		}
		return nil
	})
	var seen []string
	for next := ""; ; {
		list := page("&limit=3" + next)
		for _, m := range list.Items {
			seen = append(seen, m.Name)
		}
		if list.Remaining != 7-len(seen) || (list.Continue == "") != (list.Remaining == 0) {
			t.Fatalf("%d remain after %d, continue %q", list.Remaining, len(seen), list.Continue)
		}
		if next = "&continue=" + url.QueryEscape(list.Continue); list.Continue == "" {
			break
		}
	}
	slices.Sort(seen)
	if !slices.Equal(seen, names) {
		t.Errorf("pages hold %v", seen)
	}
	if n := len(page("&pod=pod-1").Items); n != 3 {
		t.Errorf("%d of pod-1, want 3", n)
	}
	if n := len(page("&phase=Failed&phase=Pending").Items); n != 7 {
		t.Errorf("%d failed or pending, want 7", n)
	}
	a.get(token, "/api/v1/migrations/00000000-0000-4000-8000-000000000000").refusal(t, http.StatusNotFound, "NotFound", "id")
}

// noCache is a cache that has not seen anything yet.
type noCache struct{ client.Reader }

func (noCache) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

func TestAPIFindsWhatTheCacheHasNotSeen(t *testing.T) {
	t.Parallel()
	a, w := startAPI(t, nil, func(o *restapi.Options) { o.Cached = noCache{o.Cached} }), newWorld(t)
	token := operator(t)
	m := w.request(newMigration(w.namespace, "m", "train"))
	var found restapi.Migration
	a.get(token, "/api/v1/migrations/"+string(m.UID)).into(t, http.StatusOK, &found)
	if found.Name != "m" {
		t.Errorf("found %+v", found)
	}
}

func TestAPIShowsPlanAndNodes(t *testing.T) {
	var store *rebalance.StatusStore
	a := startAPI(t, nil, func(o *restapi.Options) { store = o.StatusStore })
	token := operator(t)
	shown := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ai-storage-system", Name: rebalance.StatusName}}
	must(t, client.IgnoreNotFound(k8s.Delete(t.Context(), shown)))
	var plan restapi.Plan
	a.get(token, "/api/v1/plan").into(t, http.StatusOK, &plan)
	if plan.Status != nil || plan.AgeSeconds != nil || plan.Paused.Paused {
		t.Errorf("before the first cycle: %+v", plan.Status)
	}
	status := statusOf(nodeA)
	must(t, store.Publish(t.Context(), status))
	must(t, store.Publish(t.Context(), status))
	control := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ai-storage-system", Name: rebalance.ControlName},
		Data: map[string]string{"paused": "true", "by": "anna", "reason": "upgrade", "since": "2026-01-01T12:00:00Z"}}
	must(t, k8s.Create(t.Context(), control))
	t.Cleanup(func() { must(t, k8s.Delete(context.Background(), control)) })
	a.get(token, "/api/v1/plan").into(t, http.StatusOK, &plan)
	if plan.Paused.By != "anna" || plan.AgeSeconds == nil || *plan.AgeSeconds < 59 || plan.Status == nil || plan.Status.Source != "Measured" {
		t.Errorf("plan %+v, paused %+v, age %v", plan.Status, plan.Paused, plan.AgeSeconds)
	}
	var nodes restapi.Nodes
	a.get(token, "/api/v1/nodes").into(t, http.StatusOK, &nodes)
	views := map[string]nodeview.Node{}
	for _, node := range nodes.Items {
		views[node.Name] = node
	}
	if nodes.Source != "Unavailable" || !views[nodeA].Overutilized || views[nodeA].CPU.Used != nil || views[nodeB].Overutilized || views[nodeB].Skipped != "cordoned" {
		t.Errorf("nodes %+v", nodes)
	}
}
