//go:build e2e

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ai-storage/orchestrator/test/rights"
)

// programs run with the rights of their service accounts in manifests/base, all
// the time and in every test.
var programs = []struct{ user, file string }{
	{"system:serviceaccount:ai-storage-system:ai-storage-scheduler", "scheduler-rbac.yaml"},
	{"system:serviceaccount:ai-storage-system:ai-storage-rebalancer", "rebalancer-rbac.yaml"},
	{"system:serviceaccount:ai-storage-node-agent:ai-storage-node-agent", "node-agent-rbac.yaml"},
}

// unusedHere are rights that no test of this suite needs, and why they are given.
var unusedHere = map[rights.Right]string{}

// checkRights proves from the audit log that no program missed a right and, when
// all tests ran, that none has a right which it does not use.
func checkRights() error {
	log, err := os.Open(env.cluster.AuditLogPath())
	if err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	defer log.Close()
	users := make([]string, len(programs))
	for i, program := range programs {
		users[i] = program.user
	}
	uses, err := rights.Uses(log, users...)
	if err != nil {
		return fmt.Errorf("rights: %w", err)
	}
	ranAll := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	var failures []error
	for _, program := range programs {
		manifest, err := os.ReadFile(filepath.Join("../../manifests/base", program.file))
		if err != nil {
			return fmt.Errorf("rights: %w", err)
		}
		granted, err := rights.Granted(manifest)
		if err != nil {
			return fmt.Errorf("rights: %s: %w", program.file, err)
		}
		use, unused := uses[program.user], 0
		for _, right := range use.Forbidden.Sorted() {
			failures = append(failures, fmt.Errorf("%s was refused: %s", program.user, right))
		}
		for _, right := range granted.Sorted() {
			if use.Used[right] {
				continue
			}
			unused++
			if why, known := unusedHere[right]; known {
				fmt.Printf("rights: %s: %s, unused here: %s\n", program.file, right, why)
			} else if ranAll {
				failures = append(failures, fmt.Errorf("%s grants what nobody uses: %s", program.file, right))
			}
		}
		fmt.Printf("rights: %s: %d granted, %d of them used, %d refused\n", program.file, len(granted), len(granted)-unused, len(use.Forbidden))
	}
	return errors.Join(failures...)
}
