package restapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

const (
	keyHeader = "Idempotency-Key"
	// replayedHeader says that the answer is about an earlier request.
	replayedHeader = "Idempotency-Replayed"
	maxKey         = 255
	// digestAnnotation holds the digest of the request that a key was used for.
	digestAnnotation = v1alpha1.GroupName + "/request-digest"
	createdByAPI     = "api"
)

// create stores a PodMigration and answers with it. The controller carries it out.
func (s *Server) create(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	if err := noParameters(r); err != nil {
		return err
	}
	request, err := decodeRequest(w, r)
	if err != nil {
		return err
	}
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if err := s.o.Authorizer.Allow(ctx, caller, auth.Access{Verb: "create", Namespace: request.PodNamespace}); err != nil {
		return err
	}
	return s.store(ctx, w, migrationOf(request, caller.GetName(), key), key, refused)
}

// store answers with a migration that it stores, or that was stored for the key before.
// refused answers to what the controller would not carry out.
func (s *Server) store(ctx context.Context, w http.ResponseWriter, wanted *v1alpha1.PodMigration, key string, refused func(migration.PreflightResult) *Error) error {
	if earlier, err := s.replayed(ctx, wanted, key); err != nil || earlier != nil {
		return s.replay(ctx, w, earlier, err)
	}
	result, err := s.o.Preflight.Check(ctx, wanted)
	if err != nil {
		return err
	}
	if result.Refusal != nil {
		// A request with the same key may have been faster, and be the reason.
		if earlier, err := s.replayed(ctx, wanted, key); err != nil || earlier != nil {
			return s.replay(ctx, w, earlier, err)
		}
		return refused(result)
	}
	if result.Pod != nil {
		wanted.Spec.PodUID = result.Pod.UID // a recovery has no pod yet
	}
	if err := s.o.Writer.Create(ctx, wanted); key != "" && apierrors.IsAlreadyExists(err) {
		earlier, err := s.replayed(ctx, wanted, key)
		return s.replay(ctx, w, earlier, err)
	} else if err != nil {
		return err
	}
	view := viewOf(wanted)
	view.Queued, view.Message, view.FallbackReason = result.Waits != "", result.Waits, result.Stays
	s.accepted(ctx, w, view)
	return nil
}

func (s *Server) accepted(ctx context.Context, w http.ResponseWriter, view Migration) {
	w.Header().Set("Location", "/api/v1/migrations/"+view.ID)
	writeJSON(ctx, w, http.StatusAccepted, view)
}

// keyOf returns the idempotency key of a request; "" when it has none.
func keyOf(r *http.Request) (string, error) {
	keys := r.Header.Values(keyHeader)
	switch {
	case len(keys) == 0:
		return "", nil
	case len(keys) > 1 || strings.TrimSpace(keys[0]) == "" || len(keys[0]) > maxKey:
		return "", fail(http.StatusBadRequest, reasonInvalidField, keyHeader, "%s has to come once, with 1 to %d characters: a UUID is a good one", keyHeader, maxKey)
	}
	return strings.TrimSpace(keys[0]), nil
}

// replayed returns the migration that the same caller made with the same key; nil
// when there is none.
func (s *Server) replayed(ctx context.Context, wanted *v1alpha1.PodMigration, key string) (*v1alpha1.PodMigration, error) {
	if key == "" {
		return nil, nil
	}
	earlier := &v1alpha1.PodMigration{}
	err := s.o.Live.Get(ctx, client.ObjectKeyFromObject(wanted), earlier)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for an earlier request with this key: %w", err)
	}
	if earlier.Annotations[digestAnnotation] != wanted.Annotations[digestAnnotation] {
		return nil, fail(http.StatusUnprocessableEntity, reasonKeyReused, keyHeader,
			"the key was used before with another body, for migration %s: use a new key for a new request", earlier.UID)
	}
	return earlier, nil
}

// replay answers again to a request that was answered, or begun, before.
func (s *Server) replay(ctx context.Context, w http.ResponseWriter, earlier *v1alpha1.PodMigration, err error) error {
	if err != nil {
		return err
	}
	if earlier == nil {
		// It was there a moment ago, and was deleted by another client.
		return fail(http.StatusConflict, reasonNotFound, keyHeader, "the migration of this key was deleted meanwhile: use a new key")
	}
	w.Header().Set(replayedHeader, strconv.FormatBool(true))
	s.accepted(ctx, w, viewOf(earlier))
	return nil
}

// migrationOf is the PodMigration of a request. With a key it has a name that
// follows from the caller, the namespace and the key, so that the API server
// itself stores it only once, whichever replica is asked.
func migrationOf(request *MigrationRequest, caller, key string) *v1alpha1.PodMigration {
	claim, policy := v1alpha1.ClaimPolicy(""), v1alpha1.ClaimDelete
	if request.PreservePV {
		claim, policy = v1alpha1.ClaimAlways, v1alpha1.ClaimRetain
	}
	m := &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: request.PodNamespace, GenerateName: request.PodName + "-",
			Labels: map[string]string{
				v1alpha1.AppLabel: v1alpha1.AppLabelValue, v1alpha1.CreatedByLabel: createdByAPI,
			},
			Annotations: map[string]string{v1alpha1.RequestedByAnnotation: caller},
		},
		Spec: v1alpha1.PodMigrationSpec{
			PodName: request.PodName, SourceNode: request.SourceNode, TargetNode: request.TargetNode,
			TimeoutSeconds: int32(request.Timeout), ForceRestart: request.ForceRestart, Reason: "requested by " + caller,
			Checkpoint: v1alpha1.CheckpointSpec{Mode: request.CheckpointMode, Fallback: request.CheckpointFallback, Claim: claim, ReclaimPolicy: policy, MaxFreezeSeconds: int32(request.MaxFreeze)},
		},
	}
	if key != "" {
		m.GenerateName, m.Name = "", nameOf(caller, request.PodNamespace, key)
		m.Annotations[digestAnnotation] = request.digest()
	}
	return m
}

func nameOf(caller, namespace, key string) string {
	hash := sha256.New()
	for _, part := range []string{caller, namespace, key} {
		// The length keeps ("a","bc") apart from ("ab","c").
		fmt.Fprintf(hash, "%d:%s,", len(part), part)
	}
	return "api-" + hex.EncodeToString(hash.Sum(nil))[:32]
}

// refused answers why the controller would not move the pod.
func refused(result migration.PreflightResult) *Error {
	refusal, code, field := result.Refusal, http.StatusUnprocessableEntity, "pod_name"
	switch {
	case refusal.Reason == decide.ReasonPodNotFound:
		code = http.StatusNotFound
	case refusal.Reason == decide.ReasonSourceNodeMismatch:
		field = "source_node"
	case refusal.Reason == decide.ReasonTargetNodeNotFound, refusal.Reason == decide.ReasonTargetIsSource:
		field = "target_node"
	case refusal.Message == result.Stays:
		field = "checkpoint_mode"
	}
	return fail(code, refusal.Reason, field, "%s", refusal.Message)
}
