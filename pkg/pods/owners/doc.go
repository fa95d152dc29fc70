// Package owners knows how the controllers of Kubernetes treat their pods: which
// pod may be moved, when it is a bad moment, and what has to be written on which
// pod so that a controller accepts a replacement.
//
// Adopt. A ReplicaSet counts the pods that match its selector. A replacement that
// lacks one label of the selector is not counted, so it can be brought up beside
// the original. When it works, the original is marked as the pod to delete first
// and the replacement gets its label: the ReplicaSet adopts it, has one pod too
// many, and deletes the marked one (k8s.io/kubernetes/pkg/controller,
// ActivePodsWithRanks). So the number of available replicas never falls.
//
// Release. What ties the original to its ReplicaSet or Job is taken away in one
// patch and written down on it. The owner at once makes another pod, which the
// admission webhook turns into the replacement; the original works on, as a pod
// that nobody owns. Undoing restores all of it.
//
// Recreate. A StatefulSet, and what the author of a pod vouches for, makes
// another pod once the original is gone; the admission webhook turns that into the
// replacement.
//
// What the owner's spec says counts before what we would like: whether its pods may
// overlap (StopsFirst), of which revision the next one is (Refuse), whether it makes
// one at all (Suspended, Ended, NoNextPod), and whether it manages a pod that is given
// back to it (Abandons). Marks on the pod tell who must not be disturbed (Excluded)
// and who works together with others (NeedsOptIn).
//
// The package must not call an API server, read a clock or log.
package owners
