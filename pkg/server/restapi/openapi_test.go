package restapi

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/server/nodeview"
)

func loadDocument(t *testing.T) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData(Document)
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return document
}

// The document has every route, with its access, and no other.
func TestDocumentHasTheRoutes(t *testing.T) {
	document := loadDocument(t)
	described := map[string]bool{}
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			described[method+" "+path] = operation.Security != nil && len(*operation.Security) == 0
		}
	}
	served := map[string]bool{}
	for _, route := range (&Server{}).table() {
		served[route.method+" "+route.path] = route.open
	}
	if diff := cmp.Diff(served, described); diff != "" {
		t.Errorf("routes and whether they are open (-served +described):\n%s", diff)
	}
}

// Every object of the document is a type with the same fields, of which those are
// required that are always sent.
func TestDocumentHasTheFields(t *testing.T) {
	types := map[string]any{
		"Migration": Migration{}, "Handover": Handover{}, "Container": Container{}, "Resources": Resources{}, "PhaseTime": PhaseTime{},
		"List": List{}, "Plan": Plan{}, "Pause": rebalance.Pause{}, "Nodes": Nodes{}, "Node": nodeview.Node{}, "Resource": nodeview.Resource{},
		"Extended": nodeview.Extended{}, "Figures": Figures{}, "Counts": Counts{}, "Figure": Figure{}, "Deleted": Deleted{},
		"PlanChanged": PlanChanged{}, "Health": Health{}, "ErrorBody": ErrorBody{}, "Error": Error{}, "FieldError": FieldError{},
		"MigrationRequest": MigrationRequest{}, "RecoveryRequest": RecoveryRequest{}, "LoopStatus": LoopStatus{}, "Prediction": Prediction{}, "PlannedMove": PlannedMove{},
		"Amounts": Amounts{}, "UnrelievedNode": UnrelievedNode{}, "SkippedNode": SkippedNode{}, "OverutilizedNode": OverutilizedNode{},
		"Breaker": Breaker{}, "Cooldown": Cooldown{},
	}
	schemas := loadDocument(t).Components.Schemas
	for name, schema := range schemas {
		if !schema.Value.Type.Is("object") {
			continue
		}
		of, known := types[name]
		if !known {
			t.Errorf("schema %s belongs to no type", name)
			continue
		}
		delete(types, name)
		want, required := fieldsOf(of)
		if got := slices.Sorted(maps.Keys(schema.Value.Properties)); !slices.Equal(got, want) {
			t.Errorf("properties of %s (-type +document):\n%s", name, cmp.Diff(want, got))
		}
		if got := slices.Sorted(slices.Values(schema.Value.Required)); !slices.Equal(got, required) {
			t.Errorf("required of %s (-type +document):\n%s", name, cmp.Diff(required, got))
		}
		if allowed := schema.Value.AdditionalProperties.Has; allowed == nil || *allowed {
			t.Errorf("schema %s lets unknown fields pass", name)
		}
	}
	for name := range types {
		t.Errorf("type %s is not in the document", name)
	}
}

func fieldsOf(value any) (names, required []string) {
	of := reflect.TypeOf(value)
	for i := range of.NumField() {
		name, options, tagged := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if !of.Field(i).IsExported() {
			continue
		}
		names = append(names, name)
		if !tagged || options != "omitempty" {
			required = append(required, name)
		}
	}
	slices.Sort(names)
	slices.Sort(required)
	return names, required
}

// What the document lets through is what the resource knows.
func TestEnumerationsOfTheDocument(t *testing.T) {
	schemas := loadDocument(t).Components.Schemas
	request, answer := schemas["MigrationRequest"].Value.Properties, schemas["Migration"].Value.Properties
	for name, test := range map[string]struct {
		schema *openapi3.SchemaRef
		known  []string
		// optional values may be "" or null.
		optional bool
	}{
		"phases":                  {schemas["Phase"], texts(v1alpha1.Phases), false},
		"modes of a request":      {request["checkpoint_mode"], texts(v1alpha1.CheckpointModes), true},
		"modes of an answer":      {answer["checkpoint_mode"], texts(v1alpha1.CheckpointModes), false},
		"fallbacks of a request":  {request["checkpoint_fallback"], texts(v1alpha1.CheckpointFallbacks), true},
		"fallbacks of an answer":  {answer["checkpoint_fallback"], texts(v1alpha1.CheckpointFallbacks), false},
		"what an answer restored": {answer["restored"], texts([]v1alpha1.RestoredState{v1alpha1.RestoredProcesses, v1alpha1.RestoredVolumes}), false},
	} {
		want := []any{}
		for _, value := range test.known {
			want = append(want, value)
		}
		if test.optional {
			want = append(want, "", nil)
		}
		if diff := cmp.Diff(want, test.schema.Value.Enum); diff != "" {
			t.Errorf("%s (-known +described):\n%s", name, diff)
		}
	}
}

func texts[T ~string](values []T) []string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = string(value)
	}
	return texts
}
