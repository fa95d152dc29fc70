// Package quality compares the planner with simple rules on one skewed cluster,
// cycle by cycle and without an API server: nodes and pods of the openb trace,
// usage of PlanetLab machines, from the directory BENCH_DATA. The comparison with
// the real descheduler on a real API server is a benchmark of its own.
package quality
