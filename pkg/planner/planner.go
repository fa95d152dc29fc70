package planner

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/budget"
	"github.com/ai-storage/orchestrator/pkg/cluster"
)

// Feasibility answers for the scheduler. It remembers the replacements that
// were placed, with their originals still where they were.
type Feasibility interface {
	// Fits reports whether the scheduler would put the pod on the node; if not,
	// refusal is the scheduler's own reason.
	Fits(ctx context.Context, pod *corev1.Pod, node string) (refusal string, err error)
	// Place makes the pod hold its place on the node from now on.
	Place(pod *corev1.Pod, node string) error
}

// Options tune a plan.
type Options struct {
	// Weights of the strategies; the zero value is Balance alone.
	Weights    Weights
	Thresholds Thresholds
	// Deviation, when set, is used instead of Thresholds: a node is hot above the
	// mean of the measured nodes that are not left alone plus the deviation.
	Deviation *Thresholds
	// Shapes of pods whose room must not be fragmented.
	Shapes []cluster.Resources
	// Sources are the only hot nodes that may give pods away; nil allows all.
	Sources map[string]bool
	// MinimumGain is how many times its cost a move must gain; 0 counts as 1.
	MinimumGain float64
	// Seed of the search.
	Seed uint64
	// MaxMoves caps the plan.
	MaxMoves int
	// Budget limits what is disrupted at once. The planner adds its moves to it.
	Budget *budget.Ledger
}

// Make plans moves from hot nodes to nodes that stay below the thresholds. In
// every step it takes the move that gains most among those that the scheduler
// and the budget allow. It returns an error only when the Feasibility does.
func Make(ctx context.Context, snapshot *cluster.Snapshot, feasibility Feasibility, options Options) (*Plan, error) {
	s := newSearch(snapshot, options)
	plan := &Plan{SnapshotTime: snapshot.Time, Source: snapshot.Source, Moves: []Move{}, Before: s.summary()}
	for len(plan.Moves) < options.MaxMoves {
		move, err := s.bestMove(ctx, feasibility)
		if err != nil {
			return nil, err
		}
		if move == nil {
			break
		}
		plan.Moves = append(plan.Moves, *move)
	}
	plan.After = s.summary()
	plan.StillHot = s.stillHot(len(plan.Moves) == options.MaxMoves)
	return plan, nil
}

// search is the state of one planning run: the load and the room of each node
// as they will be once the moves so far are done.
type search struct {
	options Options
	nodes   []*nodeState
	byName  map[string]*nodeState
	moved   map[*cluster.Pod]bool
	// refused remembers what the scheduler said no to. Later moves of the plan
	// only take more room, so it is not asked again.
	refused map[question]string
	// questions to the scheduler so far.
	questions int
	// refusals counts, for the latest step, what stood in the way on each node.
	refusals map[string]map[string]int
}

type nodeState struct {
	*cluster.Node
	load cluster.Resources
	// room is what is left for requests. Originals hold theirs to the end of the
	// plan, since a replacement starts before its original goes.
	room cluster.Resources
	pods []*cluster.Pod
}

func newSearch(snapshot *cluster.Snapshot, options Options) *search {
	s := &search{
		options: options,
		byName:  make(map[string]*nodeState, len(snapshot.Nodes)),
		moved:   map[*cluster.Pod]bool{},
		refused: map[question]string{},
	}
	for _, node := range snapshot.Nodes {
		state := &nodeState{Node: node, room: node.Allocatable}
		if node.Measured != nil {
			state.load = loadOf(node.Measured)
		}
		s.nodes = append(s.nodes, state)
		s.byName[node.Name] = state
	}
	for _, pod := range snapshot.Pods {
		if state := s.byName[pod.NodeName]; state != nil {
			state.room = state.room.Sub(pod.Requests)
			state.pods = append(state.pods, pod)
		}
	}
	if options.Deviation != nil {
		s.options.Thresholds = aboveMean(snapshot.Nodes, *options.Deviation)
	}
	return s
}

func loadOf(usage *cluster.Usage) cluster.Resources {
	return cluster.Resources{MilliCPU: usage.MilliCPU, Memory: usage.Memory}
}

// candidate is a move that would gain, before scheduler and budget were asked.
type candidate struct {
	pod      *cluster.Pod
	from, to *nodeState
	gain     float64
}

// bestMove finds the best allowed move, carries it out in the search and
// returns it; nil when there is none.
func (s *search) bestMove(ctx context.Context, feasibility Feasibility) (*Move, error) {
	s.refusals = map[string]map[string]int{}
	for _, c := range s.candidates() {
		step := budget.Move{Namespace: c.pod.Namespace, Workload: c.pod.Workload, From: c.from.Name, To: c.to.Name}
		if refusal := s.options.Budget.Check(step); refusal != "" {
			s.refuse(c.from, "budget: "+refusal)
			continue
		}
		refusal, err := s.ask(ctx, feasibility, c)
		if err != nil {
			return nil, err
		}
		if refusal != "" {
			s.refuse(c.from, "scheduler: "+refusal)
			continue
		}
		if err := feasibility.Place(c.pod.Replacement, c.to.Name); err != nil {
			return nil, fmt.Errorf("placing %s on node %s: %w", c.pod.Key(), c.to.Name, err)
		}
		s.options.Budget.Add(step)
		return s.carryOut(c), nil
	}
	return nil, nil
}

