package restapi

import (
	"context"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// IndexByID finds a PodMigration in the cache by its UID.
const IndexByID = "id"

// IDOf is the value of IndexByID.
func IDOf(object client.Object) []string { return []string{string(object.GetUID())} }

// maxLookups bounds how many ids that the cache does not have are looked for at
// the same time: each is a listing of all migrations.
const maxLookups = 4

// List is one page of migrations, the newest first.
type List struct {
	Items []Migration `json:"items"`
	// Continue asks for the next page; absent at the end.
	Continue string `json:"continue,omitempty"`
	// Remaining counts those after this page.
	Remaining int `json:"remaining"`
}

// list answers with one page of the migrations that match.
func (s *Server) list(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	q, err := listQueryOf(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if err := s.o.Authorizer.Allow(ctx, caller, auth.Access{Verb: "list", Namespace: q.namespace}); err != nil {
		return err
	}
	migrations, err := s.migrations(ctx, q.namespace)
	if err != nil {
		return err
	}
	writeJSON(ctx, w, http.StatusOK, q.page(migrations))
	return nil
}

// migrations reads those of a namespace, or of all, from the cache. The answer
// belongs to the cache.
func (s *Server) migrations(ctx context.Context, namespace string) ([]v1alpha1.PodMigration, error) {
	list := &v1alpha1.PodMigrationList{}
	if err := s.o.Cached.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing migrations: %w", err)
	}
	return list.Items, nil
}

// get answers with one migration.
func (s *Server) get(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	if err := noParameters(r); err != nil {
		return err
	}
	m, err := s.find(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := s.o.Authorizer.Allow(r.Context(), caller, auth.Access{Verb: "get", Namespace: m.Namespace, Name: m.Name}); err != nil {
		return err
	}
	writeJSON(r.Context(), w, http.StatusOK, viewOf(m))
	return nil
}

// find returns the migration of an id. One that was created a moment ago may not
// be in the cache yet, so what is not there is looked for live.
func (s *Server) find(ctx context.Context, id string) (*v1alpha1.PodMigration, error) {
	if !v1alpha1.IsUID(id) {
		return nil, fail(http.StatusBadRequest, reasonInvalidField, "id", "id %q is no UUID in lower case", id)
	}
	list := &v1alpha1.PodMigrationList{}
	if err := s.o.Cached.List(ctx, list, client.MatchingFields{IndexByID: id}); err != nil {
		return nil, fmt.Errorf("looking for migration %s: %w", id, err)
	}
	if len(list.Items) == 1 {
		return &list.Items[0], nil
	}
	return s.findLive(ctx, types.UID(id))
}

func (s *Server) findLive(ctx context.Context, id types.UID) (*v1alpha1.PodMigration, error) {
	select {
	case s.lookups <- struct{}{}:
		defer func() { <-s.lookups }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// Names are enough to find it, and small.
	all := &metav1.PartialObjectMetadataList{}
	all.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("PodMigrationList"))
	if err := s.o.Live.List(ctx, all); err != nil {
		return nil, fmt.Errorf("looking for migration %s: %w", id, err)
	}
	for i := range all.Items {
		if all.Items[i].UID != id {
			continue
		}
		m := &v1alpha1.PodMigration{}
		err := s.o.Live.Get(ctx, client.ObjectKeyFromObject(&all.Items[i]), m)
		if apierrors.IsNotFound(err) || err == nil && m.UID != id {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading migration %s: %w", id, err)
		}
		return m, nil
	}
	return nil, notFound(string(id))
}

func notFound(id string) *Error {
	return fail(http.StatusNotFound, reasonNotFound, "id", "there is no migration %s", id)
}
