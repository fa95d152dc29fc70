package admission

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

const jobIndex = "batch.kubernetes.io/job-completion-index"

func testScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return scheme
}

// owned is the controller of the pods of a test.
func owned(kind, apiVersion string) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: "sum", UID: "uid-sum", Controller: new(true)}
}

// migrating is a migration that expects the next pod of index 0.
func migrating() *v1alpha1.PodMigration {
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m", UID: "uid-m"}}
	m.Spec = v1alpha1.PodMigrationSpec{PodName: "sum-0-abcde", PlannedNode: "node-b"}
	m.Status = v1alpha1.PodMigrationStatus{
		Phase:           v1alpha1.PhasePlacing,
		Original:        &v1alpha1.PodReference{Name: "sum-0-abcde", UID: "uid-original", NodeName: "node-a"},
		Replacement:     &v1alpha1.PodReference{Name: "sum-0-abcde-migrated-1"},
		CheckpointClaim: "checkpoint",
		Handover:        &v1alpha1.Handover{Method: v1alpha1.MethodRelease, Order: v1alpha1.OrderStartFirst, Owner: owned("Job", "batch/v1"), Identity: "0"},
		Checkpoint:      &v1alpha1.CheckpointStatus{Volumes: []string{"scratch"}},
		Containers: []v1alpha1.ContainerVerdict{
			{Name: "batch", Kind: v1alpha1.KindContainer, State: v1alpha1.StateCompleted, Reason: containers.ReasonCompleted},
			{Name: "serve", Kind: v1alpha1.KindContainer, State: v1alpha1.StateRunning, ShouldMigrate: true, Reason: containers.ReasonRunning},
		},
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReplacementPending, Status: metav1.ConditionTrue, Reason: "Test"}},
	}
	return m
}

// jobPod is the pod that the Job is about to create.
func jobPod() *corev1.Pod {
	pod := fixture.MakePod("").UID("").Annotation(jobIndex, "0").Volume("scratch", fixture.EmptyDir()).
		Container("batch", nil).Container("serve", nil, fixture.Mount("scratch", "/scratch")).Obj()
	pod.GenerateName, pod.Status = "sum-0-", corev1.PodStatus{}
	pod.OwnerReferences = []metav1.OwnerReference{*owned("Job", "batch/v1")}
	return pod
}

func originalPod() *corev1.Pod {
	pod := jobPod()
	pod.Name, pod.GenerateName, pod.UID, pod.OwnerReferences = "sum-0-abcde", "", "uid-original", nil
	pod.Spec.NodeName = "node-a"
	return pod
}

func ask(t *testing.T, h *podHandler, pod *corev1.Pod, dryRun bool) admission.Response {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	response := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "r", Namespace: "default", Operation: admissionv1.Create, DryRun: &dryRun, Object: runtime.RawExtension{Raw: raw},
	}})
	if !response.Allowed {
		t.Fatalf("denied: %+v", response)
	}
	return response
}

func newHandler(t *testing.T, objects ...client.Object) *podHandler {
	scheme := testScheme(t)
	return &podHandler{
		live:    fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(),
		decoder: admission.NewDecoder(scheme), agentImage: "agent:1", metrics: NewMetrics(nil),
	}
}

// patchedTo finds what the patch makes of a value.
func patchedTo(response admission.Response, path string) any {
	for _, p := range response.Patches {
		if p.Path == path {
			return p.Value
		}
	}
	return nil
}

func TestHandle(t *testing.T) {
	changed := func(change func(*v1alpha1.PodMigration)) *v1alpha1.PodMigration {
		m := migrating()
		change(m)
		return m
	}
	for name, test := range map[string]struct {
		migration *v1alpha1.PodMigration
		pod       func(*corev1.Pod)
		rewrites  bool
		warns     bool
	}{
		"the expected pod":     {migrating(), nil, true, false},
		"another index":        {migrating(), func(p *corev1.Pod) { p.Annotations[jobIndex] = "1" }, false, false},
		"another owner":        {migrating(), func(p *corev1.Pod) { p.OwnerReferences[0].UID = "x" }, false, false},
		"nobody's pod":         {migrating(), func(p *corev1.Pod) { p.OwnerReferences = nil }, false, false},
		"not expecting":        {changed(func(m *v1alpha1.PodMigration) { m.Status.Conditions[0].Status = metav1.ConditionFalse }), nil, false, false},
		"finished":             {changed(func(m *v1alpha1.PodMigration) { m.Status.Phase = v1alpha1.PhaseCancelled }), nil, false, false},
		"of another namespace": {changed(func(m *v1alpha1.PodMigration) { m.Namespace = "other" }), nil, false, false},
		"template changed":     {migrating(), func(p *corev1.Pod) { p.Spec.Containers[0].Name = "new" }, false, true},
		"image changed":        {migrating(), func(p *corev1.Pod) { p.Spec.Containers[1].Image = "new:2" }, false, true},
		"never accepted":       {changed(func(m *v1alpha1.PodMigration) { m.Status.Original = nil }), nil, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := jobPod()
			if test.pod != nil {
				test.pod(pod)
			}
			for _, dryRun := range []bool{true, false} {
				response := ask(t, newHandler(t, test.migration, originalPod()), pod, dryRun)
				if len(response.Patches) > 0 != test.rewrites || len(response.Warnings) > 0 != test.warns {
					t.Errorf("dry run %v: %d patches, warnings %q, want rewriting %v, warning %v", dryRun, len(response.Patches), response.Warnings, test.rewrites, test.warns)
				}
			}
		})
	}
}

