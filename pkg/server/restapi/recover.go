package restapi

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// RecoveryRequest is the body of a POST to recover. All of it may be left out: {}.
type RecoveryRequest struct {
	// PodName is the pod to start; "" is the name of the original.
	PodName string `json:"pod_name,omitempty"`
	// TargetNode is the only node that the scheduler may choose; "" leaves it to it.
	TargetNode string `json:"target_node,omitempty"`
	// CheckpointFallback FreshStart restores the volumes where memory was carried too.
	CheckpointFallback v1alpha1.CheckpointFallback `json:"checkpoint_fallback,omitempty"`
	// PreservePV keeps the claim after the pod is gone; where it is left out the request
	// of the failed migration counts.
	PreservePV *bool `json:"preserve_pv,omitempty"`
	// Timeout in seconds; 0 means 600.
	Timeout int64 `json:"timeout,omitempty"`
}

// recoverPod stores a PodMigration that starts the pod of a failed one from the claim
// which that one has kept.
func (s *Server) recoverPod(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	if err := noParameters(r); err != nil {
		return err
	}
	request := &RecoveryRequest{}
	if err := decodeBody(w, r, request); err != nil {
		return err
	}
	if err := request.validate(); err != nil {
		return err
	}
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	failed, err := s.find(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	for _, verb := range []string{"get", "create"} {
		access := auth.Access{Verb: verb, Namespace: failed.Namespace}
		if verb == "get" {
			access.Name = failed.Name
		}
		if err := s.o.Authorizer.Allow(ctx, caller, access); err != nil {
			return err
		}
	}
	// The cache may be behind.
	uid := failed.UID
	if err := s.o.Live.Get(ctx, client.ObjectKeyFromObject(failed), failed); apierrors.IsNotFound(err) || err == nil && failed.UID != uid {
		return notFound(string(uid))
	} else if err != nil {
		return fmt.Errorf("reading migration %s: %w", uid, err)
	}
	wanted := recoveryOf(request, failed, caller.GetName(), key)
	return s.store(ctx, w, wanted, key, notRecovered)
}

// validate checks what is known without the cluster.
func (r *RecoveryRequest) validate() error {
	var wrong []FieldError
	for name, value := range map[string]string{"pod_name": r.PodName, "target_node": r.TargetNode} {
		if value != "" {
			wrong = append(wrong, checkName(name, value, validation.IsDNS1123Subdomain)...)
		}
	}
	if r.CheckpointFallback == v1alpha1.FallbackNone {
		r.CheckpointFallback = ""
	}
	if r.CheckpointFallback != "" {
		wrong = append(wrong, unknownFallback(r.CheckpointFallback)...)
	}
	wrong = append(wrong, checkTimeout(r.Timeout)...)
	if len(wrong) > 0 {
		slices.SortFunc(wrong, func(a, b FieldError) int { return cmp.Compare(a.Field, b.Field) })
		return several(reasonInvalidField, wrong)
	}
	r.Timeout = cmp.Or(r.Timeout, defaultTimeout)
	return nil
}

// recoveryOf is the PodMigration of a request. With a key it has a name that follows from
// it, as one that moves a pod.
func recoveryOf(r *RecoveryRequest, failed *v1alpha1.PodMigration, caller, key string) *v1alpha1.PodMigration {
	m := failed.Recovery(r.PodName, r.PreservePV)
	m.Labels = map[string]string{v1alpha1.AppLabel: v1alpha1.AppLabelValue, v1alpha1.CreatedByLabel: createdByAPI}
	m.Annotations = map[string]string{v1alpha1.RequestedByAnnotation: caller}
	m.Spec.TargetNode, m.Spec.TimeoutSeconds, m.Spec.Reason = r.TargetNode, int32(r.Timeout), "requested by "+caller
	m.Spec.Checkpoint.Fallback = r.CheckpointFallback
	if key != "" {
		m.GenerateName, m.Name = "", nameOf(caller, failed.Namespace, key)
		// A struct of plain fields is always encoded, and always in the same order.
		encoded, _ := json.Marshal(r)
		sum := sha256.Sum256(append([]byte("recover "+string(failed.UID)+" "), encoded...))
		m.Annotations[digestAnnotation] = hex.EncodeToString(sum[:])
	}
	return m
}

// notRecovered answers why the controller would not recover the pod.
func notRecovered(result migration.PreflightResult) *Error {
	refusal, code, field := result.Refusal, http.StatusConflict, "id"
	switch refusal.Reason {
	case decide.ReasonMigrationNotFound:
		code = http.StatusNotFound
	case decide.ReasonNameTaken:
		field = "pod_name"
	case decide.ReasonOwnerReplacesPod:
		code, field = http.StatusUnprocessableEntity, "pod_name"
	case decide.ReasonTargetNodeNotFound:
		code, field = http.StatusUnprocessableEntity, "target_node"
	case decide.ReasonProcessNotMovable:
		code, field = http.StatusUnprocessableEntity, "checkpoint_fallback"
	case decide.ReasonManifestMissing, decide.ReasonNodeAgentMissing:
		code = http.StatusUnprocessableEntity
	}
	return fail(code, refusal.Reason, field, "%s", refusal.Message)
}
