// Package skew runs the product against API servers of other versions than that
// of its libraries: `make test-skew`.
package skew
