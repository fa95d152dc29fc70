package repack

import (
	"errors"
	"fmt"
)

// Packing is the sibling problem: hosts that are cut into nodes (NUMA nodes),
// items that sit on one node or are split evenly over all nodes of a host, and
// free room that is worth nothing unless it holds whole shapes.
type Packing struct {
	Hosts []Host
	Items []Item
	// Shapes are what should fit into the free room. The cost is the sum over
	// nodes and shapes of Weight · (free of the resource modulo Size).
	Shapes []Shape
}

// Host is a machine. Items never leave their Zone.
type Host struct {
	Zone int
	// Free is what is left at the start: node × resource.
	Free [][]int64
	// Closed hosts take nothing in.
	Closed bool
}

// Item is what moves.
type Item struct {
	// Requirement is what the item takes on each node that it uses.
	Requirement []int64
	// Host and Node are where it is; Node is Split if it is on all nodes.
	Host, Node int
	Fixed      bool
}

// Split is the node of an item that is spread evenly over all nodes of its host.
const Split = -1

// Shape is a piece of one resource.
type Shape struct {
	Resource     int
	Size, Weight int64
}

// ItemMove moves an item to a host and node (or Split).
type ItemMove struct {
	Item, Host, Node int
	// Gain is by how much the fragmentation falls at this step; a step that
	// only makes room for a later one may have a negative one.
	Gain int64
}

// Repacking is an ordered list of moves, each feasible when its turn comes.
type Repacking struct {
	Moves             []ItemMove
	InitialCost, Cost int64
}

// ErrInvalid wraps every complaint about a packing.
var ErrInvalid = errors.New("invalid packing")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Validate reports references out of range and vectors of the wrong length.
func (p *Packing) Validate() error {
	if len(p.Hosts) == 0 {
		return invalid("no hosts")
	}
	nodes, resources := len(p.Hosts[0].Free), -1
	for i, h := range p.Hosts {
		if len(h.Free) == 0 || len(h.Free) != nodes {
			return invalid("host %d: %d nodes, want %d", i, len(h.Free), nodes)
		}
		for _, free := range h.Free {
			if resources < 0 {
				resources = len(free)
			}
			if len(free) != resources {
				return invalid("host %d: %d resources, want %d", i, len(free), resources)
			}
			for r, amount := range free {
				if amount < 0 {
					return invalid("host %d: %d free of resource %d", i, amount, r)
				}
			}
		}
	}
	for i, item := range p.Items {
		if item.Host < 0 || item.Host >= len(p.Hosts) || item.Node < Split || item.Node >= nodes {
			return invalid("item %d: unknown host %d or node %d", i, item.Host, item.Node)
		}
		if len(item.Requirement) != resources {
			return invalid("item %d: %d requirements, want %d", i, len(item.Requirement), resources)
		}
	}
	for i, s := range p.Shapes {
		if s.Resource < 0 || s.Resource >= resources || s.Size <= 0 || s.Weight < 0 {
			return invalid("shape %d: unknown resource, or size or weight out of range", i)
		}
	}
	return nil
}
