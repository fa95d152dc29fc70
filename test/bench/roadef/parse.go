package roadef

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/ai-storage/orchestrator/test/bench/reassignment"
)

// Limits keep a broken file from asking for all memory; the challenge's own
// largest instances have 5,000 machines, 50,000 processes and 12 resources.
const (
	maxResources = 1000
	maxMachines  = 20_000
	maxItems     = 2_000_000
)

// ErrFormat wraps every complaint about a file.
var ErrFormat = errors.New("malformed instance")

// integers reads whitespace-separated numbers and keeps the first error.
type integers struct {
	in   *bufio.Reader
	read int
	err  error
}

func newIntegers(r io.Reader) *integers {
	return &integers{in: bufio.NewReaderSize(r, 1<<20)}
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\r' || b == '\t' }

// next returns the next number, which must be within [0, limit].
func (i *integers) next(what string, limit int64) int64 {
	if i.err != nil {
		return 0
	}
	b, err := i.in.ReadByte()
	for err == nil && isSpace(b) {
		b, err = i.in.ReadByte()
	}
	if err != nil {
		return i.fail(what, err)
	}
	var value int64
	for ; err == nil && !isSpace(b); b, err = i.in.ReadByte() {
		if b < '0' || b > '9' {
			return i.fail(what, fmt.Errorf("unexpected %q", b))
		}
		value = value*10 + int64(b-'0')
		if value > limit {
			return i.fail(what, fmt.Errorf("more than %d", limit))
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return i.fail(what, err)
	}
	i.read++
	return value
}

func (i *integers) fail(what string, err error) int64 {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	i.err = fmt.Errorf("%w: number %d (%s): %w", ErrFormat, i.read+1, what, err)
	return 0
}

// end fails unless only whitespace is left.
func (i *integers) end() error {
	for i.err == nil {
		b, err := i.in.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			i.err = fmt.Errorf("%w: %w", ErrFormat, err)
		} else if !isSpace(b) {
			i.err = fmt.Errorf("%w: more after number %d", ErrFormat, i.read)
		}
	}
	return i.err
}

const anyAmount = 1 << 40

func (i *integers) vector(what string, length int) []int64 {
	v := make([]int64, length)
	for k := range v {
		v[k] = i.next(what, anyAmount)
	}
	return v
}

// ParseModel reads a model file: whitespace-separated integers in the order
// that the challenge gives.
func ParseModel(r io.Reader) (*reassignment.Problem, error) {
	in := newIntegers(r)
	p := &reassignment.Problem{}
	for range in.next("number of resources", maxResources) {
		transient := in.next("transient", 1) == 1
		p.Resources = append(p.Resources, reassignment.Resource{Transient: transient, LoadWeight: in.next("load weight", anyAmount)})
	}
	parseMachines(in, p)
	parseServices(in, p)
	for range in.next("number of processes", maxItems) {
		service := in.next("service of a process", max(0, int64(len(p.Services))-1))
		requirement := in.vector("requirement", len(p.Resources))
		p.Processes = append(p.Processes, reassignment.Process{
			Service: int(service), Requirement: requirement, MoveCost: in.next("process-move cost", anyAmount),
		})
		if in.err != nil {
			return nil, in.err
		}
	}
	lastResource := max(0, int64(len(p.Resources))-1)
	for range in.next("number of balance objectives", maxItems) {
		p.Balances = append(p.Balances, reassignment.Balance{
			A: int(in.next("first resource of a balance", lastResource)), B: int(in.next("second resource of a balance", lastResource)),
			Target: in.next("balance target", anyAmount), Weight: in.next("balance weight", anyAmount),
		})
		if in.err != nil {
			return nil, in.err
		}
	}
	p.ProcessMoveWeight = in.next("weight of process moves", anyAmount)
	p.ServiceMoveWeight = in.next("weight of service moves", anyAmount)
	p.MachineMoveWeight = in.next("weight of machine moves", anyAmount)
	if err := in.end(); err != nil {
		return nil, err
	}
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return p, nil
}

func parseMachines(in *integers, p *reassignment.Problem) {
	machines := int(in.next("number of machines", maxMachines))
	if in.err != nil {
		return
	}
	for m := range machines {
		p.Machines = append(p.Machines, reassignment.Machine{
			Neighborhood: int(in.next("neighborhood", maxItems)), Location: int(in.next("location", maxItems)),
			Capacity: in.vector("capacity", len(p.Resources)), Safety: in.vector("safety capacity", len(p.Resources)),
		})
		costs := in.vector("machine-move cost", machines)
		if in.err != nil {
			return
		}
		if m == 0 {
			p.MachineMoveCosts = reassignment.NewCostMatrix(machines)
		}
		for to, cost := range costs {
			p.MachineMoveCosts.Set(m, to, cost)
		}
	}
}

func parseServices(in *integers, p *reassignment.Problem) {
	services := in.next("number of services", maxItems)
	for range services {
		s := reassignment.Service{SpreadMin: int(in.next("spread minimum", maxItems))}
		for range in.next("number of dependencies", services) {
			s.DependsOn = append(s.DependsOn, int(in.next("dependency", services-1)))
			if in.err != nil {
				return
			}
		}
		p.Services = append(p.Services, s)
		if in.err != nil {
			return
		}
	}
}

// ParseAssignment reads one machine index per process.
func ParseAssignment(r io.Reader, p *reassignment.Problem) (reassignment.Assignment, error) {
	in := newIntegers(r)
	a := make(reassignment.Assignment, len(p.Processes))
	for i := range a {
		a[i] = int32(in.next("machine of a process", max(0, int64(len(p.Machines))-1)))
	}
	if err := in.end(); err != nil {
		return nil, err
	}
	return a, nil
}

// WriteAssignment writes a solution as the challenge wants it.
func WriteAssignment(w io.Writer, a reassignment.Assignment) error {
	out := bufio.NewWriter(w)
	for i, m := range a {
		if i > 0 {
			fmt.Fprint(out, " ")
		}
		fmt.Fprint(out, m)
	}
	fmt.Fprintln(out)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing the solution: %w", err)
	}
	return nil
}
