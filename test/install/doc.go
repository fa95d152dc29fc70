// Package install installs the product in a cluster of real nodes as a user does,
// and lets it work there with only the rights that it was given: `make
// test-install`.
package install
