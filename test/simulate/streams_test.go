package simulate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// What interferes with a stream of one agent to the other, and with what it has brought,
// and how the migration ends then.
func TestWhatInterferesWithStreams(t *testing.T) {
	startFirst := way{owner: ownedDeployment, scratch: true}
	withClaim := way{owner: ownedDeployment, scratch: true, claim: v1alpha1.ClaimAlways}
	stopFirst := way{owner: ownedSet, scratch: true, stopsFirst: true}
	diskOnly := way{owner: ownedSet, scratch: true, claim: v1alpha1.ClaimNever, stopsFirst: true}
	const minute = time.Minute
	tests := []struct {
		name string
		way
		kind  string
		of    string
		calls []int
		lasts time.Duration
		// want is how it ends; says is a part of its message.
		want, says string
	}{
		{"the network is cut in a pass", startFirst, "CutLinks", "pass", []int{1, 2, 3}, 3 * time.Second, "Succeeded/Succeeded", ""},
		{"the network is cut in a pass, stop first", stopFirst, "CutLinks", "pass", []int{1, 2, 3, 4}, 3 * time.Second, "Succeeded/Succeeded", ""},
		{"the network is cut after the seal", stopFirst, "CutLinks", "seal", []int{1}, 5 * minute, "Succeeded/Succeeded", ""},
		{"the agent of the destination dies in a pass", startFirst, "DestinationAgentDies", "pass", []int{1, 2, 3}, 8 * time.Second, "Succeeded/Succeeded", ""},
		{"the agent of the destination dies in a pass, stop first", stopFirst, "DestinationAgentDies", "pass", []int{1, 2, 3, 4}, 8 * time.Second, "Succeeded/Succeeded", ""},
		{"the agent of the destination dies after the seal", diskOnly, "DestinationAgentDies", "seal", []int{1}, 8 * time.Second, "Succeeded/Succeeded", ""},
		{"the agent of the source dies while the pod runs", stopFirst, "SourceAgentDies", "pass", []int{1, 2}, 8 * time.Second, "Succeeded/Succeeded", ""},
		{"the destination takes no pods any more after the seal, the claim has a copy", stopFirst, "CordonDestination", "evict", []int{2, 3}, minute, "Succeeded/Succeeded", ""},
		{"the destination takes no pods any more after the seal, nothing else has a copy", diskOnly, "CordonDestination", "evict", []int{3}, minute, "Succeeded/Succeeded", ""},
		{"the destination dies after the seal, the claim has a copy", stopFirst, "KillDestination", "evict", []int{2, 3}, minute, "recovery Succeeded/Succeeded", ""},
		{"the destination dies after the seal, nothing else has a copy", diskOnly, "KillDestination", "evict", []int{2, 3}, minute, "Failed/RestoreFailed", "no longer exists"},
		{"the destination is started again after the seal, nothing else has a copy", diskOnly, "DestinationReboots", "evict", []int{2, 3}, minute, "Succeeded/Succeeded", ""},
		{"the destination dies after the seal, the original runs", startFirst, "KillDestination", "seal", []int{1}, minute, "Failed/", ""},
		{"the claim is full", withClaim, "ClaimFull", "pass", []int{1, 3}, 5 * minute, "Failed/ClaimTooSmall", ""},
		{"the claim is full, stop first", stopFirst, "ClaimFull", "pass", []int{1, 3}, 5 * minute, "Failed/ClaimTooSmall", ""},
		{"the storage of the claim hangs", stopFirst, "VolumesHang", "pass", []int{1, 2, 3, 4}, 5 * minute, "Failed/", ""},
		{"the placeholder is deleted after the seal", diskOnly, "DeletePlaceholder", "seal", []int{1}, minute, "Failed/PlaceholderDeleted", ""},
		{"the placeholder is preempted after the seal", stopFirst, "PreemptPlaceholder", "evict", []int{3}, minute, "Succeeded/Succeeded", ""},
		{"the placeholder is evicted after the seal", diskOnly, "EvictPlaceholder", "evict", []int{3}, minute, "Succeeded/Succeeded", ""},
		{"a stranger connects", startFirst, "Stranger", "pass", []int{1, 2, 3}, minute, "Succeeded/Succeeded", ""},
	}
	for _, test := range tests {
		for _, call := range test.calls {
			t.Run(fmt.Sprintf("%s %d", test.name, call), func(t *testing.T) {
				t.Parallel()
				s := test.scenario()
				drawn := []Disturbance{{Kind: test.kind, Of: test.of, Call: call, Lasts: test.lasts}}
				r := runDisturbed(Options{Seed: 1, Trace: true}, s, drawn)
				switch {
				case r.Violation != nil:
					r.Print(t.Output())
					t.Fatal("a promise is broken")
				case r.Statistic.Drawn[test.kind] != 1:
					t.Fatalf("it has not happened: %v", r.Statistic.Drawn)
				case !hasEnd(r, test.want) || !strings.Contains(r.migrations[0].Status.Message, test.says):
					r.Print(t.Output())
					t.Errorf("ended with %v, want %s with a message that has %q", r.Statistic.Ends, test.want, test.says)
				}
				if bound := time.Duration(s.maxFreeze) * time.Second; r.frozen > bound {
					t.Errorf("the pod was thawed after %s, want %s at most", r.frozen, bound)
				}
			})
		}
	}
}

func hasEnd(r Result, want string) bool {
	for end := range r.Statistic.Ends {
		if strings.HasPrefix(end, want) {
			return true
		}
	}
	return false
}

// Where a claim is needed and there is no StorageClass, that is said before anything begins,
// and what to do.
func TestNoStorageClassIsSaidEarly(t *testing.T) {
	needed := way{owner: ownedSet, scratch: true, noClass: true, stopsFirst: true}
	r := runDisturbed(Options{Seed: 1}, needed.scenario(), nil)
	if r.Violation != nil || len(r.migrations) != 1 {
		t.Fatalf("%d migrations, violation %v", len(r.migrations), r.Violation)
	}
	m := r.migrations[0]
	if !hasEnd(r, "Failed/NoStorageClass") || m.Status.Times.Started != nil {
		t.Errorf("ended with %v, started %v; want Failed/NoStorageClass before it starts", r.Statistic.Ends, m.Status.Times.Started)
	}
	for _, part := range []string{"spec.checkpoint.claim", string(v1alpha1.ClaimNever), "storageClassName"} {
		if !strings.Contains(m.Status.Message, part) {
			t.Errorf("message %q does not name %s", m.Status.Message, part)
		}
	}
}
