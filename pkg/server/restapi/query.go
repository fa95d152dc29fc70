package restapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const (
	defaultLimit = 100
	maxLimit     = 500
)

// parametersOf reads a query that may hold these parameters only, each once, but
// for phase.
func parametersOf(r *http.Request, allowed ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(http.StatusBadRequest, reasonMalformed, "", "the query cannot be read: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(allowed, name) {
			known := "none are known here"
			if len(allowed) > 0 {
				known = "known are " + strings.Join(allowed, ", ")
			}
			return nil, fail(http.StatusBadRequest, reasonUnknownField, name, "unknown parameter %q: %s", name, known)
		}
		if len(values[name]) > 1 && name != "phase" {
			return nil, fail(http.StatusBadRequest, reasonInvalidField, name, "%s may come only once", name)
		}
	}
	return values, nil
}

func noParameters(r *http.Request) error {
	_, err := parametersOf(r)
	return err
}

// namespaceOf reads the parameter namespace; "" means all.
func namespaceOf(values url.Values) (string, error) {
	namespace := values.Get("namespace")
	if problems := validation.IsDNS1123Label(namespace); values.Has("namespace") && len(problems) > 0 {
		return "", fail(http.StatusBadRequest, reasonInvalidField, "namespace", "namespace %q is no name: %s", namespace, strings.Join(problems, "; "))
	}
	return namespace, nil
}

// listQuery says which migrations are wanted.
type listQuery struct {
	namespace, pod string
	phases         []v1alpha1.Phase
	limit          int
	// after is the last of the page before; nil at the start.
	after *position
}

// position of a migration in a list, the newest first.
type position struct {
	Created time.Time `json:"created"`
	ID      string    `json:"id"`
}

func listQueryOf(r *http.Request) (*listQuery, error) {
	values, err := parametersOf(r, "namespace", "phase", "pod", "limit", "continue")
	if err != nil {
		return nil, err
	}
	q := &listQuery{pod: values.Get("pod"), limit: defaultLimit}
	if q.namespace, err = namespaceOf(values); err != nil {
		return nil, err
	}
	for _, value := range values["phase"] {
		phase := v1alpha1.Phase(value)
		if !slices.Contains(v1alpha1.Phases, phase) {
			return nil, fail(http.StatusBadRequest, reasonInvalidField, "phase", "there is no phase %q, only %v", value, v1alpha1.Phases)
		}
		q.phases = append(q.phases, phase)
	}
	if values.Has("limit") {
		if q.limit, err = strconv.Atoi(values.Get("limit")); err != nil || q.limit < 1 || q.limit > maxLimit {
			return nil, fail(http.StatusBadRequest, reasonInvalidField, "limit", "limit has to be a whole number from 1 to %d", maxLimit)
		}
	}
	if values.Has("continue") {
		if q.after, err = positionOf(values.Get("continue")); err != nil {
			return nil, fail(http.StatusBadRequest, reasonInvalidField, "continue", "continue has to be what the page before gave")
		}
	}
	return q, nil
}

func (q *listQuery) matches(m *v1alpha1.PodMigration) bool {
	return (q.pod == "" || m.Spec.PodName == q.pod) && (len(q.phases) == 0 || slices.Contains(q.phases, m.CurrentPhase()))
}

// page picks the migrations of one page. A page begins after a place, not after a
// number of entries, so those that come or go meanwhile shift none of the others.
func (q *listQuery) page(migrations []v1alpha1.PodMigration) List {
	var matching []*v1alpha1.PodMigration
	for i := range migrations {
		if m := &migrations[i]; q.matches(m) && (q.after == nil || q.after.isBefore(m)) {
			matching = append(matching, m)
		}
	}
	slices.SortFunc(matching, func(a, b *v1alpha1.PodMigration) int {
		if newest := b.CreationTimestamp.Compare(a.CreationTimestamp.Time); newest != 0 {
			return newest
		}
		return strings.Compare(string(a.UID), string(b.UID))
	})
	list := List{Items: []Migration{}, Remaining: max(0, len(matching)-q.limit)}
	for _, m := range matching[:min(q.limit, len(matching))] {
		list.Items = append(list.Items, viewOf(m))
	}
	if list.Remaining > 0 {
		last := matching[q.limit-1]
		list.Continue = (&position{Created: last.CreationTimestamp.UTC(), ID: string(last.UID)}).String()
	}
	return list
}

// isBefore reports whether a migration comes later in the list.
func (p *position) isBefore(m *v1alpha1.PodMigration) bool {
	if !m.CreationTimestamp.Time.Equal(p.Created) {
		return m.CreationTimestamp.Time.Before(p.Created)
	}
	return string(m.UID) > p.ID
}

func (p *position) String() string {
	// Plain fields are always encoded.
	encoded, _ := json.Marshal(p)
	return base64.RawURLEncoding.EncodeToString(encoded)
}

func positionOf(token string) (*position, error) {
	encoded, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.DisallowUnknownFields()
	p := &position{}
	return p, decoder.Decode(p)
}
