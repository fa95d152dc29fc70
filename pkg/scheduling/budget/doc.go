// Package budget counts how much is disrupted at once and says what stands in
// the way of more. It holds no state of its own: a ledger is made from the
// migrations that are in flight, so the count survives restarts.
package budget
