package vmr

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/ai-storage/orchestrator/pkg/scheduling/repack"
)

// ErrInfeasible wraps what a list of moves breaks.
var ErrInfeasible = errors.New("infeasible")

// Move is one line of a list of moves. NUMA is −1 for an instance that is
// split over all NUMA nodes of the host.
type Move struct {
	Instance, Host string
	NUMA           int
	Cluster        string
}

// MovesOf translates moves of items back to the file's names.
func (i Index) MovesOf(moves []repack.ItemMove) []Move {
	named := make([]Move, 0, len(moves))
	for _, m := range moves {
		named = append(named, Move{
			Instance: i.Instances[m.Item].ID, Host: i.Hosts[m.Host].ID, NUMA: m.Node, Cluster: i.Clusters[m.Item],
		})
	}
	return named
}

// WriteMoves writes one move a line, in the order of execution.
func WriteMoves(w io.Writer, moves []Move) error {
	for _, m := range moves {
		if _, err := fmt.Fprintf(w, "%s,%s,%d,%s\n", m.Instance, m.Host, m.NUMA, m.Cluster); err != nil {
			return fmt.Errorf("writing a move: %w", err)
		}
	}
	return nil
}

// ReadMoves reads what WriteMoves wrote.
func ReadMoves(r io.Reader) ([]Move, error) {
	var moves []Move
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fields := strings.Split(lines.Text(), ",")
		if len(fields) != 4 {
			return nil, fmt.Errorf("%w: move %d has %d fields, want 4", ErrFormat, len(moves)+1, len(fields))
		}
		numa, err := strconv.Atoi(strings.TrimSpace(fields[2]))
		if err != nil {
			return nil, fmt.Errorf("%w: move %d: NUMA node: %w", ErrFormat, len(moves)+1, err)
		}
		moves = append(moves, Move{fields[0], fields[1], numa, fields[3]})
	}
	return moves, nil
}

// world is a cluster being replayed, in the file's own figures.
type world struct {
	hosts     map[string]*Host
	instances map[string]*Instance
}

// Replay carries out the moves on a copy of the snapshot and returns it. The
// room on the destination must be free before the original leaves. A broken
// rule is an ErrInfeasible that names the move.
func (s *Snapshot) Replay(moves []Move) (*Snapshot, error) {
	after := s.clone()
	worlds := map[string]world{}
	for i := range after.Clusters {
		c := &after.Clusters[i]
		w := world{map[string]*Host{}, map[string]*Instance{}}
		for j := range c.Hosts {
			w.hosts[c.Hosts[j].ID] = &c.Hosts[j]
		}
		for j := range c.Instances {
			w.instances[c.Instances[j].ID] = &c.Instances[j]
		}
		worlds[c.Name] = w
	}
	for i, m := range moves {
		if err := worlds[m.Cluster].carryOut(m); err != nil {
			return nil, fmt.Errorf("%w: move %d of instance %q: %w", ErrInfeasible, i+1, m.Instance, err)
		}
	}
	return after, nil
}

func (s *Snapshot) clone() *Snapshot {
	c := &Snapshot{Clusters: make([]Cluster, len(s.Clusters))}
	for i, from := range s.Clusters {
		c.Clusters[i] = Cluster{Name: from.Name, Hosts: make([]Host, len(from.Hosts)), Instances: make([]Instance, len(from.Instances))}
		for j, h := range from.Hosts {
			h.Nodes = append([]Node(nil), h.Nodes...)
			c.Clusters[i].Hosts[j] = h
		}
		for j, v := range from.Instances {
			v.Parts = append([]Part(nil), v.Parts...)
			c.Clusters[i].Instances[j] = v
		}
	}
	return c
}

func (w world) carryOut(m Move) error {
	v, to := w.instances[m.Instance], w.hosts[m.Host]
	switch {
	case v == nil || to == nil:
		return fmt.Errorf("no such instance, or no host %q, in cluster %q", m.Host, m.Cluster)
	case !v.AllowMigration:
		return errors.New("it may not be migrated")
	case to.Status != "ACTIVE":
		return fmt.Errorf("host %q is %s", m.Host, to.Status)
	case (m.NUMA == -1) != (len(v.Parts) > 1):
		return fmt.Errorf("NUMA node %d for an instance on %d nodes", m.NUMA, len(v.Parts))
	case m.NUMA >= len(to.Nodes):
		return fmt.Errorf("no NUMA node %d", m.NUMA)
	}
	arrived := append([]Part(nil), v.Parts...)
	if m.NUMA >= 0 {
		arrived[0].Node = m.NUMA
	}
	for _, p := range arrived {
		node := &to.Nodes[p.Node]
		if p.CPU > node.FreeCPU || p.Memory > node.FreeMemory {
			return fmt.Errorf("NUMA node %d of host %q has %g CPU and %g MB free, wants %g and %g", p.Node, m.Host, node.FreeCPU, node.FreeMemory, p.CPU, p.Memory)
		}
		node.FreeCPU -= p.CPU
		node.FreeMemory -= p.Memory
	}
	from := w.hosts[v.Host]
	for _, p := range v.Parts {
		from.Nodes[p.Node].FreeCPU += p.CPU
		from.Nodes[p.Node].FreeMemory += p.Memory
	}
	v.Host, v.Parts = m.Host, arrived
	return nil
}

// FragmentRate is Σ over NUMA nodes of (free CPU modulo the shape) / Σ free CPU.
func (s *Snapshot) FragmentRate(shapeCores int) float64 {
	var rest, free float64
	for _, c := range s.Clusters {
		for _, h := range c.Hosts {
			for _, n := range h.Nodes {
				free += n.FreeCPU
				rest += n.FreeCPU - float64(int(n.FreeCPU)/shapeCores*shapeCores)
			}
		}
	}
	if free == 0 {
		return 0
	}
	return rest / free
}
