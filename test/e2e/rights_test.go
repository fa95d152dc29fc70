//go:build e2e

package e2e

import (
	"errors"
	"flag"
	"fmt"

	"github.com/ai-storage/orchestrator/test/rights"
)

// unusedHere are rights that no test of this suite needs, and why they are given.
var unusedHere = map[rights.Right]string{
	{Resource: "events", Verb: "patch"}:                                               "counts up an event that is reported again",
	{Group: "events.k8s.io", Resource: "events", Verb: "patch"}:                       "counts up an event that is reported again",
	{Group: "migration.ai-storage", Resource: "podmigrations", Verb: "delete"}:        "removes records whose ttlSecondsAfterFinished is over",
	{Group: "topology.node.k8s.io", Resource: "noderesourcetopologies", Verb: "list"}: "reads NUMA nodes for the strategy Defragment, where an exporter reports them",
	{Resource: "secrets", Verb: "update"}:                                             "renews the certificate of the webhook before it ends",
}

// checkRights proves from the audit log that no program missed a right and, when
// all tests ran, that none has a right which it does not use.
func checkRights() error {
	uses, err := rights.Compare("../../manifests", env.cluster.AuditLogPath(), 0)
	if err != nil {
		return err
	}
	ranAll := flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == ""
	var failures []error
	for _, use := range uses {
		for _, right := range use.Forbidden.Sorted() {
			failures = append(failures, fmt.Errorf("%s was refused: %s", use.User, right))
		}
		unused := use.Unused()
		for _, right := range unused {
			if why, known := unusedHere[right]; known {
				fmt.Printf("rights: %s does not use here: %s: %s\n", use.User, right, why)
			} else if ranAll {
				failures = append(failures, fmt.Errorf("%s has a right that it does not use: %s", use.User, right))
			}
		}
		fmt.Printf("rights: %s: %d granted, %d of them used, %d refused\n",
			use.User, len(use.Granted), len(use.Granted)-len(unused), len(use.Forbidden))
	}
	return errors.Join(failures...)
}
