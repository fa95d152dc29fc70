package demo

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
	"github.com/ai-storage/orchestrator/test/devcluster/image"
	"github.com/ai-storage/orchestrator/test/devcluster/simnode"
)

const (
	loaderName = "loader"
	// loadSeconds is how long the loader of a pod works before it exits with 0.
	loadSeconds = 15

	// The overutilized nodes are so far above the CPU threshold, and all nodes together so
	// far below, that there is something to move and room for it.
	overutilizedFactor = 1.22
	meanFactor         = 0.78
	// overutilizedShare of the nodes are overutilized.
	overutilizedShare = 0.25

	// requestShare of an overutilized node is asked for by the pods that make it overutilized.
	requestShare = 0.9
)

// memoryShares say how much of its memory a node uses for each share of CPU,
// and how much is asked for: the memory of real nodes is the machine's.
var memoryShares = map[devcluster.NodeKind]float64{devcluster.Simulated: 0.75, devcluster.Real: 0.2}

// maxPods for each node, on average: an overutilized one has more, and takes 110.
var maxPods = map[devcluster.NodeKind]int{devcluster.Simulated: 60, devcluster.Real: 10}

// crowd says how many pods make the skew, and what each uses and asks for on
// average.
type crowd struct {
	kind              devcluster.NodeKind
	pods              int
	overutilizedNodes int
	overutilizedPods  int
	use, ask          amount
}

// amount of resources: thousandths of a CPU, and bytes.
type amount struct {
	milliCPU float64
	memory   float64
}

func (a amount) times(factor float64) amount { return amount{a.milliCPU * factor, a.memory * factor} }

// newCrowd sizes the pods so that a quarter of the nodes will be above the
// threshold (a share of a node's CPU) and all together stay below it.
func newCrowd(nodes devcluster.NodeSpec, pods int, node amount, threshold float64) (crowd, error) {
	if nodes.Count < 2 {
		return crowd{}, errors.New("a demo needs two nodes at least: there is nowhere to move to")
	}
	c := crowd{kind: nodes.Kind, pods: pods, overutilizedNodes: max(1, int(float64(nodes.Count)*overutilizedShare))}
	c.use.milliCPU = meanFactor * threshold * node.milliCPU * float64(nodes.Count) / float64(pods)
	perOverutilizedNode := math.Floor(overutilizedFactor * threshold * node.milliCPU / c.use.milliCPU)
	c.overutilizedPods = int(perOverutilizedNode) * c.overutilizedNodes
	if perOverutilizedNode < 3 || c.overutilizedPods >= pods {
		return crowd{}, fmt.Errorf("%d pods are too few for %s: take at least %d", pods, nodes, defaultPods(nodes))
	}
	if most := maxPods[nodes.Kind] * nodes.Count; pods > most {
		return crowd{}, fmt.Errorf("%d pods are too many for %s: take at most %d", pods, nodes, most)
	}
	share := memoryShares[nodes.Kind]
	c.use.memory = share * node.memory * c.use.milliCPU / node.milliCPU
	c.ask = amount{node.milliCPU, node.memory * share}.times(requestShare / perOverutilizedNode)
	return c, nil
}

// defaultPods is a number that shows something on such nodes.
func defaultPods(nodes devcluster.NodeSpec) int {
	if nodes.Kind == devcluster.Real {
		return 3 * nodes.Count
	}
	return 10 * nodes.Count
}

// newPods returns the pods of a crowd: a loader that finishes early and keeps
// its requests, a trainer that does the work, and a logger. They use more or
// less than the average, the same in every run.
func (c crowd) newPods() []*corev1.Pod {
	random := rand.New(rand.NewPCG(20, 200))
	pods := make([]*corev1.Pod, c.pods)
	for i := range pods {
		use := c.use.times(0.75 + 0.5*random.Float64())
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name:        fmt.Sprintf("training-%0*d", len(strconv.Itoa(c.pods)), i+1),
				Namespace:   metav1.NamespaceDefault,
				Labels:      map[string]string{"app": "training"},
				Annotations: map[string]string{},
			},
			Spec: corev1.PodSpec{
				SchedulerName:                 v1alpha1.SchedulerName,
				RestartPolicy:                 corev1.RestartPolicyNever,
				TerminationGracePeriodSeconds: new(int64(5)),
				AutomountServiceAccountToken:  new(false),
			},
		}
		c.addContainer(pod, containerSpec{name: loaderName, use: use.times(0.5), ask: c.ask.times(0.45), seconds: loadSeconds})
		c.addContainer(pod, containerSpec{name: "trainer", use: use.times(0.95), ask: c.ask.times(0.45)})
		c.addContainer(pod, containerSpec{name: "logger", use: use.times(0.05), ask: c.ask.times(0.1)})
		pods[i] = pod
	}
	return pods
}

type containerSpec struct {
	name     string
	use, ask amount
	// seconds until it exits with 0; 0 is never.
	seconds int
}

// addContainer says what the container does in the language of the node's
// kind: annotations for simulated nodes, arguments of the workload program for
// real ones.
func (c crowd) addContainer(pod *corev1.Pod, spec containerSpec) {
	cpu, memory := spec.use.quantities()
	askCPU, askMemory := spec.ask.quantities()
	container := corev1.Container{
		Name:  spec.name,
		Image: image.WorkloadReference,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: askCPU, corev1.ResourceMemory: askMemory,
		}},
	}
	if c.kind == devcluster.Real {
		container.Args = []string{"run", "--cpu=" + cpu.String(), "--memory=" + memory.String()}
		if spec.seconds > 0 {
			container.Args = append(container.Args, fmt.Sprintf("--for=%ds", spec.seconds))
		}
	} else {
		pod.Annotations[simnode.CPUUsagePrefix+spec.name] = cpu.String()
		pod.Annotations[simnode.MemoryUsagePrefix+spec.name] = memory.String()
		if spec.seconds > 0 {
			pod.Annotations[simnode.FinishAfterPrefix+spec.name] = strconv.Itoa(spec.seconds)
		}
	}
	pod.Spec.Containers = append(pod.Spec.Containers, container)
}

func (a amount) quantities() (cpu, memory resource.Quantity) {
	const mebibyte = 1 << 20
	return *resource.NewMilliQuantity(max(1, int64(a.milliCPU)), resource.DecimalSI),
		*resource.NewQuantity(max(1, int64(a.memory)/mebibyte)*mebibyte, resource.BinarySI)
}
