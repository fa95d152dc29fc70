package integration

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func TestMarksOfPodMigrations(t *testing.T) {
	t.Parallel()
	const policy = "ai-storage-migration-marks"
	namespace := newNamespace(t)
	user := tenant(t, namespace)
	const byUser, byProgram = "annotation migration.ai-storage/requested-by holds the user", "label migration.ai-storage/created-by with the value rebalancer or api"
	made := func(label, annotation string) *v1alpha1.PodMigration {
		m := newMigration(namespace, "", "web")
		m.GenerateName = "m-"
		if label != "" {
			m.Labels = map[string]string{v1alpha1.CreatedByLabel: label}
		}
		if annotation != "" {
			m.Annotations = map[string]string{v1alpha1.RequestedByAnnotation: annotation}
		}
		return m
	}
	for _, test := range []struct {
		name string
		m    *v1alpha1.PodMigration
		want []string
	}{
		{"no marks", made("", ""), nil},
		{"kubectl", made("kubectl", ""), nil},
		{"of the loop", made(v1alpha1.CreatedByRebalancer, ""), []string{byProgram}},
		{"of the API", made("api", ""), []string{byProgram}},
		{"of another user", made("", "alice"), []string{byUser}},
	} {
		t.Run("create "+test.name, func(t *testing.T) { wantDenied(t, user.Create(t.Context(), test.m), policy, test.want...) })
	}
	for _, test := range []struct {
		name   string
		change func(*v1alpha1.PodMigration)
		want   []string
	}{
		{"cancel", func(m *v1alpha1.PodMigration) { m.Spec.Cancel = true }, nil},
		{"another label", func(m *v1alpha1.PodMigration) { m.Labels["team"] = "a" }, nil},
		{"requested by another user", func(m *v1alpha1.PodMigration) { m.Annotations[v1alpha1.RequestedByAnnotation] = "bob" }, []string{byUser}},
		{"requested by nobody", func(m *v1alpha1.PodMigration) { m.Annotations = nil }, []string{byUser}},
		{"not of the loop", func(m *v1alpha1.PodMigration) { delete(m.Labels, v1alpha1.CreatedByLabel) }, []string{byProgram}},
		{"of the API", func(m *v1alpha1.PodMigration) { m.Labels[v1alpha1.CreatedByLabel] = "api" }, []string{byProgram}},
	} {
		t.Run("update "+test.name, func(t *testing.T) {
			m := made(v1alpha1.CreatedByRebalancer, "alice")
			must(t, asRebalancer(t).Create(t.Context(), m))
			base := m.DeepCopy()
			test.change(m)
			wantDenied(t, user.Patch(t.Context(), m, client.MergeFrom(base)), policy, test.want...)
		})
	}
}

func markedPod(namespace string, labels, annotations map[string]string, owner ...metav1.OwnerReference) *corev1.Pod {
	pod := fixture.MakePod("").UID("").Namespace(namespace).Container("c", nil).Obj()
	pod.GenerateName, pod.Labels, pod.Annotations, pod.OwnerReferences, pod.Status = "p-", labels, annotations, owner, corev1.PodStatus{}
	return pod
}

func ownedBy(apiVersion, kind, number string) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: "o", UID: types.UID("0b8f2c1e-0000-4000-8000-0000000000" + number), Controller: new(true)}
}

