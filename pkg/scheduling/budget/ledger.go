package budget

import "fmt"

// Limits are the highest numbers of moves in flight. Zero means none at all.
type Limits struct {
	InFlight     int
	PerNode      int
	PerNamespace int
	PerWorkload  int
}

// Move is what a budget needs to know of a move. An empty To is a move whose
// destination is not known yet.
type Move struct {
	Namespace string
	Workload  string
	From      string
	To        string
}

// Ledger counts the moves in flight.
type Ledger struct {
	limits     Limits
	inFlight   int
	nodes      map[string]int
	namespaces map[string]int
	workloads  map[string]int
}

// NewLedger counts the moves that are in flight already. They may be above the
// limits, when the limits were lowered meanwhile.
func NewLedger(limits Limits, inFlight ...Move) *Ledger {
	l := &Ledger{limits: limits, nodes: map[string]int{}, namespaces: map[string]int{}, workloads: map[string]int{}}
	for _, move := range inFlight {
		l.Add(move)
	}
	return l
}

// Add counts a move as in flight.
func (l *Ledger) Add(move Move) { l.count(move, 1) }

// Remove undoes an Add of the same move.
func (l *Ledger) Remove(move Move) { l.count(move, -1) }

func (l *Ledger) count(move Move, change int) {
	l.inFlight += change
	l.namespaces[move.Namespace] += change
	l.workloads[move.Workload] += change
	for _, node := range []string{move.From, move.To} {
		if node != "" {
			l.nodes[node] += change
		}
	}
}

// Check returns why the move has to wait, or "" when it has a place.
func (l *Ledger) Check(move Move) string {
	if l.inFlight >= l.limits.InFlight {
		return fmt.Sprintf("%d of %d migrations in flight", l.inFlight, l.limits.InFlight)
	}
	if n := l.namespaces[move.Namespace]; n >= l.limits.PerNamespace {
		return fmt.Sprintf("%d of %d migrations in flight in namespace %s", n, l.limits.PerNamespace, move.Namespace)
	}
	if n := l.workloads[move.Workload]; n >= l.limits.PerWorkload {
		return fmt.Sprintf("%d of %d migrations in flight for %s", n, l.limits.PerWorkload, move.Workload)
	}
	for _, node := range []string{move.From, move.To} {
		if n := l.nodes[node]; node != "" && n >= l.limits.PerNode {
			return fmt.Sprintf("%d of %d migrations in flight on node %s", n, l.limits.PerNode, node)
		}
	}
	return ""
}
