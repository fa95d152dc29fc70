//go:build !breakpoints

package main

import "k8s.io/apimachinery/pkg/types"

// onStep is for tests, which build with -tags breakpoints.
var onStep func(migration types.NamespacedName, step string) error
