package auth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

func TestIsOutage(t *testing.T) {
	refused := &url.Error{Op: "Post", URL: "https://api", Err: errors.New("connection refused")}
	tests := map[string]struct {
		err  error
		want bool
	}{
		"none":                    {nil, false},
		"unknown token":           {errors.New("invalid bearer token"), false},
		"several about the token": {utilerrors.NewAggregate([]error{errors.New("invalid bearer token"), errors.New("token has expired")}), false},
		"no connection":           {utilerrors.NewAggregate([]error{errors.New("invalid bearer token"), refused}), true},
		"API server busy":         {apierrors.NewTooManyRequests("busy", 1), true},
		"no right to ask":         {fmt.Errorf("asking: %w", apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", nil)), true},
		"too slow":                {context.DeadlineExceeded, true},
		"client went away":        {context.Canceled, true},
	}
	for name, test := range tests {
		if got := isOutage(test.err); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestLimit(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	l := NewRateLimiter(2, 3, func() time.Time { return now })
	for i := range 3 {
		if wait := l.Reserve("anna"); wait != 0 {
			t.Errorf("request %d has to wait %v", i, wait)
		}
	}
	for range 2 {
		// Whoever is refused does not push the next one further away.
		if wait := l.Reserve("anna"); wait != 500*time.Millisecond || Seconds(wait) != 1 {
			t.Errorf("the fourth has to wait %v, want 500ms", wait)
		}
	}
	if wait := l.Reserve("berta"); wait != 0 {
		t.Errorf("another caller has to wait %v", wait)
	}
	now = now.Add(500 * time.Millisecond)
	if wait := l.Reserve("anna"); wait != 0 {
		t.Errorf("half a second later it has to wait %v", wait)
	}
	unlimited := NewRateLimiter(0, 1, func() time.Time { return now })
	for range 100 {
		if wait := unlimited.Reserve("anna"); wait != 0 {
			t.Fatalf("without a limit it has to wait %v", wait)
		}
	}
}
