package restapi

import (
	"context"
	"fmt"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// plan answers with the status of the loop. It speaks of all namespaces, so it
// asks for a right in all of them.
func (s *Server) plan(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	if err := noParameters(r); err != nil {
		return err
	}
	ctx := r.Context()
	if err := s.o.Authorizer.Allow(ctx, caller, auth.Access{Verb: "list"}); err != nil {
		return err
	}
	paused, err := s.o.StatusStore.Pause(ctx)
	if err != nil {
		return err
	}
	status, err := s.loopStatus(ctx)
	if err != nil {
		return err
	}
	answer := Plan{Paused: paused}
	if status != nil {
		answer.Status, answer.AgeSeconds = LoopStatusOf(status), new(max(0, s.now().Sub(status.Time).Seconds()))
	}
	writeJSON(ctx, w, http.StatusOK, answer)
	return nil
}

// loopStatus reads the status of the loop; nil before the first cycle.
func (s *Server) loopStatus(ctx context.Context) (*rebalance.Status, error) {
	published, err := s.o.StatusStore.Published(ctx)
	if err != nil || published == nil {
		return nil, err
	}
	status, err := rebalance.ReadStatus(published)
	if err != nil {
		return nil, fmt.Errorf("understanding the status of the loop: %w", err)
	}
	return status, nil
}
