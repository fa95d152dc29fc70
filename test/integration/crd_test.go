package integration

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

func newMigration(namespace, name, pod string) *v1alpha1.PodMigration {
	return &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.PodMigrationSpec{PodName: pod},
	}
}

// keepingClaim is a migration of a pod without state that has a claim all the same: one
// that outlives the pod was requested.
func keepingClaim(m *v1alpha1.PodMigration) *v1alpha1.PodMigration {
	m.Spec.Checkpoint.ReclaimPolicy = v1alpha1.ClaimRetain
	return m
}

func TestDefaultsOfPodMigration(t *testing.T) {
	m := newMigration(newNamespace(t), "m", "web")
	if err := k8s.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got := m.Spec
	if got.Waiting != v1alpha1.WaitingStrip || got.TimeoutSeconds != 600 || got.Cancel {
		t.Errorf("spec = %+v, want waiting Strip, timeout 600, no cancel", got)
	}
	if got.Checkpoint.Size.String() != "1Gi" || got.Checkpoint.AccessMode != "" || got.Checkpoint.ClaimAccessMode() != "ReadWriteOnce" || got.Checkpoint.ReclaimPolicy != v1alpha1.ClaimDelete {
		t.Errorf("checkpoint = %+v, want 1Gi, ReadWriteOnce, Delete", got.Checkpoint)
	}
}

