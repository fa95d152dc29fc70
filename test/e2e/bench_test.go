//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
)

// move is what one way of moving a pod cost.
type move struct {
	FreedMilliCPU   float64 `json:"freedMilliCPU"`
	RepeatedSeconds float64 `json:"repeatedCPUSeconds"`
	DowntimeSeconds float64 `json:"downtimeSeconds"`
	TotalSeconds    float64 `json:"totalSeconds"`
}

// figures of a move, by the heading of their column.
var figures = []struct {
	heading string
	of      func(move) float64
}{
	{"requests freed (millicores)", func(m move) float64 { return m.FreedMilliCPU }},
	{"CPU-seconds run again", func(m move) float64 { return m.RepeatedSeconds }},
	{"downtime (s)", func(m move) float64 { return m.DowntimeSeconds }},
	{"total time (s)", func(m move) float64 { return m.TotalSeconds }},
}

// BenchmarkMigration compares a migration with deleting the pod and creating
// it again elsewhere, in turn. The pod is the one of the work that this project
// descends from: three containers, one of which finishes after 60 s.
func BenchmarkMigration(b *testing.B) {
	scenes := []struct {
		name string
		age  time.Duration
	}{{"while the first container works", 30 * time.Second}, {"after it has finished", 0}}
	for _, scene := range scenes {
		b.Run(scene.name, func(b *testing.B) {
			results := map[string][]move{}
			for b.Loop() {
				for _, way := range movingWays {
					results[way.name] = append(results[way.name], measureAlone(b, way.move, func(namespace string) *corev1.Pod {
						return threeContainers(b, namespace, scene.age)
					}))
				}
			}
			reportMoves(b, scene.name, results)
		})
	}
}

// BenchmarkColdStart compares how long a pod is not there whose init container
// needs 30 s to produce 512 MiB on an emptyDir.
func BenchmarkColdStart(b *testing.B) {
	results := map[string][]move{}
	for b.Loop() {
		for _, way := range movingWays {
			results[way.name] = append(results[way.name], measureAlone(b, way.move, func(namespace string) *corev1.Pod {
				return startOn(b, env.nodes[0], preparedPod(namespace))
			}))
		}
	}
	reportMoves(b, "cold start", results)
}

var movingWays = []struct {
	name string
	move func(testing.TB, *corev1.Pod) move
}{{"migration", byMigration}, {"delete and recreate", byRecreation}}

// measureAlone measures one way in a namespace of its own, and returns when the
// nodes are empty again.
func measureAlone(b testing.TB, way func(testing.TB, *corev1.Pod) move, start func(namespace string) *corev1.Pod) move {
	namespace := newNamespace(b)
	defer removeNamespace(b, namespace)
	return way(b, start(namespace))
}

