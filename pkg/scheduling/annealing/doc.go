// Package annealing runs independent chains of simulated annealing under a
// budget. Their number is fixed, so for a budget of iterations the result does
// not depend on how many of them run at once.
//
// It reads no clock and no source of randomness but its seed; the caller says
// through Budget how much of the time is used up.
package annealing
