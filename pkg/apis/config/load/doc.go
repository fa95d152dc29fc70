// Package load reads the configuration that the scheduler and the rebalancer
// share, just as the scheduler does: strictly, with defaults, validated. It
// must not accept what the scheduler refuses, nor the other way round.
package load
