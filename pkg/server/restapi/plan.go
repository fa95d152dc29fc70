package restapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

// Plan is what the loop saw and decided last, and whether it is paused.
type Plan struct {
	// Status is that of the loop as its leader has written it; null before its
	// first cycle.
	Status json.RawMessage `json:"status"`
	Paused rebalance.Pause `json:"paused"`
	// AgeSeconds is how old the status is; null without one.
	AgeSeconds *float64 `json:"age_seconds"`
}

// judgement is the part of a status that is understood here.
type judgement struct {
	Time    time.Time               `json:"time"`
	Skipped []rebalance.SkippedNode `json:"skipped"`
	Plan    struct {
		Before struct {
			Nodes []struct {
				Name         string `json:"name"`
				Overutilized bool   `json:"overutilized"`
			} `json:"nodes"`
		} `json:"before"`
	} `json:"plan"`
}

// plan answers with the status of the loop. It speaks of all namespaces, so it
// asks for a right in all of them.
func (s *Server) plan(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	if err := noParameters(r); err != nil {
		return err
	}
	ctx := r.Context()
	if err := s.o.Gate.Allow(ctx, caller, auth.Access{Verb: "list"}); err != nil {
		return err
	}
	paused, err := s.o.StatusStore.Pause(ctx)
	if err != nil {
		return err
	}
	status, judged, err := s.judged(ctx)
	if err != nil {
		return err
	}
	answer := Plan{Status: status, Paused: paused}
	if status != nil {
		answer.AgeSeconds = new(max(0, s.now().Sub(judged.Time).Seconds()))
	}
	writeJSON(ctx, w, http.StatusOK, answer)
	return nil
}

// judged reads the status of the loop; nil before the first cycle.
func (s *Server) judged(ctx context.Context) (json.RawMessage, judgement, error) {
	var judged judgement
	status, err := s.o.StatusStore.Published(ctx)
	if err != nil || status == nil {
		return nil, judged, err
	}
	if err := json.Unmarshal(status, &judged); err != nil {
		return nil, judged, fmt.Errorf("understanding the status of the loop: %w", err)
	}
	return status, judged, nil
}
