package budget

import "testing"

func TestLedgerCheck(t *testing.T) {
	limits := Limits{InFlight: 4, PerNode: 2, PerNamespace: 3, PerWorkload: 1}
	move := func(namespace, workload, from, to string) Move {
		return Move{Namespace: namespace, Workload: workload, From: from, To: to}
	}
	tests := []struct {
		name     string
		limits   Limits
		inFlight []Move
		move     Move
		want     string
	}{
		{"empty", limits, nil, move("ns", "w", "a", "b"), ""},
		{"zero allows nothing", Limits{}, nil, move("ns", "w", "a", "b"), "0 of 0 migrations in flight"},
		{"same workload", limits, []Move{move("ns", "w", "a", "b")}, move("ns", "w", "c", "d"), "1 of 1 migrations in flight for w"},
		{"source counts with source", limits, []Move{move("ns", "1", "a", "b"), move("ns", "2", "a", "c")}, move("ns", "3", "a", "d"), "2 of 2 migrations in flight on node a"},
		{"destination counts with source", limits, []Move{move("ns", "1", "a", "b"), move("ns", "2", "b", "c")}, move("ns", "3", "d", "b"), "2 of 2 migrations in flight on node b"},
		{"namespace", limits, []Move{move("ns", "1", "a", "b"), move("ns", "2", "c", "d"), move("ns", "3", "e", "f")}, move("ns", "4", "g", "h"), "3 of 3 migrations in flight in namespace ns"},
		{"cluster", limits, []Move{move("1", "1", "a", "b"), move("2", "2", "c", "d"), move("3", "3", "e", "f"), move("4", "4", "g", "h")}, move("5", "5", "i", "j"), "4 of 4 migrations in flight"},
		{"above a limit that was lowered", Limits{InFlight: 1, PerNode: 9, PerNamespace: 9, PerWorkload: 9}, []Move{move("1", "1", "a", "b"), move("2", "2", "c", "d")}, move("3", "3", "e", "f"), "2 of 1 migrations in flight"},
		{"an unknown destination counts on no node", limits, []Move{move("1", "1", "a", ""), move("2", "2", "b", "")}, move("3", "3", "c", ""), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := NewLedger(tt.limits, tt.inFlight...).Check(tt.move); got != tt.want {
				t.Errorf("Check = %q, want %q", got, tt.want)
			}
		})
	}
}
