// Package reassignment searches for better places for things that already run:
// Google's machine reassignment problem (ROADEF/EURO challenge 2012) and its
// sibling, the repacking of fragmented hosts under a cap on the number of moves.
//
// It is a pure search core. It reads no clock, no file and no source of
// randomness but its seed; the caller says through Budget how much of the time
// is used up. Searches run in independent chains whose number is fixed, so for
// a budget of iterations the result does not depend on how many of them run at
// once. Memory is proportional to processes and machines, times resources;
// only the table of machine-move costs is quadratic, one byte an entry.
//
// Solve answers the first problem, Repack the second. Order and the plan of
// Repack put the moves in a sequence whose every prefix is feasible.
package reassignment
