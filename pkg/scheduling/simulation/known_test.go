package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	st "k8s.io/kubernetes/pkg/scheduler/testing"

	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// randomPod has rules about other pods as often as not.
func randomPod(rng *rand.Rand, name string) *corev1.Pod {
	app := fmt.Sprint("app-", rng.IntN(3))
	p := pod(name).Label("app", app).Req(cpu("100m"))
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("app-", rng.IntN(3))}}
	if rng.IntN(4) == 0 {
		selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{app}}}}
	}
	keys := []string{corev1.LabelHostname, corev1.LabelTopologyZone}
	switch rng.IntN(5) {
	case 0:
		p.PodAntiAffinity(keys[rng.IntN(2)], selector, st.PodAntiAffinityWithRequiredReq)
	case 1:
		p.PodAffinity(keys[rng.IntN(2)], selector, st.PodAffinityWithRequiredReq)
	case 2:
		p.SpreadConstraint(1, keys[rng.IntN(2)], corev1.DoNotSchedule, &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, nil, nil, nil, nil)
	case 3:
		p.HostPort(int32(8080 + rng.IntN(2)))
	}
	object := p.Obj()
	if a := object.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		// The builder leaves the key of the topology to the caller.
		for i := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[i].TopologyKey = keys[rng.IntN(2)]
		}
	}
	return object
}

// A session that is notified of changes must answer as one that asks PreFilter anew
// and looks at every node.
func TestWhatIsKnownFollowsChanges(t *testing.T) {
	simulator := newSimulator(t)
	if !simulator.follows {
		t.Fatal("the shipped profile has a PreFilter plugin that is not ours or the scheduler's")
	}
	refused := 0
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var nodes []*cluster.Node
		for i := range 6 {
			n := node(fmt.Sprint("n", i))
			n.Object.Labels[corev1.LabelTopologyZone] = fmt.Sprint("zone-", i%2)
			nodes = append(nodes, n)
		}
		var pods []*cluster.Pod
		for i := range 15 {
			object := randomPod(rng, fmt.Sprint("p", i))
			object.Spec.NodeName = nodes[rng.IntN(6)].Name
			pods = append(pods, running(object))
		}
		session := simulator.Session(cluster.NewSnapshot(time.Time{}, nodes, pods))
		fresh := simulator.Session(session.snapshot)
		fresh.begin()
		fresh.repellers = nil
		var asked, placed []*corev1.Pod
		for i := range 5 {
			asked = append(asked, randomPod(rng, fmt.Sprint("asked", i)))
		}
		for turn := range 12 {
			for _, p := range asked {
				for _, n := range nodes {
					clear(fresh.known)
					want, got := mustFit(t, fresh, p, n.Name), mustFit(t, session, p, n.Name)
					if want != got {
						t.Fatalf("seed %d, turn %d: %s on %s: %+v, asked anew %+v", seed, turn, p.Name, n.Name, got, want)
					}
					if !want.Fits {
						refused++
					}
				}
			}
			placed = change(t, rng, []*Session{session, fresh}, pods, placed, turn)
		}
	}
	if refused < 500 {
		t.Errorf("only %d refusals: the rules put nothing to the test", refused)
	}
}

// change does the same to all sessions.
func change(t *testing.T, rng *rand.Rand, sessions []*Session, pods []*cluster.Pod, placed []*corev1.Pod, turn int) []*corev1.Pod {
	t.Helper()
	kind, node := rng.IntN(3), fmt.Sprint("n", rng.IntN(6))
	var object *corev1.Pod
	switch {
	case kind == 0 && len(placed) > 0:
		i := rng.IntN(len(placed))
		object = placed[i]
		placed = append(placed[:i:i], placed[i+1:]...)
	case kind == 1 && turn < len(pods):
		object = pods[turn].Object
	default:
		kind, object = 2, randomPod(rng, fmt.Sprint("new", turn))
		placed = append(placed, object)
	}
	for _, s := range sessions {
		err := error(nil)
		if kind == 2 {
			err = s.Place(object, node)
		} else {
			err = s.Remove(object)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return placed
}

// Nodes are kept between sessions while their pods stay the same objects, and
// what a session does to its copy is not seen by the next.
func TestNodesAreKeptBetweenSessions(t *testing.T) {
	simulator := newSimulator(t)
	nodes := []*cluster.Node{node("n0"), node("n1"), node("n2")}
	pods := []*cluster.Pod{running(pod("a").Req(cpu("3")).Node("n0").Obj()), running(pod("b").Req(cpu("3")).Node("n1").Obj())}
	first := simulator.Session(cluster.NewSnapshot(time.Time{}, nodes, pods))
	first.begin()
	views := map[string]any{"n0": first.ordered[0], "n1": first.ordered[1], "n2": first.ordered[2]}
	if err := first.Place(pod("new").Req(cpu("3")).Obj(), "n2"); err != nil {
		t.Fatal(err)
	}
	changed := running(pod("b").Req(cpu("1")).Node("n1").Obj())
	second := simulator.Session(cluster.NewSnapshot(time.Time{}, nodes, []*cluster.Pod{pods[0], changed}))
	for name, want := range map[string]bool{"n0": false, "n1": true, "n2": true} {
		verdict, err := second.Fits(context.Background(), pod("asked").Req(cpu("2")).Obj(), name)
		if err != nil || verdict.Fits != want {
			t.Errorf("node %s: %+v, %v, want fits %t", name, verdict, err, want)
		}
	}
	for i, name := range []string{"n0", "n1", "n2"} {
		if kept := views[name] == any(second.ordered[i]); kept != (name != "n1") {
			t.Errorf("node %s was kept: %t", name, kept)
		}
	}
}
