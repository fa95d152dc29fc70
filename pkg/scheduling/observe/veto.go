package observe

import corev1 "k8s.io/api/core/v1"

// Excluded says by which annotation the author of a pod keeps the rebalancer
// away from it; empty when there is none.
func Excluded(pod *corev1.Pod) string { return notExcluded(&examination{pod: pod}) }
