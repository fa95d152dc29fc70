// Package race lets a property draw fewer examples where the race detector, which makes
// it ten times slower, runs beside it. `make test` runs these packages a second time
// without the detector and with all examples.
package race

// Examples is how many of all examples a test takes: all, or every eighth under the
// race detector.
func Examples(all uint64) uint64 {
	if Enabled {
		return max(1, all/8)
	}
	return all
}
