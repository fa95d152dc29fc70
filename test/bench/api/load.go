package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/ai-storage/orchestrator/pkg/server/restapi"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// postTimeout bounds how long a client tries one POST.
const postTimeout = 2 * time.Minute

// job is one POST: its pod, its key and, when it was accepted, its id.
type job struct {
	client    int
	body, key string
}

// load is what the clients do, and what they see.
type load struct {
	world     *world
	posts     int
	jobs      [][]job
	killAfter int

	mu       sync.Mutex
	accepted map[job]string
	attempts []time.Duration
	whole    []time.Duration
	failed   int
	replayed int
	killed   time.Time
	outage   time.Duration
	took     time.Duration
	kill     chan struct{}
}

func newLoad(w *world, o options) *load {
	l := &load{world: w, posts: o.posts, killAfter: o.posts / 2, jobs: make([][]job, o.clients), accepted: map[job]string{}, kill: make(chan struct{})}
	for i := range o.posts {
		source, target := w.nodes[i%len(w.nodes)], w.nodes[(i+1)%len(w.nodes)]
		body, _ := json.Marshal(restapi.MigrationRequest{PodName: podName(i), PodNamespace: namespace, SourceNode: source, TargetNode: target})
		of := i % o.clients
		l.jobs[of] = append(l.jobs[of], job{client: of, body: string(body), key: string(uuid.NewUUID())})
	}
	return l
}

// run sends everything, and kills the rebalancer when half of it was accepted.
func (l *load) run(ctx context.Context) error {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, jobs := range l.jobs {
		group.Go(func() error {
			for _, j := range jobs {
				if err := l.until202(ctx, j); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		select {
		case <-l.kill:
			return l.crash()
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	err := group.Wait()
	l.took = time.Since(began)
	return err
}

// crash ends the process as a power cut would, and starts it again.
func (l *load) crash() error {
	l.mu.Lock()
	l.killed = time.Now()
	l.mu.Unlock()
	if err := l.world.cluster.KillComponent(devcluster.Rebalancer); err != nil {
		return fmt.Errorf("killing the rebalancer: %w", err)
	}
	return l.world.cluster.StartComponent(devcluster.Rebalancer)
}

// until202 repeats a POST with its key until it is accepted.
func (l *load) until202(ctx context.Context, j job) error {
	began := time.Now()
	for {
		sent := time.Now()
		answer, err := l.world.post(ctx, j)
		if err == nil && answer.code == http.StatusAccepted {
			l.note(j, answer, sent, began)
			return nil
		}
		if err == nil && answer.code < http.StatusInternalServerError && answer.code != http.StatusTooManyRequests {
			return fmt.Errorf("POST %s was answered with %d: %s", j.body, answer.code, answer.text)
		}
		if time.Since(began) > postTimeout || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("POST %s was not accepted within %s, last %d", j.body, postTimeout, answer.code), err)
		}
		l.mu.Lock()
		l.failed++
		l.mu.Unlock()
		time.Sleep(max(100*time.Millisecond, answer.retryAfter))
	}
}

func (l *load) note(j job, a answer, sent, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.accepted[j] = a.id
	l.attempts, l.whole = append(l.attempts, now.Sub(sent)), append(l.whole, now.Sub(began))
	if a.replayed {
		l.replayed++
	}
	if !l.killed.IsZero() && l.outage == 0 && sent.After(l.killed) {
		l.outage = now.Sub(l.killed)
	}
	if len(l.accepted) == l.killAfter {
		close(l.kill)
	}
}

// answer to one POST.
type answer struct {
	code       int
	id, text   string
	replayed   bool
	retryAfter time.Duration
}

func (w *world) post(ctx context.Context, j job) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cluster.APIURL()+"/api/v1/migrations", bytes.NewBufferString(j.body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+w.tokens[j.client])
	request.Header.Set("Idempotency-Key", j.key)
	response, err := w.clients[j.client].Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{code: response.StatusCode, text: string(body), replayed: response.Header.Get("Idempotency-Replayed") == "true"}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		a.retryAfter = time.Duration(seconds) * time.Second
	}
	if a.code == http.StatusAccepted {
		var m restapi.Migration
		if err := json.Unmarshal(body, &m); err != nil {
			return answer{}, fmt.Errorf("understanding the answer %s: %w", body, err)
		}
		a.id = m.ID
	}
	return a, nil
}
