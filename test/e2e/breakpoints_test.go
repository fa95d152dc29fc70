//go:build e2e

package e2e

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/test/devcluster"
)

// breakpoints hears of every step that the rebalancer takes, and stops migrations
// at those that a test has named.
type breakpoints struct {
	server *httptest.Server
	// args are flags of the rebalancer beside the usual ones.
	args []string

	mu      sync.Mutex
	seen    map[string][]string // steps by migration
	stopAt  map[string]string   // one step by migration, until it is there
	reached chan struct{}       // closed when all are
	goOn    chan struct{}       // closed to leave them
}

// newBreakpoints runs the rebalancer that has them, until the test ends.
func newBreakpoints(t testing.TB, args ...string) *breakpoints {
	t.Helper()
	b := &breakpoints{args: args, seen: map[string][]string{}}
	b.server = httptest.NewServer(b)
	if err := env.cluster.StopComponent(t.Context(), devcluster.Rebalancer); err != nil {
		t.Fatal(err)
	}
	if err := b.startRebalancer(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.arm(nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := env.cluster.StopComponent(ctx, devcluster.Rebalancer); err != nil {
			t.Error(err)
		}
		if err := env.cluster.StartComponent(devcluster.Rebalancer); err != nil {
			t.Error(err)
		}
		b.server.Close()
	})
	return b
}

func (b *breakpoints) startRebalancer() error {
	return env.cluster.StartWithBreakpoints(b.server.URL, b.args...)
}

func (b *breakpoints) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	migration, step := r.URL.Query().Get("migration"), r.URL.Query().Get("step")
	b.mu.Lock()
	if !slices.Contains(b.seen[migration], step) {
		b.seen[migration] = append(b.seen[migration], step)
	}
	var wait chan struct{}
	if at, armed := b.stopAt[migration]; armed && at == step {
		wait = b.goOn
		// Once: the successor of a killed rebalancer must not stop there again.
		if delete(b.stopAt, migration); len(b.stopAt) == 0 {
			close(b.reached)
		}
	}
	b.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-r.Context().Done():
		}
	}
}

// arm makes the rebalancer stop each migration, named namespace/name, at a step,
// the next time that it comes there. reached is closed when all have.
func (b *breakpoints) arm(steps map[string]string) (reached <-chan struct{}, goOn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen, b.stopAt = map[string][]string{}, maps.Clone(steps)
	b.reached, b.goOn = make(chan struct{}), make(chan struct{})
	return b.reached, sync.OnceFunc(func() { close(b.goOn) })
}

// armOne stops one migration at a step: await waits until it is there, goOn lets it
// go on.
func (b *breakpoints) armOne(t testing.TB, namespace, migration, step string) (await, goOn func()) {
	t.Helper()
	reached, goOn := b.arm(map[string]string{namespace + "/" + migration: step})
	t.Cleanup(goOn)
	return func() {
		t.Helper()
		select {
		case <-reached:
		case <-time.After(3 * time.Minute):
			t.Fatalf("the migration never came to %q; it was at %v", step, b.boundaries(namespace+"/"+migration))
		}
	}, goOn
}

// missing are the migrations that have not come to their step.
func (b *breakpoints) missing() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.stopAt))
}

// boundaries are the steps of a migration that began a phase or asked something of
// the agents.
func (b *breakpoints) boundaries(migration string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.seen[migration]), func(step string) bool {
		return !strings.HasPrefix(step, "phase ") && !strings.HasPrefix(step, "checkpoint ")
	})
}
