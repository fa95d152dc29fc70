package restapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
)

const failedPath = "/api/v1/migrations/00000000-0000-4000-8000-000000000001/recover"

// withFailed serves an API that has a failed migration of pod train.
func withFailed(t *testing.T, change func(*Options)) *Server {
	t.Helper()
	s := newServer(t, interceptor.Funcs{}, change)
	failed := &v1alpha1.PodMigration{}
	failed.Namespace, failed.Name = "ns", "failed"
	failed.Spec.PodName, failed.Spec.Checkpoint.ReclaimPolicy = "train", v1alpha1.ClaimRetain
	failed.Status.Phase, failed.Status.Original = v1alpha1.PhaseFailed, &v1alpha1.PodReference{Name: "train"}
	if err := s.o.Writer.Create(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecover(t *testing.T) {
	for body, want := range map[string]v1alpha1.PodMigrationSpec{
		`{}`: {PodName: "train", TimeoutSeconds: defaultTimeout, Checkpoint: v1alpha1.CheckpointSpec{ReclaimPolicy: v1alpha1.ClaimRetain}},
		`{"pod_name":"rescued","target_node":"b","checkpoint_fallback":"FreshStart","preserve_pv":false,"timeout":60}`: {
			PodName: "rescued", TargetNode: "b", TimeoutSeconds: 60, Checkpoint: v1alpha1.CheckpointSpec{ReclaimPolicy: v1alpha1.ClaimDelete, Fallback: v1alpha1.FallbackFreshStart}},
	} {
		s := withFailed(t, nil)
		answer := s.send("POST", failedPath, body)
		var view Migration
		if err := json.Unmarshal(answer.Body.Bytes(), &view); err != nil || answer.Code != http.StatusAccepted || answer.Header().Get("Location") != "/api/v1/migrations/"+view.ID {
			t.Fatalf("%s is answered with %d %s %v", body, answer.Code, answer.Body, err)
		}
		stored := &v1alpha1.PodMigrationList{}
		if err := s.o.Live.List(t.Context(), stored, client.InNamespace("ns")); err != nil {
			t.Fatal(err)
		}
		want.RecoverFrom, want.Reason = "failed", "requested by anna"
		for _, m := range stored.Items {
			if m.UID == types.UID(view.ID) && (m.Spec.PodName != want.PodName || m.Spec.RecoverFrom != want.RecoverFrom || m.Spec.TargetNode != want.TargetNode ||
				m.Spec.TimeoutSeconds != want.TimeoutSeconds || m.Spec.Checkpoint != want.Checkpoint || m.Spec.Reason != want.Reason) {
				t.Errorf("%s: stored %+v, want %+v", body, m.Spec, want)
			}
		}
		if view.RecoverFrom != "failed" {
			t.Errorf("%s is answered with %+v", body, view)
		}
	}
}

func TestRecoverIsRefused(t *testing.T) {
	const unknown = "/api/v1/migrations/00000000-0000-4000-8000-000000000099/recover"
	for _, test := range []struct {
		path, body, field string
		code              int
	}{
		{unknown, `{}`, "id", http.StatusNotFound},
		{failedPath, `{"pod_name":"A b"}`, "pod_name", http.StatusBadRequest},
		{failedPath, `{"pod":"a"}`, "pod", http.StatusBadRequest},
		{failedPath, `{"checkpoint_fallback":"Restart"}`, "checkpoint_fallback", http.StatusBadRequest},
		{failedPath, `{"timeout":86401}`, "timeout", http.StatusBadRequest},
		{failedPath, ``, "", http.StatusBadRequest},
	} {
		answer := withFailed(t, nil).send("POST", test.path, test.body)
		var body ErrorBody
		if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil || answer.Code != test.code || body.Error.Field != test.field {
			t.Errorf("%s is answered with %d %s", test.body, answer.Code, answer.Body)
		}
	}
}

// unwilling refuses every request.
type unwilling struct{ reason string }

func (u unwilling) Check(context.Context, *v1alpha1.PodMigration) (migration.PreflightResult, error) {
	return migration.PreflightResult{Refusal: &containers.Refusal{Reason: u.reason, Message: "why"}}, nil
}

// Every reason why the controller would not recover has its code and its field.
func TestRecoverAnswersWhatTheControllerWould(t *testing.T) {
	for reason, test := range map[string]struct {
		code  int
		field string
	}{
		decide.ReasonMigrationNotFound: {http.StatusNotFound, "id"}, decide.ReasonNothingKept: {http.StatusConflict, "id"},
		decide.ReasonAlreadyRecovered: {http.StatusConflict, "id"}, decide.ReasonKeptClaimInUse: {http.StatusConflict, "id"},
		decide.ReasonNameTaken: {http.StatusConflict, "pod_name"}, decide.ReasonOwnerReplacesPod: {http.StatusUnprocessableEntity, "pod_name"},
		decide.ReasonManifestMissing: {http.StatusUnprocessableEntity, "id"}, decide.ReasonTargetNodeNotFound: {http.StatusUnprocessableEntity, "target_node"},
		decide.ReasonProcessNotMovable: {http.StatusUnprocessableEntity, "checkpoint_fallback"},
	} {
		s := withFailed(t, func(o *Options) { o.Preflight = unwilling{reason} })
		answer := s.send("POST", failedPath, `{}`)
		if answer.Code != test.code || !strings.Contains(answer.Body.String(), reason) || !strings.Contains(answer.Body.String(), `"field":"`+test.field+`"`) {
			t.Errorf("%s is answered with %d %s", reason, answer.Code, answer.Body)
		}
	}
}
