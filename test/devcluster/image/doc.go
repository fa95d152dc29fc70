// Package image builds container images from static binaries, without a
// container runtime: one layer with the binaries and nothing else. Images are
// reproducible: the same binaries give the same digest.
//
// It must not run anything nor talk to a registry.
package image