// threeContainers runs the pod of three containers and returns it at an age; 0
// waits until its first container has finished.
func threeContainers(b testing.TB, namespace string, age time.Duration) *corev1.Pod {
	state := corev1.VolumeMount{Name: "state", MountPath: "/state"}
	prepare, train, report := container("prepare", 900, "--for=60s", "--cpu=300m"),
		container("train", 500, "--cpu=100m", "--write=/state/progress"), container("report", 200, "--cpu=10m")
	train.VolumeMounts = []corev1.VolumeMount{state}
	spec := excluded(newPod(namespace, "training", prepare, train, report))
	spec.Spec.Volumes = []corev1.Volume{{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod := startOn(b, env.nodes[0], spec)
	if age == 0 {
		waitCompletedWithin(b, pod, "prepare", 2*time.Minute)
	} else {
		time.Sleep(time.Until(pod.Status.StartTime.Add(age)))
	}
	return pod
}

func preparedPod(namespace string) *corev1.Pod {
	data := corev1.VolumeMount{Name: "data", MountPath: "/data"}
	fill := corev1.Container{
		Name: "prepare", Image: image.WorkloadReference, VolumeMounts: []corev1.VolumeMount{data},
		Args: []string{"fill", "--dir=/data", "--bytes=512Mi", "--files=64", "--for=30s"},
	}
	serve := container("serve", 100, "--cpu=10m")
	serve.VolumeMounts = []corev1.VolumeMount{data}
	pod := excluded(newPod(namespace, "prepared", serve))
	pod.Spec.InitContainers = []corev1.Container{fill}
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	return pod
}

func byMigration(b testing.TB, pod *corev1.Pod) move {
	used := cpuSecondsOf(b, pod)
	start := time.Now()
	migration := migrate(b, pod, nil)
	wantSucceeded(b, migration, 5*time.Minute)
	replacement, err := getPod(b.Context(), pod.Namespace, migration.Status.Replacement.Name)
	if err != nil {
		b.Fatal(err)
	}
	result := move{FreedMilliCPU: float64(cpuRequests(pod) - cpuRequests(replacement)), DowntimeSeconds: migration.Status.Downtime.Seconds()}
	// What came with the checkpoint continues where it was: only containers that
	// keep nothing begin again.
	for _, c := range slices.Concat(replacement.Spec.InitContainers, replacement.Spec.Containers) {
		if !v1alpha1.IsGateContainer(c.Name) && !keepsState(c) {
			result.RepeatedSeconds += used[c.Name]
		}
	}
	// The measurement of the replacement by the metrics API is no part of the move.
	end := migration.Status.Times.OriginalGone
	result.TotalSeconds = end.Sub(start).Seconds()
	return result
}

func byRecreation(b testing.TB, pod *corev1.Pod) move {
	used := cpuSecondsOf(b, pod)
	again := pod.DeepCopy()
	again.ObjectMeta = excluded(newPod(pod.Namespace, pod.Name)).ObjectMeta
	again.Spec.NodeName = ""
	again.Spec.NodeSelector = map[string]string{corev1.LabelHostname: otherNode(pod)}
	start := time.Now()
	if err := env.client.Delete(b.Context(), pod); err != nil {
		b.Fatal(err)
	}
	eventually(b, time.Minute, "the pod is gone", func(ctx context.Context) error {
		_, err := getPod(ctx, pod.Namespace, pod.Name)
		return wantGone(err, "the pod")
	})
	create(b, again)
	waitReady(b, again, 3*time.Minute)
	took := time.Since(start).Seconds()
	result := move{FreedMilliCPU: float64(cpuRequests(pod) - cpuRequests(again)), DowntimeSeconds: took, TotalSeconds: took}
	for _, seconds := range used {
		result.RepeatedSeconds += seconds
	}
	return result
}

func keepsState(c corev1.Container) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "state" })
}

var (
	finishedLine = regexp.MustCompile(`finished after .*, ([0-9.]+) CPU-seconds here`)
	usageLine    = regexp.MustCompile(`^container_cpu_usage_seconds_total\{container="([^"]+)",namespace="([^"]+)",pod="([^"]+)"\} (\S+)`)
)

// cpuSecondsOf returns what each container of a pod has used: what runs as the
// kubelet counts it, what has finished as it told itself.
func cpuSecondsOf(b testing.TB, pod *corev1.Pod) map[string]float64 {
	clients, err := kubernetes.NewForConfig(env.config)
	if err != nil {
		b.Fatal(err)
	}
	used := map[string]float64{}
	metrics, err := clients.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/" + pod.Spec.NodeName + "/proxy/metrics/resource").DoRaw(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(metrics)); lines.Scan(); {
		if m := usageLine.FindStringSubmatch(lines.Text()); m != nil && m[2] == pod.Namespace && m[3] == pod.Name {
			used[m[1]], _ = strconv.ParseFloat(m[4], 64)
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		log, err := clients.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: c.Name}).DoRaw(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if m := finishedLine.FindSubmatch(log); m != nil {
			used[c.Name], _ = strconv.ParseFloat(string(m[1]), 64)
		}
	}
	return used
}

// reportMoves prints medians and spread as a table in Markdown, and appends all
// figures as JSON to the file in BENCH_OUT.
func reportMoves(b testing.TB, scene string, results map[string][]move) {
	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 0, 1, ' ', 0)
	fmt.Fprintf(rows, "| %s: median (least – most) of %d\t| migration\t| delete and recreate\t|\n|---\t|---\t|---\t|\n", scene, len(results[movingWays[0].name]))
	for _, figure := range figures {
		fmt.Fprintf(rows, "| %s", figure.heading)
		for _, way := range movingWays {
			values := make([]float64, 0, len(results[way.name]))
			for _, m := range results[way.name] {
				values = append(values, figure.of(m))
			}
			slices.Sort(values)
			fmt.Fprintf(rows, "\t| %.2f (%.2f – %.2f)", values[len(values)/2], values[0], values[len(values)-1])
		}
		fmt.Fprintf(rows, "\t|\n")
	}
	if err := rows.Flush(); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\n%s\n", table.String())
	if path := os.Getenv("BENCH_OUT"); path != "" {
		if err := appendJSON(path, map[string]any{"scene": scene, "moves": results}); err != nil {
			b.Fatal(err)
		}
	}
}

func appendJSON(path string, value any) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, string(content)+"\n")
	return err
}
