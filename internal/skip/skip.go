// Package skip decides, for all tests, what happens to one that cannot run here.
//
// A contributor without root, or on a machine without cgroups of its own, skips such
// tests and sees which. Where everything must be proven, they fail: .ci/run sets
//
//	REQUIRE_ROOT_TESTS=1
//
// Use it in every test that depends on the machine, instead of testing's own Skip:
//
//	skip.WithoutRoot(t, "it mounts an overlay")
//	if err := os.Mkdir(cgroup, 0o755); err != nil {
//		skip.Because(t, "cgroups cannot be created here: %v", err)
//	}
package skip

import (
	"os"
	"testing"
)

// RequireRootTests is the environment variable that turns skips into failures; any
// value but "" and "0" does.
const RequireRootTests = "REQUIRE_ROOT_TESTS"

// WithoutRoot ends a test that needs root where there is none. reason says what for.
func WithoutRoot(t testing.TB, reason string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Because(t, "needs root: %s", reason)
	}
}

// Because ends a test that cannot run on this machine: it is skipped, or fails where
// RequireRootTests is set.
func Because(t testing.TB, format string, arguments ...any) {
	t.Helper()
	if value := os.Getenv(RequireRootTests); value != "" && value != "0" {
		t.Fatalf("must run, since "+RequireRootTests+" is set, and cannot: "+format, arguments...)
	} else {
		t.Skipf(format, arguments...)
	}
}
