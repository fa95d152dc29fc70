//go:build !breakpoints

package main

// onStep is for tests, which build with -tags breakpoints.
var onStep func(step string) error