// maxQuestions bounds what one plan asks the scheduler: a cluster in which it
// refuses everything must not keep the loop busy. Refusals come best move
// first, so what is left out matters least.
const maxQuestions = 10_000

type question struct {
	pod  *cluster.Pod
	node string
}

// ask returns why the scheduler would refuse a move; "" when it would not.
func (s *search) ask(ctx context.Context, feasibility Feasibility, c candidate) (refusal string, err error) {
	q := question{c.pod, c.to.Name}
	if refusal, known := s.refused[q]; known {
		return refusal, nil
	}
	if s.questions >= maxQuestions {
		return "not asked, there were too many questions in one cycle", nil
	}
	s.questions++
	refusal, err = feasibility.Fits(ctx, c.pod.Replacement, c.to.Name)
	if err != nil {
		return "", fmt.Errorf("checking %s on node %s: %w", c.pod.Key(), c.to.Name, err)
	}
	if refusal != "" {
		s.refused[q] = refusal
	}
	return refusal, nil
}

func (s *search) carryOut(c candidate) *Move {
	usage := loadOf(c.pod.Measured)
	move := &Move{
		Pod: c.pod.Key(), UID: c.pod.UID, Workload: c.pod.Workload,
		From: c.from.Name, To: c.to.Name, Gain: c.gain, Usage: usage,
		FreedRequests: c.pod.Requests.Sub(c.pod.StrippedRequests),
		Reason:        s.reason(c, usage),
	}
	c.from.load = c.from.load.Sub(usage)
	c.to.load = c.to.load.Add(usage)
	c.to.room = c.to.room.Sub(c.pod.StrippedRequests)
	s.moved[c.pod] = true
	return move
}

func (s *search) reason(c candidate, usage cluster.Resources) string {
	from, to := c.from.percent(), c.to.percent()
	return fmt.Sprintf("node %s is hot (CPU %.0f%%, memory %.0f%%); moving %dm CPU and %dMi to node %s (CPU %.0f%%, memory %.0f%%) gains %.2f",
		c.from.Name, from.CPU, from.Memory, usage.MilliCPU, usage.Memory>>20, c.to.Name, to.CPU, to.Memory, c.gain)
}

// candidates lists the moves off hot nodes that gain more than they cost, best
// first.
func (s *search) candidates() []candidate {
	var found []candidate
	for _, from := range s.nodes {
		if !s.isHot(from) {
			continue
		}
		if from.LeftAlone != "" {
			s.refuse(from, from.LeftAlone)
			continue
		}
		if s.options.Sources != nil && !s.options.Sources[from.Name] {
			s.refuse(from, "the node has not been hot for long enough")
			continue
		}
		for _, pod := range from.pods {
			if s.moved[pod] {
				continue
			}
			if pod.Immovable != "" {
				s.refuse(from, pod.Immovable)
				continue
			}
			found = append(found, s.destinations(pod, from)...)
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.gain, a.gain), a.pod.Key().Compare(b.pod.Key()), cmp.Compare(a.to.Name, b.to.Name))
	})
	return found
}

func (s *search) destinations(pod *cluster.Pod, from *nodeState) []candidate {
	var found []candidate
	usage := loadOf(pod.Measured)
	relief := s.cost(from, from.load) - s.cost(from, from.load.Sub(usage))
	for _, to := range s.nodes {
		if to == from {
			continue
		}
		after := to.load.Add(usage)
		switch {
		case !to.Schedulable:
			s.refuse(from, "the other nodes take no new pods")
		case to.LeftAlone != "":
			s.refuse(from, "the other nodes are left alone")
		case !pod.StrippedRequests.FitsIn(to.room):
			s.refuse(from, "no room for the requests on the other nodes")
		case s.isOver(to, after):
			s.refuse(from, "the other nodes would become hot")
		default:
			gain := relief - (s.cost(to, after) - s.cost(to, to.load)) - MoveCost
			if gain > max(0, s.options.MinimumGain-1)*MoveCost {
				found = append(found, candidate{pod: pod, from: from, to: to, gain: gain})
			} else {
				s.refuse(from, "a move would gain less than it costs")
			}
		}
	}
	return found
}

func (s *search) cost(node *nodeState, load cluster.Resources) float64 {
	return NodeCost(node.Allocatable, load, s.options.Thresholds)
}

func (s *search) isHot(node *nodeState) bool {
	return node.Measured != nil && s.isOver(node, node.load)
}

func (s *search) isOver(node *nodeState, load cluster.Resources) bool {
	return fraction(load.MilliCPU, node.Allocatable.MilliCPU) > s.options.Thresholds.CPU ||
		fraction(load.Memory, node.Allocatable.Memory) > s.options.Thresholds.Memory
}

func (s *search) refuse(node *nodeState, reason string) {
	if s.refusals[node.Name] == nil {
		s.refusals[node.Name] = map[string]int{}
	}
	s.refusals[node.Name][reason]++
}

// percent is the load in percent of what the node can allocate.
func (n *nodeState) percent() NodeLoad {
	return NodeLoad{
		Name:   n.Name,
		CPU:    100 * fraction(n.load.MilliCPU, n.Allocatable.MilliCPU),
		Memory: 100 * fraction(n.load.Memory, n.Allocatable.Memory),
	}
}
