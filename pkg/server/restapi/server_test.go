package restapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// What the API server says decides whether a client is to blame, and may try again.
func TestAnswersToFailuresOfTheCluster(t *testing.T) {
	group := schema.GroupResource{Resource: "podmigrations"}
	tests := map[string]struct {
		err        error
		code       int
		reason     string
		retryAfter string
	}{
		"quota":             {apierrors.NewForbidden(group, "m", errors.New("exceeded quota")), 422, reasonNotAdmitted, ""},
		"invalid":           {apierrors.NewInvalid(schema.GroupKind{}, "m", nil), 422, reasonNotAdmitted, ""},
		"no such namespace": {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "ns"), 404, reasonNotFound, ""},
		"its own timeout":   {apierrors.NewServerTimeout(group, "create", 1), 503, reasonUnavailable, "1"},
		"too busy":          {apierrors.NewTooManyRequests("busy", 1), 503, reasonUnavailable, "1"},
		"a bug in it":       {apierrors.NewInternalError(errors.New("etcd")), 500, reasonInternal, ""},
		"away":              {errors.New("connection refused"), 503, reasonUnavailable, "1"},
		"too slow":          {context.DeadlineExceeded, 503, reasonUnavailable, "1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return test.err }}, nil)
			answer := s.send("POST", "/api/v1/migrations", goodBody)
			if answer.Code != test.code || !strings.Contains(answer.Body.String(), `"reason":"`+test.reason+`"`) || answer.Header().Get("Retry-After") != test.retryAfter {
				t.Errorf("answered with %d %v %s, want %d %s", answer.Code, answer.Header(), answer.Body, test.code, test.reason)
			}
		})
	}
}

func TestABugEndsOneRequestOnly(t *testing.T) {
	s := newServer(t, interceptor.Funcs{}, nil)
	if answer := s.send("POST", "/api/v1/migrations", strings.Replace(goodBody, "train", "panic", 1)); answer.Code != http.StatusInternalServerError ||
		!strings.Contains(answer.Body.String(), reasonInternal) {
		t.Errorf("answered with %d %s", answer.Code, answer.Body)
	}
	if answer := s.send("POST", "/api/v1/migrations", goodBody); answer.Code != http.StatusAccepted {
		t.Errorf("the next one is answered with %d %s", answer.Code, answer.Body)
	}
	for labels, want := range map[[3]string]float64{{"/api/v1/migrations", "POST", "500"}: 1, {"/api/v1/migrations", "POST", "202"}: 1} {
		if got := testutil.ToFloat64(s.metrics.requests.WithLabelValues(labels[:]...)); got != want {
			t.Errorf("%v counted %v times, want %v", labels, got, want)
		}
	}
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	s := newServer(t, interceptor.Funcs{}, nil)
	for range maxInFlight {
		s.inFlight <- struct{}{}
	}
	if answer := s.send("GET", "/health", ""); answer.Code != http.StatusServiceUnavailable || answer.Header().Get("Retry-After") == "" {
		t.Errorf("answered with %d", answer.Code)
	}
	<-s.inFlight
	if answer := s.send("GET", "/health", ""); answer.Code != http.StatusOK {
		t.Errorf("with room again: %d %s", answer.Code, answer.Body)
	}
}

func TestReadiness(t *testing.T) {
	synced := false
	s := newServer(t, interceptor.Funcs{}, func(o *Options) { o.Synced = func() bool { return synced } })
	ready := func() int { return s.send("GET", "/readyz", "").Code }
	if code := ready(); code != http.StatusServiceUnavailable {
		t.Errorf("before the caches have synced: %d", code)
	}
	synced = true
	if code := ready(); code != http.StatusOK {
		t.Errorf("afterwards: %d", code)
	}
	close(s.ending)
	if code := ready(); code != http.StatusServiceUnavailable {
		t.Errorf("at the end: %d", code)
	}
}

func TestThePageIsServedWithoutAToken(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("page " + r.URL.Path)) })
	s := newServer(t, interceptor.Funcs{}, func(o *Options) { o.Page = page })
	for path, want := range map[string]string{"/": "page /", "/assets/app.js": "page /assets/app.js", "/other": reasonNotFound} {
		if answer := s.send("GET", path, ""); !strings.Contains(answer.Body.String(), want) {
			t.Errorf("GET %s: %s", path, answer.Body)
		}
	}
	if answer := newServer(t, interceptor.Funcs{}, nil).send("GET", "/", ""); answer.Code != http.StatusNotFound {
		t.Errorf("without a page / is answered with %d", answer.Code)
	}
}
