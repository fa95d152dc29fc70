package integration

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

func TestBadRequestsChangeNothing(t *testing.T) {
	t.Parallel()
	good := func() *fixture.PodBuilder { return threeContainers("train") }
	spec := func(change func(*v1alpha1.PodMigrationSpec)) func(*v1alpha1.PodMigrationSpec) { return change }
	asIs := spec(func(*v1alpha1.PodMigrationSpec) {})
	tests := []struct {
		name   string
		pod    *fixture.PodBuilder
		change func(*v1alpha1.PodMigrationSpec)
		reason string
		words  string
	}{
		{"no such pod", good(), spec(func(s *v1alpha1.PodMigrationSpec) { s.PodName = "ghost" }), decide.ReasonPodNotFound, "pod ghost does not exist"},
		{"DaemonSet", good().Controller("DaemonSet", "agent"), asIs, containers.RefusalOwnedByDaemonSet, "belongs to DaemonSet agent"},
		{"ReplicaSet", good().Controller("ReplicaSet", "web"), asIs, owners.RefusalOwnerGone, "ReplicaSet web"},
		{"mirror pod", good().Annotation(corev1.MirrorPodAnnotationKey, "x"), asIs, containers.RefusalMirrorPod, "the pod is static"},
		{"keeps no container", fixture.MakePod("train").Node(nodeA).RestartPolicy(corev1.RestartPolicyNever).Container("a", fixture.Exited(0)),
			asIs, containers.RefusalNothingRemains, "no container would remain"},
		{"only sidecars", fixture.MakePod("train").Node(nodeA).RestartPolicy(corev1.RestartPolicyNever).Sidecar("s", fixture.Running()).Container("a", fixture.Exited(0)),
			asIs, containers.RefusalOnlySidecars, "only sidecars would remain"},
		{"finished", good().Phase(corev1.PodSucceeded), asIs, containers.RefusalFinished, "nothing left to move"},
		{"another pod of this name", good(), spec(func(s *v1alpha1.PodMigrationSpec) { s.PodUID = "old" }), decide.ReasonPodUIDMismatch, "recreated"},
		{"another node", good(), spec(func(s *v1alpha1.PodMigrationSpec) { s.SourceNode = "elsewhere" }), decide.ReasonSourceNodeMismatch, `is on node "node-a", not on elsewhere`},
		{"target does not exist", good(), spec(func(s *v1alpha1.PodMigrationSpec) { s.TargetNode = "ghost" }), decide.ReasonTargetNodeNotFound, "node ghost does not exist"},
		{"target is the source", good(), spec(func(s *v1alpha1.PodMigrationSpec) { s.TargetNode = nodeA }), decide.ReasonTargetIsSource, "already on node node-a"},
		{"writable emptyDir", good().Volume("v", fixture.EmptyDir()).Container("w", fixture.Running(), fixture.Mount("v", "/v")), asIs, decide.ReasonNodeAgentMissing, "--node-agent-image"},
		{"claim that does not exist", good().Volume("v", fixture.Claim("lost")).Container("w", fixture.Running(), fixture.Mount("v", "/v")), asIs, containers.RefusalClaimNotFound, "claim lost"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			original := w.createOriginal(test.pod.Obj())
			w.controller(migration.Options{})
			m := newMigration(w.namespace, "m", "train")
			test.change(&m.Spec)
			w.request(m)
			m = w.waitForPhase("m", v1alpha1.PhaseFailed)
			accepted := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAccepted)
			if accepted == nil || accepted.Status != "False" || accepted.Reason != test.reason {
				t.Errorf("condition Accepted = %+v, want False for %s", accepted, test.reason)
			}
			if !strings.Contains(m.Status.Message, test.words) {
				t.Errorf("message = %q, want it to say %q", m.Status.Message, test.words)
			}
			w.wantUntouched(original)
			w.change(func(w *world) {
				if len(w.made) > 0 {
					t.Error("a replacement was made")
				}
			})
		})
	}
}

// A Secret by which the node agent's image is pulled has to be in the namespace of a pod
// beside which that image runs. Here as the controller may read it.
func TestAPullSecretThatTheNamespaceLacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	original := w.createOriginal(threeContainers("train").Obj())
	secrets := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "pull-secrets-" + w.namespace}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"registry"}, Verbs: []string{"get"}},
	}}
	w.must(k8s.Create(t.Context(), secrets))
	w.must(k8s.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: secrets.Name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: secrets.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "ai-storage-system", Name: "ai-storage-rebalancer"}},
	}))
	// Of the other one nothing can be known.
	w.controller(migration.Options{AgentImage: "docker.io/library/agent:1", PullSecrets: []string{"registry", "unreadable"}})
	forced := func(name string) *v1alpha1.PodMigration {
		m := newMigration(w.namespace, name, "train")
		m.Spec.ForceRestart = true
		return m
	}
	w.request(forced("m"))
	m := w.waitForPhase("m", v1alpha1.PhaseFailed)
	if accepted := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAccepted); accepted == nil || accepted.Reason != decide.ReasonImagePullSecretMissing {
		t.Errorf("condition %+v", accepted)
	}
	if want := "namespace " + w.namespace + " has no Secret registry,"; !strings.Contains(m.Status.Message, want) {
		t.Errorf("message %q lacks %q", m.Status.Message, want)
	}
	w.wantUntouched(original)
	w.must(k8s.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "registry"}}))
	w.request(forced("again"))
	w.waitForPhase("again", v1alpha1.PhaseSucceeded)
}

func TestOneMigrationAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.place, w.refusal = nil, "no room" })
	w.createOriginal(threeContainers("train").Obj())
	w.controller(migration.Options{UnschedulableGrace: time.Minute})
	w.request(newMigration(w.namespace, "first", "train"))
	first := w.waitForPhase("first", v1alpha1.PhasePlacing)
	w.request(newMigration(w.namespace, "second", "train"))
	if m := w.waitForEnd("second"); m.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(m.Status.Message, "PodMigration first is already moving pod train") {
		t.Errorf("second: %s: %s", m.Status.Phase, m.Status.Message)
	}
	w.request(newMigration(w.namespace, "third", first.Status.Replacement.Name))
	if m := w.waitForEnd("third"); m.Status.Phase != v1alpha1.PhaseFailed || !strings.Contains(m.Status.Message, "is the replacement of PodMigration first") {
		t.Errorf("third: %s: %s", m.Status.Phase, m.Status.Message)
	}
}

// However many requests come at once, one of them has the pod.
func TestRequestsThatComeTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createOriginal(threeContainers("train").Obj())
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names {
		w.request(newMigration(w.namespace, name, "train"))
	}
	w.controller(migration.Options{})
	succeeded := 0
	for _, name := range names {
		if w.waitForEnd(name).Status.Phase == v1alpha1.PhaseSucceeded {
			succeeded++
		}
	}
	w.onlyPod()
	w.change(func(w *world) {
		if succeeded != 1 || len(w.made) != 1 {
			t.Errorf("%d migrations succeeded and %d replacements were made, want 1 and 1", succeeded, len(w.made))
		}
	})
}

func TestNamesOfOthersAreKept(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*world, *v1alpha1.PodMigration){
		"claim": func(w *world, m *v1alpha1.PodMigration) {
			claim := fixture.MakeClaim(containers.ClaimName("train", m.UID, m.CreationTimestamp.Time), corev1.ReadWriteOnce)
			claim.Namespace, claim.UID, claim.Spec.VolumeName = w.namespace, "", ""
			claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
			w.must(k8s.Create(w.t.Context(), claim))
		},
		"pod": func(w *world, m *v1alpha1.PodMigration) {
			name := containers.ReplacementName("train", m.UID, m.CreationTimestamp.Time)
			w.createOriginal(fixture.MakePod(name).Node(nodeB).Container("c", fixture.Running()).Obj())
		},
	}
	for name, occupy := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			original := w.createOriginal(threeContainers("train").Obj())
			occupy(w, w.request(keepingClaim(newMigration(w.namespace, "m", "train"))))
			before := len(w.pods()) + len(w.claims())
			w.controller(migration.Options{})
			m := w.waitForPhase("m", v1alpha1.PhaseFailed)
			if !strings.Contains(m.Status.Message, "was not created by this migration") {
				t.Errorf("message = %q", m.Status.Message)
			}
			if after := len(w.pods()) + len(w.claims()); after != before {
				t.Errorf("%d pods and claims, there were %d", after, before)
			}
			if !w.exists(original) {
				t.Error("the original is gone")
			}
		})
	}
}

// A quota without a controller that fills in its status refuses everything.
func TestWhatTheAPIServerRefusesIsRolledBack(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		limit  corev1.ResourceName
		reason string
	}{
		"claim":       {corev1.ResourcePersistentVolumeClaims, decide.ReasonClaimRejected},
		"replacement": {corev1.ResourcePods, decide.ReasonReplacementRejected},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			original := w.createOriginal(threeContainers("train").Obj())
			quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "full"}}
			quota.Spec.Hard = corev1.ResourceList{test.limit: resource.MustParse("1")}
			w.must(k8s.Create(t.Context(), quota))
			quota.Status.Hard, quota.Status.Used = quota.Spec.Hard, quota.Spec.Hard
			w.must(k8s.Status().Update(t.Context(), quota))
			// The quota plugin of the API server reads quotas from a cache.
			eventually(t, 10*time.Second, func(ctx context.Context) error { return w.quotaHolds(ctx, test.limit) })
			w.controller(migration.Options{})
			w.request(keepingClaim(newMigration(w.namespace, "m", "train")))
			m := w.waitForPhase("m", v1alpha1.PhaseFailed)
			c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionRolledBack)
			if c == nil || c.Status != "True" || c.Reason != test.reason || !strings.Contains(c.Message, "exceeded quota") {
				t.Errorf("condition = %+v, want %s with the words of the quota", c, test.reason)
			}
			w.wantUntouched(original)
		})
	}
}
