package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// generate writes one instance of each family for machines that have no data.
// They only show that the programs work: their figures compare with nothing.
func generate(o options) (models, snapshots []string, err error) {
	random := rand.New(rand.NewPCG(o.seed, 1))
	model, snapshot := filepath.Join(o.out, "model_generated.txt"), filepath.Join(o.out, "generated.json")
	assignment := filepath.Join(o.out, "assignment_generated.txt")
	steps := []struct {
		path  string
		write func(*bufio.Writer, *rand.Rand)
	}{{model, generateModel}, {assignment, generateAssignment}, {snapshot, generateSnapshot}}
	for _, step := range steps {
		err := writeFile(step.path, func(f *os.File) error {
			w := bufio.NewWriter(f)
			step.write(w, random)
			return w.Flush()
		})
		if err != nil {
			return nil, nil, fmt.Errorf("generating an instance: %w", err)
		}
	}
	return []string{model}, []string{snapshot}, nil
}

const generatedMachines, processesPerMachine = 40, 10

// generateModel makes two resources, of which the second is transient, and
// services of four processes.
func generateModel(w *bufio.Writer, random *rand.Rand) {
	fmt.Fprintf(w, "2\n0 10\n1 10\n%d\n", generatedMachines)
	for m := range generatedMachines {
		fmt.Fprintf(w, "%d %d 10000 10000 6000 6000", m%4, m%8)
		for to := range generatedMachines {
			fmt.Fprintf(w, " %d", min(1, (to-m)*(to-m)))
		}
		fmt.Fprintln(w)
	}
	processes := generatedMachines * processesPerMachine
	fmt.Fprintln(w, processes/4)
	for range processes / 4 {
		fmt.Fprintln(w, "2 0")
	}
	fmt.Fprintln(w, processes)
	for p := range processes {
		fmt.Fprintf(w, "%d %d %d 1\n", p%(processes/4), 10+random.IntN(900), 10+random.IntN(900))
	}
	fmt.Fprintln(w, "1\n0 1 1\n10\n1 10 100")
}

// generateAssignment spreads every service over four machines.
func generateAssignment(w *bufio.Writer, _ *rand.Rand) {
	const processes, apart = generatedMachines * processesPerMachine, 7
	for p := range processes {
		fmt.Fprintf(w, "%d ", (p+apart*(p/(processes/4)))%generatedMachines)
	}
}

func generateSnapshot(w *bufio.Writer, random *rand.Rand) {
	const hosts, cores, coresPerInstance = 40, 44, 4
	instance := 0
	var hostList, instanceList string
	for h := range hosts {
		var nodes string
		for n := range 2 {
			count := 6 + random.IntN(5)
			for range count {
				instanceList += fmt.Sprintf(`{"instance_id":"vm_%d","instance_type":"t","host_id":"pm_%d","numa":[{"node":%d,"cpu":%d,"mem_mb":8192}],"allow_migration":true},`, instance, h, n, coresPerInstance)
				instance++
			}
			nodes += fmt.Sprintf(`{"node":%d,"free_cpu":%d,"memory_huge_free_mb":%d},`, n, cores-count*coresPerInstance, 184388-count*8192)
		}
		hostList += fmt.Sprintf(`{"node_id":"pm_%d","status":"ACTIVE","numa":[%s]},`, h, nodes[:len(nodes)-1])
	}
	fmt.Fprintf(w, `{"cluster_list":[{"cluster_name":"generated","host_info":[%s],"vm_instance":[%s]}]}`,
		hostList[:len(hostList)-1], instanceList[:len(instanceList)-1])
}
