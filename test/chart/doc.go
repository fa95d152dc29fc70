// Package chart renders the Helm chart with values that users set. That the rest
// of manifests/ is the chart with its defaults, `make verify-generated` checks.
package chart
