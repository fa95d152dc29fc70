//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
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

// breakpoints are reported every step that the rebalancer takes, and hold migrations
// at those that a test has named. All tests share them: the rebalancer of this suite
// is built with breakpoints, and what is not armed is answered at once.
type breakpoints struct {
	server *httptest.Server

	mu   sync.Mutex
	seen map[string][]string // steps by migration
	arms map[string]*arm     // by migration, until it is there
}

// An arm holds migrations at a step of each.
type arm struct {
	steps   map[string]string // by migration, until it is there
	reached chan struct{}     // closed when all are
	proceed chan struct{}     // closed to let them continue
}

func newBreakpoints() *breakpoints {
	b := &breakpoints{seen: map[string][]string{}, arms: map[string]*arm{}}
	b.server = httptest.NewServer(b)
	return b
}

func (b *breakpoints) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	proceed := b.at(r.URL.Query().Get("migration"), r.URL.Query().Get("step"))
	if proceed == nil {
		return
	}
	select {
	case <-proceed:
	case <-r.Context().Done():
	}
}

// at notes a step of a migration; what it returns, unless nil, is to be waited for.
func (b *breakpoints) at(migration, step string) (proceed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.seen[migration], step) {
		b.seen[migration] = append(b.seen[migration], step)
	}
	a := b.arms[migration]
	if a == nil || a.steps[migration] != step {
		return nil
	}
	// Once: the successor of a killed rebalancer must not be held there again.
	delete(b.arms, migration)
	if delete(a.steps, migration); len(a.steps) == 0 {
		close(a.reached)
	}
	return a.proceed
}

// arm holds each migration, named namespace/name, at a step, the next time that it
// comes there. reached is closed when all have.
func (b *breakpoints) arm(t testing.TB, steps map[string]string) (reached <-chan struct{}, proceed func()) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	a := &arm{steps: maps.Clone(steps), reached: make(chan struct{}), proceed: make(chan struct{})}
	for migration := range steps {
		b.arms[migration] = a
	}
	proceed = sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for migration := range a.steps {
			delete(b.arms, migration)
		}
		close(a.proceed)
	})
	t.Cleanup(proceed)
	return a.reached, proceed
}

// armOne holds one migration at a step: await waits until it is there, proceed lets
// it continue.
func (b *breakpoints) armOne(t testing.TB, namespace, migration, step string) (await, proceed func()) {
	t.Helper()
	reached, proceed := b.arm(t, map[string]string{namespace + "/" + migration: step})
	return func() {
		t.Helper()
		select {
		case <-reached:
		case <-time.After(3 * time.Minute):
			t.Fatalf("the migration never came to %q; it was at %v", step, b.boundaries(namespace+"/"+migration))
		}
	}, proceed
}

// missing are the migrations of a namespace that have not come to their step.
func (b *breakpoints) missing(namespace string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(b.arms)), func(migration string) bool { return !strings.HasPrefix(migration, namespace+"/") })
}

// boundaries are the steps of a migration that began a phase or requested something
// of the agents.
func (b *breakpoints) boundaries(migration string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.seen[migration]), func(step string) bool {
		return !strings.HasPrefix(step, "phase ") && !strings.HasPrefix(step, "checkpoint ")
	})
}

// startRebalancer starts the rebalancer of this suite: it reports its steps to the
// breakpoints, and the API server calls its webhook through the line. Benchmarks
// measure the one that is shipped.
func startRebalancer() error {
	if flag.Lookup("test.bench").Value.String() != "" {
		return env.cluster.StartComponent(devcluster.Rebalancer)
	}
	return env.cluster.StartWithBreakpoints(env.breakpoints.server.URL, env.line.flag())
}

// replaceRebalancer stops the rebalancer as a kubelet would, and returns when the one
// that start has started serves.
func replaceRebalancer(ctx context.Context, start func() error) error {
	if err := env.cluster.StopComponent(ctx, devcluster.Rebalancer); err != nil {
		return err
	}
	return errors.Join(start(), env.cluster.AwaitComponent(ctx, devcluster.Rebalancer))
}
