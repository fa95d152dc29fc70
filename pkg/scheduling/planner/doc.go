// Package planner turns a snapshot into a plan: an ordered list of moves with
// what is predicted before and after them. It decides and never acts: it calls no
// API and reads no clock. Its repacking runs a fixed number of annealing chains as
// goroutines (package annealing), which share nothing. The same snapshot, options,
// seed and answers of the Feasibility give the same plan, byte for byte, on any
// number of CPUs.
//
// The model is Google's machine reassignment problem (ROADEF/EURO challenge
// 2012) with fragmentation and a cap on moves. A node costs what it uses above
// its safe level, the square of its load, what is stranded, and by strategy for
// being in use and for free room that holds no whole shape. A move costs, and
// costs more for every other move of its workload.
//
// The search is local: best single moves first, then swaps, ejection chains and
// the emptying of whole nodes where single moves gain nothing, then parts of the
// plan are removed and found again (ruin and recreate). The scheduler is asked only
// about moves that the search wants, and the finished plan is tried on it once more,
// in order.
package planner
