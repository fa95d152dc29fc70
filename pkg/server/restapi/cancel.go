package restapi

import (
	"encoding/json"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// cancel asks the controller to roll a migration back. The record stays.
func (s *Server) cancel(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	if err := noParameters(r); err != nil {
		return err
	}
	ctx := r.Context()
	m, err := s.find(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := s.o.Authorizer.Allow(ctx, caller, auth.Access{Verb: "delete", Namespace: m.Namespace, Name: m.Name}); err != nil {
		return err
	}
	// The cache may be behind: what cannot be undone is read live.
	uid := m.UID
	if err := s.o.Live.Get(ctx, client.ObjectKeyFromObject(m), m); apierrors.IsNotFound(err) || err == nil && m.UID != uid {
		return notFound(string(uid))
	} else if err != nil {
		return fmt.Errorf("reading migration %s: %w", uid, err)
	}
	if m.Status.Phase.IsFinished() {
		return fail(http.StatusConflict, reasonFinished, "id", "migration %s has ended: %s", m.UID, m.Status.Phase)
	}
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionCommitted); c != nil && c.Status == metav1.ConditionTrue {
		return fail(http.StatusConflict, reasonCommitted, "id", "migration %s is committed: %s (%s)", m.UID, c.Message, m.Status.Message)
	}
	if !m.Spec.Cancel {
		if err := s.o.Writer.Patch(ctx, m, cancelPatch(m)); err != nil {
			return fmt.Errorf("cancelling migration %s: %w", m.UID, err)
		}
	}
	writeJSON(ctx, w, http.StatusAccepted, viewOf(m))
	return nil
}

// cancelPatch holds for this very migration, whatever else is written meanwhile.
func cancelPatch(m *v1alpha1.PodMigration) client.Patch {
	// A map of plain values is always encoded.
	patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{"uid": m.UID}, "spec": map[string]any{"cancel": true}})
	return client.RawPatch("application/merge-patch+json", patch)
}
