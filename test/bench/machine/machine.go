// Package machine tells benchmarks what they run on.
package machine

import (
	"bufio"
	"os"
	"strings"
)

// Unknown stands for what the system does not tell.
const Unknown = "unknown"

// Processor is the model of the processor, by /proc/cpuinfo.
func Processor() string { return field("/proc/cpuinfo", "model name") }

// Memory is all of the memory with its unit, by /proc/meminfo.
func Memory() string { return field("/proc/meminfo", "MemTotal") }

// field is a value of a file of lines "name : value".
func field(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return Unknown
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return Unknown
}