func TestMarksOfNewPods(t *testing.T) {
	t.Parallel()
	const policy, ofOwners = "ai-storage-pod-marks", "ai-storage-replacements-of-owners"
	namespace := newNamespace(t)
	released := func(method v1alpha1.ReplacementMethod, phase v1alpha1.Phase, owner metav1.OwnerReference) string {
		return string(halfway(t, namespace, func(s *v1alpha1.PodMigrationStatus) {
			s.Phase, s.Handover = phase, &v1alpha1.Handover{Method: method, Order: v1alpha1.OrderStopFirst, Owner: &owner}
		}).UID)
	}
	job, set, custom, stranger := ownedBy("batch/v1", "Job", "10"), ownedBy("apps/v1", "ReplicaSet", "11"), ownedBy("x.io/v1", "Thing", "12"), ownedBy("batch/v1", "Job", "13")
	mJob, mSet, mCustom := released(v1alpha1.MethodRelease, v1alpha1.PhasePlacing, job), released(v1alpha1.MethodAdopt, v1alpha1.PhasePlacing, set), released(v1alpha1.MethodRecreate, v1alpha1.PhaseHandingOver, custom)
	finished := released(v1alpha1.MethodRelease, v1alpha1.PhaseSucceeded, job)
	uid := func(of string) map[string]string { return map[string]string{v1alpha1.MigrationUIDLabel: of} }
	role := func(of string) map[string]string {
		return map[string]string{v1alpha1.MigrationUIDLabel: of, v1alpha1.RoleLabel: v1alpha1.RolePlaceholder}
	}
	original := map[string]string{v1alpha1.OriginalUIDAnnotation: "u"}
	user, rebalancer := tenant(t, namespace), asRebalancer(t)
	accounts, manager := userNamed(t, jobController), userNamed(t, "system:kube-controller-manager")
	anything := userNamed(t, "system:serviceaccount:things:controller")
	tests := []struct {
		name   string
		as     client.Client
		pod    *corev1.Pod
		policy string
		want   []string
	}{
		{"a plain pod", user, markedPod(namespace, nil, nil), policy, nil},
		{"marks of authors", user, markedPod(namespace, nil, map[string]string{v1alpha1.CheckpointClaimAnnotation: "c", v1alpha1.ExcludeAnnotation: "true", v1alpha1.DiscardableVolumesAnnotation: "a"}), policy, nil},
		{"the rebalancer's placeholder", rebalancer, markedPod(namespace, role(mJob), nil), policy, nil},
		{"the rebalancer's replacement", rebalancer, markedPod(namespace, uid(mSet), original), policy, nil},
		{"the rebalancer's probe", rebalancer, markedPod(namespace, nil, map[string]string{v1alpha1.ProbeAnnotation: mJob}, job), policy, nil},
		{"the Job controller, rewritten", accounts, markedPod(namespace, uid(mJob), original, job), policy, nil},
		{"the controller manager, rewritten", manager, markedPod(namespace, uid(mJob), original, job), policy, nil},
		{"another controller, rewritten", anything, markedPod(namespace, uid(mCustom), original, custom), policy, nil},

		{"a role", user, markedPod(namespace, map[string]string{v1alpha1.RoleLabel: v1alpha1.RolePlaceholder}, nil), policy,
			[]string{"only the rebalancer sets migration.ai-storage/role", "remove migration.ai-storage/role from its labels and annotations"}},
		{"a role by a controller", accounts, markedPod(namespace, role(mJob), nil, job), policy, []string{"only the rebalancer sets migration.ai-storage/role"}},
		{"a replacement", user, markedPod(namespace, uid(mJob), original), policy, []string{"only the rebalancer, and its webhook for the controller of a pod, set", "as of a copy or a backup"}},
		{"a replacement by a forged owner", user, markedPod(namespace, uid(mJob), original, job), policy, []string{"and system:serviceaccount:" + namespace + ":tenant is neither"}},
		{"an original's UID alone", user, markedPod(namespace, nil, original), policy, []string{"set migration.ai-storage/original-uid"}},
		{"a released original", user, markedPod(namespace, nil, map[string]string{v1alpha1.ReleasedAnnotation: "{}"}), policy, []string{"only the rebalancer sets migration.ai-storage/released"}},
		{"a barrier", user, markedPod(namespace, nil, map[string]string{v1alpha1.RollbackBarrierAnnotation: mJob}), policy, []string{"only the rebalancer sets migration.ai-storage/rollback-barrier"}},
		{"a probe", user, markedPod(namespace, nil, map[string]string{v1alpha1.ProbeAnnotation: mJob}), policy, []string{"only the rebalancer sets migration.ai-storage/probe"}},
		{"from a backup", user, markedPod(namespace, uid("0b8f2c1e-0000-4000-8000-000000000009"), original), policy, []string{"remove them from its labels and annotations"}},
		{"all of it", user, markedPod(namespace, uid(mJob), map[string]string{v1alpha1.OriginalUIDAnnotation: "u", v1alpha1.ReleasedAnnotation: "{}"}), policy,
			[]string{"remove migration.ai-storage/migration-uid, migration.ai-storage/original-uid, migration.ai-storage/released from"}},

		{"a template with the mark of another's migration", accounts, markedPod(namespace, uid(mJob), nil, stranger), ofOwners, []string{"expects no replacement of the owner of this pod: remove label migration.ai-storage/migration-uid", "template"}},
		{"a template with the mark of a migration that expects none", accounts, markedPod(namespace, uid(mSet), nil, set), ofOwners, []string{"expects no replacement"}},
		{"a template with the mark of a finished migration", accounts, markedPod(namespace, uid(finished), nil, job), ofOwners, []string{"expects no replacement"}},
		{"an owner that a user made up", user, markedPod(namespace, uid(mJob), nil, custom), ofOwners, []string{"expects no replacement"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantDenied(t, test.as.Create(t.Context(), test.pod, client.DryRunAll), test.policy, test.want...)
		})
	}
}

