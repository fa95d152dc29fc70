// Package repack searches for moves that leave free room less fragmented: hosts
// cut into NUMA nodes, items on one node or split over all of a host, and a cap
// on the number of moves.
//
// It anneals in the space of packings with at most so many displaced items, and
// puts every packing that it likes into an order in which each item finds room.
// It must not read a clock, a file or randomness but its seed.
package repack
