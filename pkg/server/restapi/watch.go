package restapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/klog/v2"

	"github.com/ai-storage/orchestrator/pkg/server/restapi/auth"
)

const (
	// heartbeat keeps proxies from taking a quiet stream for a dead one.
	heartbeat = 15 * time.Second
	// writeWithin is how long a client may take for one event.
	writeWithin = 10 * time.Second
	// checkAgain is how soon a caller who has lost a right, or whose token has
	// expired, gets no more events.
	checkAgain = 30 * time.Second
	// nodesEvery and planEvery are how often the nodes are published, and how often a
	// new plan is looked for.
	nodesEvery = 10 * time.Second
	planEvery  = 2 * time.Second
)

// PlanChanged is the event for a new plan.
type PlanChanged struct {
	Time time.Time `json:"time"`
}

// watch streams changes as server-sent events until the client goes, falls behind,
// loses its right, or the server ends. It starts with every unfinished migration.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	values, err := parametersOf(r, "namespace")
	if err != nil {
		return err
	}
	namespace, err := namespaceOf(values)
	if err != nil {
		return err
	}
	access := auth.Access{Verb: "list", Namespace: namespace}
	if err := s.o.Authorizer.Allow(r.Context(), caller, access); err != nil {
		return err
	}
	// Subscribing before reading misses nothing in between.
	subscriber := s.broadcaster.subscribe(namespace)
	if subscriber == nil {
		return overloaded("too many clients are watching")
	}
	defer s.broadcaster.unsubscribe(subscriber)
	migrations, err := s.migrations(r.Context(), namespace)
	if err != nil {
		return err
	}
	out := newStream(w)
	w.Header().Set("Content-Type", "text/event-stream")
	// Proxies such as nginx would collect events.
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	for i := range migrations {
		if m := &migrations[i]; !m.Status.Phase.IsFinished() {
			if out.send(event{"migration", m.Namespace, viewOf(m)}) != nil {
				return nil
			}
		}
	}
	s.stream(r, out, subscriber, access)
	return nil
}

// stream sends the events of a subscriber. Its head was sent, so an error can only end it.
func (s *Server) stream(r *http.Request, out *stream, sub *subscriber, access auth.Access) {
	logger := klog.FromContext(r.Context())
	beat, check := time.NewTicker(heartbeat), time.NewTicker(checkAgain)
	defer beat.Stop()
	defer check.Stop()
	err := out.comment("connected")
	for err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-s.ending:
			_ = out.comment("the server is shutting down: reconnect")
			return
		case <-sub.dropped:
			err = errors.New("the client reads too slowly")
		case e := <-sub.events:
			err = out.send(e)
		case <-beat.C:
			err = out.comment("heartbeat")
		case <-check.C:
			err = s.stillMay(r, access)
		}
	}
	logger.V(2).Info("Stream ended", "reason", err)
}

// stillMay looks at token and rights again.
func (s *Server) stillMay(r *http.Request, access auth.Access) error {
	caller, err := s.o.Authorizer.Identify(r)
	if err != nil {
		return err
	}
	return s.o.Authorizer.Allow(r.Context(), caller, access)
}

// stream writes server-sent events.
type stream struct {
	w          http.ResponseWriter
	controller *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	return &stream{w: w, controller: http.NewResponseController(w)}
}

func (s *stream) send(e event) error {
	data, err := json.Marshal(e.data)
	if err != nil {
		return fmt.Errorf("encoding event %s: %w", e.name, err)
	}
	return s.write("event: %s\ndata: %s\n\n", e.name, data)
}

func (s *stream) comment(text string) error { return s.write(": %s\n\n", text) }

// write gives up on a client that does not read.
func (s *stream) write(format string, args ...any) error {
	// The read deadline of the server would end a stream that only writes.
	if err := errors.Join(s.controller.SetReadDeadline(time.Time{}), s.controller.SetWriteDeadline(time.Now().Add(writeWithin))); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, format, args...); err != nil {
		return err
	}
	return s.controller.Flush()
}

// watchLoop publishes the plan and the nodes as long as there are subscribers, until the
// context ends.
func (s *Server) watchLoop(ctx context.Context) {
	plans, nodes := time.NewTicker(planEvery), time.NewTicker(nodesEvery)
	defer plans.Stop()
	defer nodes.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-plans.C:
			last = s.publishPlan(ctx, last)
		case <-nodes.C:
			s.publishNodes(ctx)
		}
	}
}

func (s *Server) publishPlan(ctx context.Context, last time.Time) time.Time {
	if !s.broadcaster.hasSubscribers() {
		return last
	}
	status, err := s.loopStatus(ctx)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot publish the plan", "err", err)
		return last
	}
	if status != nil && status.Time.After(last) {
		s.broadcaster.publish(event{name: "plan", data: PlanChanged{Time: status.Time}})
		return status.Time
	}
	return last
}

func (s *Server) publishNodes(ctx context.Context) {
	if !s.broadcaster.hasSubscribers() {
		return
	}
	nodes, err := s.nodesNow(ctx)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot publish the nodes", "err", err)
		return
	}
	s.broadcaster.publish(event{name: "nodes", data: nodes})
}
