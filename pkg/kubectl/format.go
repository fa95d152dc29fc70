package kubectl

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/liggitt/tabwriter"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
)

// newTable lines up columns as kubectl does. Rows that come after a Flush keep the
// widths of those before.
func newTable(w io.Writer) *tabwriter.Writer { return printers.GetNewTabWriter(w) }

// terminalWidth is 0 for what is no terminal.
func terminalWidth(w io.Writer) int {
	file, is := w.(*os.File)
	if !is || !term.IsTerminal(int(file.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

func texts[T ~string](values []T) []string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = string(value)
	}
	return texts
}

func listed[T ~string](values []T) string { return strings.Join(texts(values), ", ") }

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// elapsed writes a duration as short as it is still telling.
func elapsed(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", max(0, d).Seconds())
	}
	return d.Round(time.Second).String()
}

func (c *cli) age(at time.Time) string {
	if at.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(c.now().Sub(at))
}

func plural(n int, what string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// amount writes a quantity of a resource: CPU in millicores, memory in Mi or Gi.
func amount(name corev1.ResourceName, q resource.Quantity) string {
	switch name {
	case corev1.ResourceCPU:
		return millicores(q.MilliValue())
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return bytesOf(q.Value())
	}
	return q.String()
}

func millicores(m int64) string { return fmt.Sprintf("%dm", m) }

func bytesOf(b int64) string {
	const mi, gi = 1 << 20, 1 << 30
	switch {
	case b == 0:
		return "0"
	case b >= 10*gi || b <= -10*gi:
		return fmt.Sprintf("%.1fGi", float64(b)/gi)
	case b >= mi || b <= -mi:
		return fmt.Sprintf("%.0fMi", float64(b)/mi)
	}
	return fmt.Sprintf("%dKi", b>>10)
}

// percentOf is a share of a whole; "-" of nothing.
func percentOf(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(part)/float64(whole))
}
