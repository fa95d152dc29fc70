package restapi

import (
	"context"
	"net/http"
	"runtime/debug"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/klog/v2"
)

// maxInFlight bounds the requests that are worked on at the same time. Streams
// have a bound of their own.
const maxInFlight = 256

const streamPath = "/api/v1/watch"

// route is one operation of the API.
type route struct {
	method, path string
	// open routes ask nobody who they are.
	open bool
	// stream lasts as long as its client listens.
	stream bool
	serve  func(w http.ResponseWriter, r *http.Request, caller user.Info) error
}

// table lists every operation that openapi.yaml describes.
func (s *Server) table() []route {
	return []route{
		{method: "POST", path: "/api/v1/migrations", serve: s.create},
		{method: "GET", path: "/api/v1/migrations", serve: s.list},
		{method: "GET", path: "/api/v1/migrations/{id}", serve: s.get},
		{method: "DELETE", path: "/api/v1/migrations/{id}", serve: s.cancel},
		{method: "POST", path: "/api/v1/migrations/{id}/recover", serve: s.recoverPod},
		{method: "GET", path: "/api/v1/plan", serve: s.plan},
		{method: "GET", path: "/api/v1/nodes", serve: s.nodes},
		{method: "GET", path: "/api/v1/metrics", serve: s.figures},
		{method: "GET", path: streamPath, serve: s.watch, stream: true},
		{method: "GET", path: "/health", serve: s.health, open: true},
		{method: "GET", path: "/readyz", serve: s.ready, open: true},
		{method: "GET", path: "/openapi.json", serve: s.document, open: true},
		{method: "GET", path: "/api/v1/openapi.json", serve: s.document, open: true},
	}
}

func (s *Server) routes() (http.Handler, error) {
	if err := checkDocument(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, r := range s.table() {
		mux.Handle(r.method+" "+r.path, s.handle(r))
	}
	if s.o.Page != nil {
		mux.Handle("GET /{$}", s.o.Page)
		mux.Handle("GET /assets/", s.o.Page)
	}
	return s.observed(mux), nil
}

// handle is what every operation has around it.
func (s *Server) handle(op route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !op.stream {
			ctx, cancel := context.WithTimeout(r.Context(), handlerTimeout)
			defer cancel()
			r = r.WithContext(ctx)
			select {
			case s.inFlight <- struct{}{}:
				defer func() { <-s.inFlight }()
			default:
				//nolint:contextcheck // It is the request's.
				writeError(r.Context(), w, overloaded("too many requests are in flight"))
				return
			}
		}
		if err := s.pass(w, r, op); err != nil {
			writeError(r.Context(), w, err)
		}
	})
}

func overloaded(message string) *Error {
	e := fail(http.StatusServiceUnavailable, reasonUnavailable, "", "%s: try again", message)
	e.retryAfter = retryLater
	return e
}

// pass lets a caller through who is known, and does not ask too often.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, op route) error {
	if op.open {
		return op.serve(w, r, nil)
	}
	caller, err := s.o.Authorizer.Identify(r)
	if err != nil {
		return err
	}
	if seen, ok := w.(*recorder); ok {
		seen.caller = caller.GetName()
	}
	if wait := s.limiter.Reserve(caller.GetName()); wait > 0 {
		e := fail(http.StatusTooManyRequests, reasonTooManyRequests, "", "you ask more than %g times a second: wait as long as Retry-After says", s.o.Rate)
		e.retryAfter = wait
		return e
	}
	return op.serve(w, r, caller)
}

// observed counts, logs and survives every request, also those of no route.
func (s *Server) observed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := s.now()
		seen := &recorder{ResponseWriter: w}
		logger := klog.FromContext(r.Context()).WithValues("method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)
		r = r.WithContext(klog.NewContext(r.Context(), logger))
		handler, pattern := mux.Handler(r)
		defer func() { //nolint:contextcheck // It is the request's.
			if reason := recover(); reason != nil {
				logger.Error(nil, "Request panicked", "reason", reason, "stack", string(debug.Stack()))
				if seen.code == 0 {
					writeError(r.Context(), seen, fail(http.StatusInternalServerError, reasonInternal, "", "the server has a bug; its log says more"))
				}
			}
			s.finish(logger, r, pattern, seen, began)
		}()
		if pattern == "" {
			noRoute(seen, r, handler)
			return
		}
		// The mux itself serves, so that it sets the values of the path.
		mux.ServeHTTP(seen, r)
	})
}

func (s *Server) finish(logger klog.Logger, r *http.Request, pattern string, seen *recorder, began time.Time) {
	took := s.now().Sub(began)
	s.metrics.observe(r.Method, pattern, seen.code, took)
	level := 2
	if r.Method == http.MethodPost || r.Method == http.MethodDelete || seen.code >= http.StatusInternalServerError {
		level = 0
	}
	logger.V(level).Info("Request", "code", seen.code, "user", seen.caller, "seconds", took.Seconds())
}

// noRoute answers what the mux would, as an error of this API.
func noRoute(w http.ResponseWriter, r *http.Request, refusal http.Handler) {
	answer := &discarded{header: http.Header{}}
	refusal.ServeHTTP(answer, r)
	e := fail(http.StatusNotFound, reasonNotFound, "", "there is nothing at %s: /openapi.json lists all paths", r.URL.Path)
	if answer.code == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", answer.header.Get("Allow"))
		e = fail(http.StatusMethodNotAllowed, reasonMethod, "", "%s is not allowed here, only %s", r.Method, answer.header.Get("Allow"))
	}
	writeError(r.Context(), w, e)
}

// recorder remembers the status of an answer and who asked.
type recorder struct {
	http.ResponseWriter
	code   int
	caller string
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(content []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(content)
}

// Unwrap lets http.ResponseController find what the writer can do.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// discarded takes an answer that nobody gets.
type discarded struct {
	header http.Header
	code   int
}

func (d *discarded) Header() http.Header               { return d.header }
func (d *discarded) WriteHeader(code int)              { d.code = code }
func (d *discarded) Write(content []byte) (int, error) { return len(content), nil }