func TestInvalidPodMigrationsAreRefused(t *testing.T) {
	namespace := newNamespace(t)
	tests := []struct{ name, spec, want string }{
		{"no pod name", `{}`, "spec.podName: Required value"},
		{"empty pod name", `{podName: ""}`, "spec.podName"},
		{"unknown field", `{podName: web, podname: web}`, `unknown field "spec.podname"`},
		{"target is source", `{podName: web, sourceNode: a, targetNode: a}`, "targetNode must differ from sourceNode"},
		{"waiting", `{podName: web, waiting: Drop}`, `Unsupported value: "Drop"`},
		{"timeout", `{podName: web, timeoutSeconds: 0}`, "should be greater than or equal to 1"},
		{"negative ttl", `{podName: web, ttlSecondsAfterFinished: -1}`, "should be greater than or equal to 0"},
		{"size zero", `{podName: web, checkpoint: {size: "0"}}`, "size must be greater than 0"},
		{"size negative", `{podName: web, checkpoint: {size: "-1Gi"}}`, "size must be greater than 0"},
		{"size nonsense", `{podName: web, checkpoint: {size: "lots"}}`, "spec.checkpoint.size"},
		{"access mode", `{podName: web, checkpoint: {accessMode: ReadOnlyMany}}`, `Unsupported value: "ReadOnlyMany"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			object := &unstructured.Unstructured{}
			document := "apiVersion: migration.ai-storage/v1alpha1\nkind: PodMigration\nmetadata: {generateName: bad-, namespace: " + namespace + "}\nspec: " + test.spec
			if err := yaml.Unmarshal([]byte(document), object); err != nil {
				t.Fatal(err)
			}
			err := k8s.Create(t.Context(), object, client.FieldValidation("Strict"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestSpecCannotBeChanged(t *testing.T) {
	namespace := newNamespace(t)
	base := newMigration(namespace, "m", "web")
	base.Spec.PodUID, base.Spec.SourceNode, base.Spec.TargetNode = "u", "a", "b"
	if err := k8s.Create(t.Context(), base); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*v1alpha1.PodMigrationSpec)
		want   string
	}{
		{"podName", func(s *v1alpha1.PodMigrationSpec) { s.PodName = "other" }, "podName cannot be changed"},
		{"podUID", func(s *v1alpha1.PodMigrationSpec) { s.PodUID = "other" }, "podUID cannot be changed"},
		{"podUID removed", func(s *v1alpha1.PodMigrationSpec) { s.PodUID = "" }, "podUID cannot be changed"},
		{"sourceNode", func(s *v1alpha1.PodMigrationSpec) { s.SourceNode = "c" }, "sourceNode cannot be changed"},
		{"targetNode", func(s *v1alpha1.PodMigrationSpec) { s.TargetNode = "c" }, "targetNode cannot be changed"},
		{"plannedNode", func(s *v1alpha1.PodMigrationSpec) { s.PlannedNode = "c" }, "plannedNode cannot be changed"},
		{"timeout", func(s *v1alpha1.PodMigrationSpec) { s.TimeoutSeconds = 5 }, "waiting, timeoutSeconds, forceRestart and checkpoint cannot be changed"},
		{"waiting", func(s *v1alpha1.PodMigrationSpec) { s.Waiting = v1alpha1.WaitingKeep }, "waiting, timeoutSeconds, forceRestart and checkpoint cannot be changed"},
		{"forceRestart", func(s *v1alpha1.PodMigrationSpec) { s.ForceRestart = true }, "waiting, timeoutSeconds, forceRestart and checkpoint cannot be changed"},
		{"checkpoint", func(s *v1alpha1.PodMigrationSpec) { s.Checkpoint.Size = ptr.To(resource.MustParse("2Gi")) }, "waiting, timeoutSeconds, forceRestart and checkpoint cannot be changed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed := base.DeepCopy()
			test.change(&changed.Spec)
			if err := k8s.Update(t.Context(), changed); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want invalid with %q", err, test.want)
			}
		})
	}

	base.Spec.Cancel, base.Spec.TTLSecondsAfterFinished, base.Spec.Reason = true, ptr.To[int32](5), "not needed any more"
	if err := k8s.Update(t.Context(), base); err != nil {
		t.Fatalf("changing what may be changed: %v", err)
	}
	base.Spec.Cancel = false
	if err := k8s.Update(t.Context(), base); err == nil || !strings.Contains(err.Error(), "a cancelled migration cannot be resumed") {
		t.Errorf("undoing cancel: error = %v", err)
	}
}

// What agents report is checked by its form, whoever writes it.
func TestReportsOfAgentsHaveAForm(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	for _, test := range []struct {
		name  string
		write func(*v1alpha1.CheckpointStatus)
		want  string
	}{
		{"source node", func(c *v1alpha1.CheckpointStatus) { c.Source.Node = "../../etc" }, "status.checkpoint.source.node"},
		{"a long source node", func(c *v1alpha1.CheckpointStatus) { c.Source.Node = strings.Repeat("a", 254) }, "status.checkpoint.source.node"},
		{"destination node", func(c *v1alpha1.CheckpointStatus) { c.Destination.Node = "Node_B" }, "status.checkpoint.destination.node"},
		{"attempt", func(c *v1alpha1.CheckpointStatus) { c.Source.Attempt = -1 }, "status.checkpoint.source.attempt"},
		{"digest", func(c *v1alpha1.CheckpointStatus) { c.Source.ManifestDigest = "sha256:0123" }, "status.checkpoint.source.manifestDigest"},
		{"pod UID", func(c *v1alpha1.CheckpointStatus) { c.Destination.PodUID = "../../../../proc/1/root/etc" }, "status.checkpoint.destination.podUID"},
		{"reason", func(c *v1alpha1.CheckpointStatus) { c.Source.Reason = "no space" }, "status.checkpoint.source.reason"},
		{"a long reason", func(c *v1alpha1.CheckpointStatus) { c.Destination.Reason = strings.Repeat("A", 65) }, "status.checkpoint.destination.reason"},
		{"a long message", func(c *v1alpha1.CheckpointStatus) { c.Destination.Message = strings.Repeat("é", 1025) }, "status.checkpoint.destination.message"},
		{"bytes", func(c *v1alpha1.CheckpointStatus) { c.Destination.Bytes = -1 }, "status.checkpoint.destination.bytes"},
		{"phase", func(c *v1alpha1.CheckpointStatus) { c.Source.Phase = "Done" }, "status.checkpoint.source.phase"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := halfway(t, namespace, nil)
			base := m.DeepCopy()
			test.write(m.Status.Checkpoint)
			err := asRebalancer(t).Status().Patch(t.Context(), m, client.MergeFrom(base))
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("answered with %v, want invalid %s", err, test.want)
			}
		})
	}
}
