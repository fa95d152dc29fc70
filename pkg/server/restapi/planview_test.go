package restapi

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/ai-storage/orchestrator/pkg/controllers/rebalance"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
	"github.com/ai-storage/orchestrator/pkg/scheduling/planner"
)

// The answer has one case, whatever that of the loop is, and lists that are never null.
func TestThePlanIsInTheWordsOfTheAPI(t *testing.T) {
	move := planner.Move{Pod: cluster.PodKey{Namespace: "ns", Name: "train"}, From: "a", To: "b", FreedRequests: cluster.Resources{MilliCPU: 1500}}
	encoded, err := json.Marshal(LoopStatusOf(&rebalance.Status{Plan: &planner.Plan{Moves: []planner.Move{move}}}))
	if err != nil {
		t.Fatal(err)
	}
	if keys := regexp.MustCompile(`"[A-Za-z_]*[A-Z][A-Za-z_]*":`).FindAllString(string(encoded), -1); len(keys) > 0 {
		t.Errorf("keys with capital letters: %v", keys)
	}
	if got := strings.ReplaceAll(string(encoded), `"expected_downtime_seconds":null`, ""); strings.Contains(got, "null") {
		t.Errorf("null where a list should be empty: %s", encoded)
	}
	for _, want := range []string{`"namespace":"ns","pod_name":"train"`, `"source_node":"a","target_node":"b"`, `"freed_requests":{"cpu":1500,"memory":0,"extended":{}}`, `"after":[]`} {
		if !strings.Contains(string(encoded), want) {
			t.Errorf("%s is not in %s", want, encoded)
		}
	}
	if empty := LoopStatusOf(&rebalance.Status{Plan: &planner.Plan{}}); empty.Moves == nil || empty.Cooldowns == nil || empty.Skipped == nil {
		t.Errorf("nil lists: %+v", empty)
	}
}
