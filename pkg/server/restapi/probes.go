package restapi

import (
	"net/http"

	"k8s.io/apiserver/pkg/authentication/user"
)

// Health is the answer of /health and /readyz.
type Health struct {
	Status string `json:"status"`
}

// health answers as long as the process does.
func (s *Server) health(w http.ResponseWriter, r *http.Request, _ user.Info) error {
	writeJSON(r.Context(), w, http.StatusOK, Health{Status: "ok"})
	return nil
}

// ready answers with 503 until the caches have seen the cluster.
func (s *Server) ready(w http.ResponseWriter, r *http.Request, _ user.Info) error {
	if err := s.Ready(r); err != nil {
		return err
	}
	writeJSON(r.Context(), w, http.StatusOK, Health{Status: "ok"})
	return nil
}

// Ready says why the server cannot answer yet, or not any more; nil when it can.
// It is a check for the probes of the process too.
func (s *Server) Ready(*http.Request) error {
	select {
	case <-s.ending:
		return overloaded("the server is ending")
	default:
	}
	if !s.o.Synced() {
		return overloaded("the caches have not seen the cluster yet")
	}
	return nil
}
