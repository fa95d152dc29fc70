package realnode

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// The size of every node: what it offers to pods. Small, so that a few pods
// make a difference, and the same on every machine that has as much, so that
// demos and tests do too.
const (
	nodeMilliCPU = 2000
	nodeMemory   = 4 << 30 // bytes
)

// evictionMemory is kept free by the kubelet beside what is reserved, in bytes.
const evictionMemory = 100 << 20

// reservation is what a kubelet keeps back from pods.
type reservation struct {
	MilliCPU int64
	// Memory is in bytes.
	Memory int64
}

func (r reservation) CPU() string { return strconv.FormatInt(r.MilliCPU, 10) + "m" }

// reserve returns what must be kept back so that a node of our size remains of
// the machine: nothing of what the machine has less of.
func reserve(machineCPUs int, machineMemory int64) reservation {
	return reservation{
		MilliCPU: max(0, int64(machineCPUs)*1000-nodeMilliCPU),
		Memory:   max(0, machineMemory-evictionMemory-nodeMemory),
	}
}

// machineSize returns the CPUs and bytes of memory that a kubelet will see. It
// counts the CPUs that are online, not those that this process may run on.
func machineSize() (cpus int, memory int64, err error) {
	online, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return 0, 0, fmt.Errorf("count CPUs: %w", err)
	}
	if cpus, err = countList(strings.TrimSpace(string(online))); err != nil {
		return 0, 0, fmt.Errorf("count CPUs: %w", err)
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("read the machine's memory: %w", err)
	}
	if memory, err = totalMemory(string(meminfo)); err != nil {
		return 0, 0, err
	}
	return cpus, memory, nil
}

// countList counts the members of a list like "0-3,6" (cpuset(7)).
func countList(list string) (int, error) {
	count := 0
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			return 0, fmt.Errorf("%q is not a list of numbers", list)
		}
		to := from
		if isRange {
			if to, err = strconv.Atoi(last); err != nil || to < from {
				return 0, fmt.Errorf("%q is not a list of numbers", list)
			}
		}
		count += to - from + 1
	}
	return count, nil
}

func totalMemory(meminfo string) (int64, error) {
	lines := bufio.NewScanner(strings.NewReader(meminfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the machine's memory: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read the machine's memory: no MemTotal in /proc/meminfo")
}
