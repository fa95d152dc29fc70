package planner

import (
	"context"
	"fmt"
	"slices"
)

// maxQuestions bounds what one search asks the scheduler: a cluster in which it
// refuses everything must not keep the loop busy. Questions come best move
// first, so what is left out matters least.
const maxQuestions = 10_000

const tooManyQuestions = "not asked, there were too many questions in one cycle"

// feasibilityCache asks the scheduler and remembers its answers. During the search the
// simulation stands as the cluster does; what moves do to each other is found
// out when the whole plan is tried.
type feasibilityCache struct {
	feasibility Feasibility
	refused     map[question]string
	// allowed tells which originals had to be gone.
	allowed   map[question]string
	questions int
}

type question struct{ pod, node int32 }

// refusal is why the scheduler would not put the pod on the node once the given
// originals are gone; "" when it would.
func (o *feasibilityCache) refusal(ctx context.Context, p *pod, n *node, gone []*pod) (string, error) {
	q := question{p.id, n.id}
	if refusal, known := o.refused[q]; known {
		return refusal, nil
	}
	without := fmt.Sprint(idsOf(gone))
	if answer, known := o.allowed[q]; known && answer == without {
		return "", nil
	}
	if o.questions >= maxQuestions {
		return tooManyQuestions, nil
	}
	o.questions++
	if err := o.removeAll(gone); err != nil {
		return "", err
	}
	refusal, err := o.ask(ctx, p, n)
	switch {
	case err != nil:
		return "", err
	case refusal != "":
		o.refuse(p, n, refusal)
	default:
		o.allowed[q] = without
	}
	return refusal, o.placeAll(gone)
}

func (o *feasibilityCache) refuse(p *pod, n *node, refusal string) {
	o.refused[question{p.id, n.id}] = refusal
	p.hasRefusals = true
}

func (o *feasibilityCache) isRefused(p *pod, n *node) bool {
	_, known := o.refused[question{p.id, n.id}]
	return known
}

func idsOf(pods []*pod) []int32 {
	ids := make([]int32, len(pods))
	for i, p := range pods {
		ids[i] = p.id
	}
	return ids
}

func (o *feasibilityCache) ask(ctx context.Context, p *pod, n *node) (string, error) {
	replacement := p.Replacement()
	if replacement == nil {
		return "there can be no replacement of the pod", nil
	}
	refusal, err := o.feasibility.Fits(ctx, replacement, n.Name)
	if err != nil {
		return "", fmt.Errorf("checking %s on node %s: %w", p.Key(), n.Name, err)
	}
	return refusal, nil
}

func (o *feasibilityCache) removeAll(originals []*pod) error {
	for _, p := range originals {
		if err := o.feasibility.Remove(p.Object); err != nil {
			return fmt.Errorf("taking %s off its node: %w", p.Key(), err)
		}
	}
	return nil
}

func (o *feasibilityCache) placeAll(originals []*pod) error {
	for _, p := range originals {
		if err := o.feasibility.Place(p.Object, p.NodeName); err != nil {
			return fmt.Errorf("putting %s back on its node: %w", p.Key(), err)
		}
	}
	return nil
}

// dryRunPlan carries the plan out in the simulation, in order, and returns the
// pods that the scheduler refuses. Each move is asked about twice: while all
// originals hold their places that it does not wait for, and when those of all
// earlier moves are gone, since nobody knows how long a migration takes.
func (s *search) dryRunPlan(ctx context.Context, ordered []orderedMove) (refused []*pod, err error) {
	var placed []*pod
	for i := range ordered {
		p, to := ordered[i].pod, &s.nodes[ordered[i].to]
		if slices.ContainsFunc(ordered[i].after, func(j int) bool { return !slices.Contains(placed, ordered[j].pod) }) {
			continue
		}
		refusal, err := s.dryRunMove(ctx, ordered, placed, i)
		if err != nil {
			return nil, err
		}
		if refusal != "" {
			s.refuse(p, to, refusal)
			refused = append(refused, p)
			continue
		}
		if err := s.feasibility.Place(p.Replacement(), to.Name); err != nil {
			return nil, fmt.Errorf("placing %s on node %s: %w", p.Key(), to.Name, err)
		}
		placed = append(placed, p)
	}
	if len(refused) == 0 {
		return nil, nil
	}
	for _, p := range placed {
		if err := s.feasibility.Remove(p.Replacement()); err != nil {
			return nil, fmt.Errorf("removing the replacement of %s: %w", p.Key(), err)
		}
	}
	return refused, nil
}

// dryRunMove asks about one move, with the replacements of others placed.
func (s *search) dryRunMove(ctx context.Context, ordered []orderedMove, placed []*pod, i int) (refusal string, err error) {
	p, to := ordered[i].pod, &s.nodes[ordered[i].to]
	if _, asked := s.allowed[question{p.id, to.id}]; i == 0 && asked {
		return "", nil
	}
	var waitedFor, rest []*pod
	must := closure(ordered, i)
	for j := range ordered[:i] {
		switch other := ordered[j].pod; {
		case must[j]:
			waitedFor = append(waitedFor, other)
		case slices.Contains(placed, other):
			rest = append(rest, other)
		}
	}
	if err := s.removeAll(waitedFor); err != nil {
		return "", err
	}
	refusal, err = s.ask(ctx, p, to)
	if err != nil {
		return "", err
	}
	gone := waitedFor
	if refusal == "" && len(rest) > 0 {
		if err := s.removeAll(rest); err != nil {
			return "", err
		}
		gone = append(gone, rest...)
		if refusal, err = s.ask(ctx, p, to); err != nil {
			return "", err
		}
	}
	return refusal, s.placeAll(gone)
}
