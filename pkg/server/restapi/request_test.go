package restapi

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// with is the good body with more fields.
func with(fields string) string { return strings.TrimSuffix(goodBody, "}") + "," + fields + "}" }

func TestCheckpointOfARequest(t *testing.T) {
	for fields, want := range map[string]v1alpha1.CheckpointSpec{
		`"timeout":5`:                 {},
		`"checkpoint_mode":"Process"`: {Mode: v1alpha1.CheckpointProcess},
		`"checkpoint_mode":"Process","checkpoint_fallback":"FreshStart"`: {Mode: v1alpha1.CheckpointProcess, Fallback: v1alpha1.FallbackFreshStart},
		`"checkpoint_mode":"Process","checkpoint_fallback":"None"`:       {Mode: v1alpha1.CheckpointProcess},
		`"checkpoint_mode":"Live"`:                                       {Mode: v1alpha1.CheckpointLive},
		`"checkpoint_mode":"Frozen","checkpoint_fallback":null`:          {},
		`"checkpoint_mode":null,"checkpoint_fallback":""`:                {},
		`"max_freeze":300`:   {MaxFreezeSeconds: 300},
		`"max_freeze":60`:    {},
		`"max_freeze":0`:     {},
		`"preserve_pv":true`: {Claim: v1alpha1.ClaimAlways, ReclaimPolicy: v1alpha1.ClaimRetain},
	} {
		s := newServer(t, interceptor.Funcs{}, nil)
		answer := s.send("POST", "/api/v1/migrations", with(fields))
		if answer.Code != http.StatusAccepted {
			t.Errorf("%s is answered with %d %s", fields, answer.Code, answer.Body)
			continue
		}
		stored := &v1alpha1.PodMigrationList{}
		if err := s.o.Live.List(t.Context(), stored, client.InNamespace("ns")); err != nil || len(stored.Items) != 1 {
			t.Fatalf("%d migrations, %v", len(stored.Items), err)
		}
		want.ReclaimPolicy = cmp.Or(want.ReclaimPolicy, v1alpha1.ClaimDelete)
		if got := stored.Items[0].Spec.Checkpoint; got != want {
			t.Errorf("%s: stored %+v, want %+v", fields, got, want)
		}
	}
}

func TestCheckpointThatIsRefused(t *testing.T) {
	for fields, test := range map[string]struct{ field, says string }{
		`"checkpoint_mode":"process"`: {"checkpoint_mode", "[Frozen Process Live Application None]"},
		`"max_freeze":3601`:           {"max_freeze", "from 0 to 3600 seconds"},
		`"max_freeze":-1`:             {"max_freeze", "from 0 to 3600 seconds"},
		`"max_freeze":"60s"`:          {"max_freeze", "max_freeze has to be a whole number, not a string"},
		`"checkpoint_mode":1`:         {"checkpoint_mode", "checkpoint_mode has to be a string, not a number"},
		`"checkpoint_mode":"Process","checkpoint_fallback":"Restart"`:         {"checkpoint_fallback", "[None FreshStart]"},
		`"checkpoint_fallback":"FreshStart"`:                                  {"checkpoint_fallback", "checkpoint_mode Process only"},
		`"checkpoint_mode":"Application","checkpoint_fallback":"FreshStart"`:  {"checkpoint_fallback", "checkpoint_mode Process only"},
		`"checkpoint_mode":"Process","checkpoint_access":"ReadWriteMany"`:     {"checkpoint_access", "unknown field"},
		`"checkpoint_mode":"Process","checkpoint_mode":"Frozen","timeout":60`: {"checkpoint_mode", "duplicate field"},
	} {
		answer := newServer(t, interceptor.Funcs{}, nil).send("POST", "/api/v1/migrations", with(fields))
		var body ErrorBody
		if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		if answer.Code != http.StatusBadRequest || body.Error.Field != test.field || !strings.Contains(body.Error.Message, test.says) {
			t.Errorf("%s is answered with %d %s", fields, answer.Code, answer.Body)
		}
	}
}

// Who names the defaults asks for the same as who does not, before and after the
// fields came to be.
func TestDigestOfDefaults(t *testing.T) {
	digest := func(m MigrationRequest) string {
		m.PodName, m.PodNamespace, m.SourceNode, m.TargetNode = "train", "ns", "a", "b"
		if err := m.validate(); err != nil {
			t.Fatal(err)
		}
		return m.digest()
	}
	plain := digest(MigrationRequest{})
	if named := digest(MigrationRequest{CheckpointMode: v1alpha1.CheckpointFrozen, CheckpointFallback: v1alpha1.FallbackNone, Timeout: defaultTimeout}); named != plain {
		t.Error("with the defaults by name it is another request")
	}
	if process := digest(MigrationRequest{CheckpointMode: v1alpha1.CheckpointProcess}); process == plain {
		t.Error("mode Process is the same request")
	}
}

func TestViewTellsWhatWasRestored(t *testing.T) {
	m := &v1alpha1.PodMigration{}
	if v := viewOf(m); v.CheckpointMode != v1alpha1.CheckpointFrozen || v.CheckpointFallback != v1alpha1.FallbackNone || v.Restored != "" {
		t.Errorf("%+v", v)
	}
	m.Spec.Checkpoint.Mode, m.Spec.Checkpoint.Fallback = v1alpha1.CheckpointProcess, v1alpha1.FallbackFreshStart
	m.Status.Checkpoint = &v1alpha1.CheckpointStatus{Mode: v1alpha1.CheckpointFrozen, Restored: v1alpha1.RestoredVolumes, FallbackReason: "a device is open"}
	if v := viewOf(m); v.CheckpointMode != v1alpha1.CheckpointProcess || v.CheckpointFallback != v1alpha1.FallbackFreshStart ||
		v.Restored != v1alpha1.RestoredVolumes || v.FallbackReason != "a device is open" {
		t.Errorf("%+v", v)
	}
}
