// Package e2e proves the main job on real nodes: real kubelets, real
// containers, real measurements. It runs with the build tag e2e, as root on
// Linux; `make e2e` builds what it needs.
package e2e
