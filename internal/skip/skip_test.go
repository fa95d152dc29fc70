package skip

import (
	"fmt"
	"testing"
)

// ending records how a test was ended.
type ending struct {
	testing.TB
	skipped, failed string
}

func (e *ending) Helper() {}

func (e *ending) Skipf(format string, arguments ...any) {
	e.skipped = fmt.Sprintf(format, arguments...)
}

func (e *ending) Fatalf(format string, arguments ...any) {
	e.failed = fmt.Sprintf(format, arguments...)
}

func TestARequiredTestIsNotSkipped(t *testing.T) {
	for value, required := range map[string]bool{"": false, "0": false, "1": true} {
		t.Setenv(RequireRootTests, value)
		e := &ending{}
		Because(e, "no %s here", "cgroups")
		if (e.failed != "") != required || (e.skipped != "") == required {
			t.Errorf("%s=%q: skipped %q, failed %q", RequireRootTests, value, e.skipped, e.failed)
		}
	}
}
