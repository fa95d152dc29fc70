// Package reassignment solves Google's machine reassignment problem (ROADEF/EURO
// challenge 2012) by annealing over shifts, swaps and ejections, without ever
// leaving the feasible assignments. It is a benchmark of its own: the product
// plans with pkg/scheduling/planner and does not contain this code.
//
// Memory is proportional to processes and machines, times resources; only the
// table of machine-move costs is quadratic, one byte an entry.
package reassignment