func TestHandleWritesTheReplacement(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*v1alpha1.PodMigration)
		path   string
		want   any
	}{
		"the name":      {nil, "/metadata/name", "sum-0-abcde-migrated-1"},
		"the scheduler": {nil, "/spec/schedulerName", v1alpha1.SchedulerName},
		"the planned node": {nil, "/metadata/labels", map[string]any{
			v1alpha1.MigrationUIDLabel: "uid-m", v1alpha1.OriginalPodLabel: "sum-0-abcde", v1alpha1.TargetNodeLabel: "node-b"}},
		"the place that is held": {func(m *v1alpha1.PodMigration) {
			m.Status.Placeholder = &v1alpha1.PodReference{NodeName: "node-c"}
		}, "/metadata/labels", map[string]any{
			v1alpha1.MigrationUIDLabel: "uid-m", v1alpha1.OriginalPodLabel: "sum-0-abcde", v1alpha1.TargetNodeLabel: "node-c"}},
		"the wait": {func(m *v1alpha1.PodMigration) { m.Status.Handover.Order = v1alpha1.OrderStopFirst }, "/spec/schedulingGates",
			[]any{map[string]any{"name": v1alpha1.WaitForOriginalGate}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := migrating()
			if test.change != nil {
				test.change(m)
			}
			response := ask(t, newHandler(t, m), jobPod(), false)
			got, err := json.Marshal(patchedTo(response, test.path))
			if err != nil {
				t.Fatal(err)
			}
			if want, _ := json.Marshal(test.want); string(got) != string(want) {
				t.Errorf("%s: %s, want %s in %v", test.path, got, want, response.Patches)
			}
		})
	}
}

// A probe asks whether the webhook answers. Stored, it would take the place of the
// replacement.
func TestHandleProbe(t *testing.T) {
	probe := jobPod()
	probe.Annotations = map[string]string{v1alpha1.ProbeAnnotation: "uid-m"}
	for _, dryRun := range []bool{true, false} {
		if response := ask(t, newHandler(t, migrating()), probe, dryRun); len(response.Patches) > 0 != dryRun {
			t.Errorf("dry run %v: %d patches", dryRun, len(response.Patches))
		}
	}
}

// A field that this version does not know must not be removed.
func TestHandleLeavesUnknownFields(t *testing.T) {
	h := newHandler(t, migrating())
	raw, err := json.Marshal(jobPod())
	if err != nil {
		t.Fatal(err)
	}
	var pod map[string]any
	if err := json.Unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	pod["spec"].(map[string]any)["newField"] = "x"
	if raw, err = json.Marshal(pod); err != nil {
		t.Fatal(err)
	}
	response := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Namespace: "default", Object: runtime.RawExtension{Raw: raw},
	}})
	if len(response.Patches) == 0 {
		t.Fatalf("not rewritten: %+v", response)
	}
	for _, p := range response.Patches {
		if p.Path == "/spec/newField" || p.Path == "/spec" {
			t.Errorf("patched %+v", p)
		}
	}
}

func TestHandleChoosesTheOldest(t *testing.T) {
	older, younger := migrating(), migrating()
	younger.Name, younger.UID, younger.Status.Replacement.Name = "a", "uid-a", "second"
	older.CreationTimestamp = metav1.Unix(1000, 0)
	younger.CreationTimestamp = metav1.Unix(2000, 0)
	response := ask(t, newHandler(t, younger, older), jobPod(), false)
	if got := patchedTo(response, "/metadata/name"); got != "sum-0-abcde-migrated-1" {
		t.Errorf("name %v", got)
	}
}

// What cannot be read must not keep a pod from being created.
func TestHandleLetsPassWhatItCannotJudge(t *testing.T) {
	down := errors.New("down")
	for name, funcs := range map[string]interceptor.Funcs{
		"no migrations": {List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return down }},
		"no original": {Get: func(context.Context, client.WithWatch, types.NamespacedName, client.Object, ...client.GetOption) error {
			return down
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t)
			h.live = fake.NewClientBuilder().WithScheme(testScheme(t)).WithObjects(migrating()).WithInterceptorFuncs(funcs).Build()
			if response := ask(t, h, jobPod(), false); len(response.Patches) > 0 || len(response.Warnings) != 1 {
				t.Errorf("patches %v, warnings %v", response.Patches, response.Warnings)
			}
		})
	}
	t.Run("no agent", func(t *testing.T) {
		h := newHandler(t, migrating())
		h.agentImage = ""
		if response := ask(t, h, jobPod(), false); len(response.Patches) > 0 || len(response.Warnings) != 1 {
			t.Errorf("patches %v, warnings %v", response.Patches, response.Warnings)
		}
	})
	t.Run("no pod", func(t *testing.T) {
		response := newHandler(t).Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Object: runtime.RawExtension{Raw: []byte("{")}}})
		if !response.Allowed || len(response.Warnings) != 1 {
			t.Errorf("response %+v", response)
		}
	})
}
