package vmr

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ai-storage/orchestrator/pkg/scheduling/repack"
)

// ErrFormat wraps every complaint about a snapshot.
var ErrFormat = errors.New("malformed snapshot")

// Snapshot is the part of the file that matters here. CPU is in cores, memory in MB.
type Snapshot struct {
	Clusters []Cluster `json:"cluster_list"`
}

// Cluster is a set of hosts that instances never leave.
type Cluster struct {
	Name      string     `json:"cluster_name"`
	Hosts     []Host     `json:"host_info"`
	Instances []Instance `json:"vm_instance"`
}

// Host is a machine.
type Host struct {
	ID     string `json:"node_id"`
	Status string `json:"status"`
	Nodes  []Node `json:"numa"`
}

// Node is a NUMA node and what is free on it.
type Node struct {
	Node       int     `json:"node"`
	FreeCPU    float64 `json:"free_cpu"`
	FreeMemory float64 `json:"memory_huge_free_mb"`
}

// Instance is a virtual machine and what it takes of each NUMA node it is on.
type Instance struct {
	ID             string `json:"instance_id"`
	Type           string `json:"instance_type"`
	Host           string `json:"host_id"`
	AllowMigration bool   `json:"allow_migration"`
	Parts          []Part `json:"numa"`
}

// Part is an instance's share of one NUMA node.
type Part struct {
	Node   int     `json:"node"`
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"mem_mb"`
}

const (
	nodesPerHost = 2
	maxAmount    = 1 << 40
	// Amounts are kept in thousandths, since the file has fractions.
	thousandth = 1000
)

// Parse reads a snapshot and checks all references.
func Parse(r io.Reader) (*Snapshot, error) {
	s := &Snapshot{}
	if err := json.NewDecoder(r).Decode(s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for _, c := range s.Clusters {
		if err := c.validate(); err != nil {
			return nil, fmt.Errorf("%w: cluster %q: %w", ErrFormat, c.Name, err)
		}
	}
	return s, nil
}

func (c *Cluster) validate() error {
	hosts := map[string]bool{}
	for _, h := range c.Hosts {
		if hosts[h.ID] {
			return fmt.Errorf("host_info: %q is there twice", h.ID)
		}
		hosts[h.ID] = true
		if len(h.Nodes) != nodesPerHost {
			return fmt.Errorf("host %q: %d numa nodes, want %d", h.ID, len(h.Nodes), nodesPerHost)
		}
		for i, n := range h.Nodes {
			if n.Node != i {
				return fmt.Errorf("host %q: numa node %d at position %d", h.ID, n.Node, i)
			}
			if !isAmount(n.FreeCPU) || !isAmount(n.FreeMemory) {
				return fmt.Errorf("host %q: free room of numa node %d out of range", h.ID, i)
			}
		}
	}
	instances := map[string]bool{}
	for _, v := range c.Instances {
		if instances[v.ID] {
			return fmt.Errorf("vm_instance: %q is there twice", v.ID)
		}
		instances[v.ID] = true
		if !hosts[v.Host] {
			return fmt.Errorf("instance %q: unknown host_id %q", v.ID, v.Host)
		}
		if err := v.validate(); err != nil {
			return fmt.Errorf("instance %q: %w", v.ID, err)
		}
	}
	return nil
}

func (v *Instance) validate() error {
	if len(v.Parts) == 0 || len(v.Parts) > nodesPerHost {
		return fmt.Errorf("numa: %d entries, want 1 or %d", len(v.Parts), nodesPerHost)
	}
	for _, p := range v.Parts {
		if p.Node < 0 || p.Node >= nodesPerHost || !isAmount(p.CPU) || !isAmount(p.Memory) {
			return fmt.Errorf("numa: node %d or its amounts out of range", p.Node)
		}
	}
	if len(v.Parts) == nodesPerHost {
		if first, second := v.Parts[0], v.Parts[1]; first.Node == second.Node || first.CPU != second.CPU || first.Memory != second.Memory {
			return errors.New("numa: not split in half")
		}
	}
	return nil
}

func isAmount(f float64) bool { return f >= 0 && f <= maxAmount }

// Index tells which host and instance of the file an item of a Packing is.
type Index struct {
	Hosts     []*Host
	Instances []*Instance
	Clusters  []string // of instances
}

// Packing translates the snapshot; resource 0 is CPU, resource 1 memory, both
// in thousandths, and the shape is a number of cores on one NUMA node.
//
// An instance keeps its width: one that is on one NUMA node stays on one, one
// that is split stays split, whatever its type says (some instances of the
// published snapshot sit otherwise than their type).
func (s *Snapshot) Packing(shapeCores int64) (*repack.Packing, Index) {
	p := &repack.Packing{Shapes: []repack.Shape{{Resource: 0, Size: shapeCores * thousandth, Weight: 1}}}
	var index Index
	for zone := range s.Clusters {
		c := &s.Clusters[zone]
		number := map[string]int{}
		for i := range c.Hosts {
			h := &c.Hosts[i]
			number[h.ID] = len(p.Hosts)
			host := repack.Host{Zone: zone, Closed: h.Status != "ACTIVE"}
			for _, n := range h.Nodes {
				host.Free = append(host.Free, []int64{roomOf(n.FreeCPU), roomOf(n.FreeMemory)})
			}
			p.Hosts = append(p.Hosts, host)
			index.Hosts = append(index.Hosts, h)
		}
		for i := range c.Instances {
			v := &c.Instances[i]
			item := repack.Item{
				Requirement: []int64{needOf(v.Parts[0].CPU), needOf(v.Parts[0].Memory)},
				Host:        number[v.Host], Node: v.Parts[0].Node,
				Fixed: !v.AllowMigration,
			}
			if len(v.Parts) == nodesPerHost {
				item.Node = repack.Split
			}
			p.Items = append(p.Items, item)
			index.Instances = append(index.Instances, v)
			index.Clusters = append(index.Clusters, c.Name)
		}
	}
	return p, index
}

// Room is rounded down and need up, so that rounding never makes a move fit.
func roomOf(f float64) int64 { return int64(math.Floor(f * thousandth)) }
func needOf(f float64) int64 { return int64(math.Ceil(f * thousandth)) }