func TestMarksOfPodsStay(t *testing.T) {
	t.Parallel()
	const policy, want = "ai-storage-pod-marks", "only the rebalancer changes them, leave them as they are"
	namespace := newNamespace(t)
	user, rebalancer := tenant(t, namespace), asRebalancer(t)
	kubelet, scheduler, collector := userNamed(t, "system:node:"+nodeB), userNamed(t, schedulerAccount), userNamed(t, "system:serviceaccount:kube-system:generic-garbage-collector")
	update := func(c client.Client, change func(*corev1.Pod)) func(context.Context, *corev1.Pod) error {
		return func(ctx context.Context, pod *corev1.Pod) error {
			base := pod.DeepCopy()
			change(pod)
			return c.Patch(ctx, pod, client.MergeFrom(base))
		}
	}
	status := func(c client.Client, change func(*corev1.Pod)) func(context.Context, *corev1.Pod) error {
		return func(ctx context.Context, pod *corev1.Pod) error {
			base := pod.DeepCopy()
			change(pod)
			return c.Status().Patch(ctx, pod, client.MergeFrom(base))
		}
	}
	bind := func(c client.Client, annotations map[string]string) func(context.Context, *corev1.Pod) error {
		return func(ctx context.Context, pod *corev1.Pod) error {
			return c.SubResource("binding").Create(ctx, pod, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}, Target: corev1.ObjectReference{Kind: "Node", Name: nodeB}})
		}
	}
	label := func(key, value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { metav1.SetMetaDataLabel(&pod.ObjectMeta, key, value) }
	}
	annotation := func(key, value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { metav1.SetMetaDataAnnotation(&pod.ObjectMeta, key, value) }
	}
	tests := []struct {
		name string
		do   func(context.Context, *corev1.Pod) error
		want []string
	}{
		{"a user's own label", update(user, label("team", "a")), nil},
		{"a user's own annotation", update(user, annotation("team", "a")), nil},
		{"a mark of authors", update(user, annotation(v1alpha1.ExcludeAnnotation, "true")), nil},
		{"a deadline", update(user, func(pod *corev1.Pod) { pod.Spec.ActiveDeadlineSeconds = new(int64(5)) }), nil},
		{"the kubelet's status", status(kubelet, func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodRunning }), nil},
		{"the scheduler's binding", bind(scheduler, nil), nil},
		{"the garbage collector's finalizer", update(collector, func(pod *corev1.Pod) { pod.Finalizers = []string{"foregroundDeletion"} }), nil},
		{"the rebalancer's marks", update(rebalancer, func(pod *corev1.Pod) {
			annotation(v1alpha1.ReleasedAnnotation, "{}")(pod)
			delete(pod.Labels, v1alpha1.MigrationUIDLabel)
		}), nil},

		{"a role", update(user, label(v1alpha1.RoleLabel, v1alpha1.RolePlaceholder)), []string{want}},
		{"another migration", update(user, label(v1alpha1.MigrationUIDLabel, "x")), []string{want}},
		{"no migration", update(user, func(pod *corev1.Pod) { delete(pod.Labels, v1alpha1.MigrationUIDLabel) }), []string{want}},
		{"another original", update(user, annotation(v1alpha1.OriginalUIDAnnotation, "x")), []string{want}},
		{"released", update(user, annotation(v1alpha1.ReleasedAnnotation, "{}")), []string{want}},
		{"a barrier", update(user, annotation(v1alpha1.RollbackBarrierAnnotation, "x")), []string{want}},
		{"a probe", update(user, annotation(v1alpha1.ProbeAnnotation, "x")), []string{want}},
		{"a role by the status", status(user, label(v1alpha1.RoleLabel, v1alpha1.RolePlaceholder)), []string{want}},
		{"released by the status", status(user, annotation(v1alpha1.ReleasedAnnotation, "{}")), []string{want}},
		{"released by a binding", bind(user, map[string]string{v1alpha1.ReleasedAnnotation: "{}"}), []string{"only the rebalancer sets migration.ai-storage/released"}},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := markedPod(namespace, map[string]string{v1alpha1.MigrationUIDLabel: fmt.Sprint("m", i)}, map[string]string{v1alpha1.OriginalUIDAnnotation: "u"})
			pod.Spec.SchedulerName = "nobody"
			must(t, rebalancer.Create(t.Context(), pod))
			wantDenied(t, test.do(t.Context(), pod), policy, test.want...)
		})
	}
}
