// Package skew fits the scheduler's libraries to the API server that they talk
// to. They are of one version of Kubernetes and watch what that version
// serves; an older API server does not serve all of it, and an informer of what is not
// there never fills. Kubernetes itself does not run a scheduler that is newer
// than its API server, but its components can behave as an older version did, and
// that is what is asked of them here.
//
// What is asked is known at the start. After an upgrade of the API server the
// binaries behave as before until they are restarted.
package skew
