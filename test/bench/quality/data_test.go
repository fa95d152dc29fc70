package quality

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

const gpu = corev1.ResourceName("nvidia.com/gpu")

// amount reads a whole number; an empty field is zero.
func amount(t *testing.T, field string) int64 {
	t.Helper()
	if field == "" {
		return 0
	}
	n, err := strconv.ParseFloat(field, 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(n)
}

func rows(t *testing.T, path string) [][]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return all[1:]
}

// traces reads count load traces, in percent at every fifth minute.
func traces(t *testing.T, path string, count int) [][]float64 {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]float64
	for archive := tar.NewReader(unzipped); len(all) < count; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		var one []float64
		for lines := bufio.NewScanner(archive); lines.Scan(); {
			if value, err := strconv.ParseFloat(strings.TrimSpace(lines.Text()), 64); err == nil {
				one = append(one, value)
			}
		}
		if len(one) > 20 {
			all = append(all, one)
		}
	}
	return all
}

// scene is the skewed cluster and how its load goes.
type scene struct {
	nodes []*cluster.Node
	pods  []*cluster.Pod
	// traces of the pods, by index, with the sample they begin at.
	traces [][]float64
	begin  []int
}

// newScene packs openb's pods onto three fifths of the nodes, tightly, and lets
// the other nodes stand nearly idle.
func newScene(t *testing.T, directory string, seed uint64) *scene {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 5))
	s := &scene{}
	list := rows(t, filepath.Join(directory, "openb", "openb_node_list_gpu_node.csv"))
	free := map[string]cluster.Resources{}
	for i := range 100 {
		row := list[i*len(list)/100]
		n := &cluster.Node{Name: row[0], Schedulable: true, Allocatable: cluster.Resources{
			MilliCPU: amount(t, row[1]), Memory: amount(t, row[2]) << 20, Scalar: map[corev1.ResourceName]int64{gpu: amount(t, row[3])}}}
		s.nodes, free[n.Name] = append(s.nodes, n), n.Allocatable
	}
	rng.Shuffle(len(s.nodes), func(i, j int) { s.nodes[i], s.nodes[j] = s.nodes[j], s.nodes[i] })
	candidates := rows(t, filepath.Join(directory, "openb", "openb_pod_list_default.csv"))
	rng.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	load := traces(t, filepath.Join(directory, "usage", "planetlab.tgz"), 800)
	for i, row := range candidates[:2000] {
		requests := cluster.Resources{MilliCPU: amount(t, row[1]), Memory: amount(t, row[2]) << 20, Scalar: map[corev1.ResourceName]int64{gpu: amount(t, row[3])}}
		among := s.nodes[:60]
		if i%10 == 0 {
			among = s.nodes[60:]
		}
		for _, n := range among {
			if requests.FitsIn(free[n.Name]) {
				free[n.Name] = free[n.Name].Sub(requests)
				s.addPod(fmt.Sprintf("%s-%d", row[0], i), n, requests, rng)
				break
			}
		}
	}
	for range s.pods {
		s.traces = append(s.traces, load[rng.IntN(len(load))])
		s.begin = append(s.begin, rng.IntN(15))
	}
	return s
}

func (s *scene) addPod(name string, n *cluster.Node, requests cluster.Resources, rng *rand.Rand) {
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}}
	replacement := object.DeepCopy()
	s.pods = append(s.pods, &cluster.Pod{
		Namespace: "ns", Name: name, UID: object.UID, NodeName: n.Name, Workload: fmt.Sprint("ReplicaSet/ns/", rng.IntN(200)),
		Requests: requests, StrippedRequests: requests, Object: object, Replacement: func() *corev1.Pod { return replacement },
	})
}

// usage of a pod in cycle number cycle, every 30 s: what it asks for, less what
// the machine of its trace left idle, which was most of it.
func (s *scene) usage(pod, cycle int) *cluster.Usage {
	trace, at := s.traces[pod], float64(s.begin[pod])+float64(cycle)/10
	low := int(at)
	percent := trace[low] + (trace[low+1]-trace[low])*(at-math.Floor(at))
	share := min(1, 0.45+percent/100)
	r := s.pods[pod].Requests
	return &cluster.Usage{MilliCPU: int64(share * float64(r.MilliCPU)), Memory: int64(0.6 * float64(r.Memory))}
}
