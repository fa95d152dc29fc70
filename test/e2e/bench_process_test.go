//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// processMove is what one move with memory cost, and what delete and recreate cost
// in its turn. All are seconds, but for the bytes.
type processMove struct {
	Stop     float64 `json:"stop"`
	Dump     float64 `json:"dump"`
	Copy     float64 `json:"copyAndSeal"`
	Restore  float64 `json:"verifyAndRestore"`
	Released float64 `json:"released"`
	Seen     float64 `json:"seenToWork"`
	Total    float64 `json:"total"`
	Bytes    float64 `json:"bytesCopied"`
	Recreate float64 `json:"recreate"`
	WarmUp   float64 `json:"warmUp"`
}

var processFigures = []struct {
	heading string
	of      func(processMove) float64
}{
	{"stop (s)", func(m processMove) float64 { return m.Stop }},
	{"– freeze and dump", func(m processMove) float64 { return m.Dump }},
	{"– copy and seal", func(m processMove) float64 { return m.Copy }},
	{"– verify and restore", func(m processMove) float64 { return m.Restore }},
	{"– release and evict", func(m processMove) float64 { return m.Released }},
	{"– seen to be Ready", func(m processMove) float64 { return m.Seen }},
	{"total time (s)", func(m processMove) float64 { return m.Total }},
	{"copied while frozen (MiB)", func(m processMove) float64 { return m.Bytes / (1 << 20) }},
	{"delete and recreate (s)", func(m processMove) float64 { return m.Recreate }},
	{"– of it the warm-up", func(m processMove) float64 { return m.WarmUp }},
}

// BenchmarkProcess moves a pod with the memory of its process, which it has filled
// at random, and in turn deletes it and creates it elsewhere, where it fills its
// memory again. Both are over when the pod is Ready: a probe each second.
func BenchmarkProcess(b *testing.B) {
	sizes := []string{"64Mi", "256Mi", "1Gi"}
	results := map[string][]processMove{}
	// In turn, so that all meet the same load of the machine.
	for b.Loop() {
		for _, size := range sizes {
			m := moveAndRecreate(b, size)
			results[size] = append(results[size], m)
			fmt.Printf("%s: %+v\n", size, m)
		}
	}
	for _, size := range sizes {
		reportProcessMoves(b, size, results[size])
	}
}

func moveAndRecreate(b *testing.B, size string) (m processMove) {
	start := func(namespace string) *corev1.Pod { return startOn(b, env.nodes[0], memoryPod(namespace, size)) }
	measureAlone(b, func(b testing.TB, pod *corev1.Pod) move {
		m = byProcessMove(b, pod)
		return move{}
	}, start)
	measureAlone(b, func(b testing.TB, pod *corev1.Pod) move {
		recreated := byRecreation(b, pod)
		m.Recreate, m.WarmUp = recreated.TotalSeconds, warmUpOf(b, pod)
		return recreated
	}, start)
	return m
}

func memoryPod(namespace, size string) *corev1.Pod {
	c := container("work", 100, "--memory="+size, "--http=:8080")
	request := resource.MustParse(size)
	request.Add(resource.MustParse("32Mi"))
	c.Resources.Requests[corev1.ResourceMemory] = request
	c.Env = []corev1.EnvVar{{Name: "GODEBUG", Value: "multipathtcp=0"}}
	c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(8080)},
	}}
	pod := excluded(newPod(namespace, "memory", c))
	pod.Spec.RuntimeClassName = new(v1alpha1.ProcessRuntimeClass)
	return pod
}

func byProcessMove(b testing.TB, pod *corev1.Pod) processMove {
	worked := workedAt(b, pod)
	start := time.Now()
	migration := migrate(b, pod, withProcesses)
	wantSucceeded(b, migration, 5*time.Minute)
	moved, err := getPod(b.Context(), pod.Namespace, migration.Status.Replacement.Name)
	if err != nil {
		b.Fatal(err)
	}
	if c := migration.Status.Checkpoint; c.Restored != v1alpha1.RestoredProcesses || workedAt(b, moved) < worked {
		b.Fatalf("it continued with %q", c.Restored)
	}
	m := stopOf(migration)
	m.Total = migration.Status.Times.OriginalGone.Sub(start).Seconds()
	return m
}

// stopOf is a stop and its parts, as the migration tells them.
func stopOf(migration *v1alpha1.PodMigration) processMove {
	source, destination, times := migration.Status.Checkpoint.Source, migration.Status.Checkpoint.Destination, migration.Status.Times
	return processMove{
		Stop:     migration.Status.Downtime.Seconds(),
		Dump:     source.DumpedAt.Sub(source.FrozenAt.Time).Seconds(),
		Copy:     source.SealedAt.Sub(source.DumpedAt.Time).Seconds(),
		Restore:  destination.RestoredAt.Sub(source.SealedAt.Time).Seconds(),
		Released: destination.ReleasedAt.Sub(destination.RestoredAt.Time).Seconds(),
		Seen:     times.ReplacementReady.Sub(destination.ReleasedAt.Time).Seconds(),
		Bytes:    float64(source.PassBytes),
	}
}

// workedAt is how long the program has run, as it tells itself, in milliseconds.
func workedAt(b testing.TB, pod *corev1.Pod) (millis int64) {
	b.Helper()
	eventually(b, 30*time.Second, "the program answers", func(context.Context) error {
		response, err := http.Get("http://" + pod.Status.PodIP + ":8080/")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		_, after, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		millis, err = strconv.ParseInt(after, 10, 64)
		return err
	})
	return millis
}

var filledLine = regexp.MustCompile(`filled \d+ bytes of memory in (\S+)`)

// warmUpOf is how long the program took to fill its memory, in seconds.
func warmUpOf(b testing.TB, pod *corev1.Pod) float64 {
	b.Helper()
	clients, err := kubernetes.NewForConfig(env.config)
	if err != nil {
		b.Fatal(err)
	}
	log, err := clients.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	found := filledLine.FindSubmatch(log)
	if found == nil {
		b.Fatalf("its log does not tell:\n%s", log)
	}
	took, err := time.ParseDuration(string(found[1]))
	if err != nil {
		b.Fatal(err)
	}
	return took.Seconds()
}

// reportProcessMoves prints a table in Markdown, and appends all figures as JSON to
// the file in BENCH_OUT.
func reportProcessMoves(b testing.TB, size string, results []processMove) {
	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 0, 1, ' ', 0)
	fmt.Fprintf(rows, "| %s, %d runs\t| median\t| quartiles\t| least – most\t|\n|---\t|---\t|---\t|---\t|\n", size, len(results))
	for _, figure := range processFigures {
		var values []float64
		for _, m := range results {
			values = append(values, figure.of(m))
		}
		slices.Sort(values)
		at := func(share float64) float64 { return values[int(share*float64(len(values)-1)+0.5)] }
		fmt.Fprintf(rows, "| %s\t| %.2f\t| %.2f – %.2f\t| %.2f – %.2f\t|\n", figure.heading, at(0.5), at(0.25), at(0.75), at(0), at(1))
	}
	if err := rows.Flush(); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\n%s\n", table.String())
	if path := os.Getenv("BENCH_OUT"); path != "" {
		if err := appendJSON(path, map[string]any{"memory": size, "moves": results}); err != nil {
			b.Fatal(err)
		}
	}
}
