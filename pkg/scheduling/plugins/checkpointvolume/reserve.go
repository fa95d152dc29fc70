package checkpointvolume

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
)

// reservations are the unshared claims of replacements on their way to a node, in
// memory. Two pods must not pull one volume to two nodes.
type reservations struct {
	activate func(map[string]*corev1.Pod)

	mu      sync.Mutex
	holders map[types.NamespacedName]*holder
}

type holder struct {
	pod types.UID
	// rejected are the pods to be activated when the claim is released.
	rejected map[string]*corev1.Pod
}

func newReservations(activate func(map[string]*corev1.Pod)) *reservations {
	return &reservations{activate: activate, holders: map[types.NamespacedName]*holder{}}
}

// take reserves the claim for the pod. It reports false when another has it.
func (r *reservations) take(claim types.NamespacedName, pod *corev1.Pod) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	current, ok := r.holders[claim]
	if ok && current.pod != pod.UID {
		current.rejected[podKey(pod)] = pod
		return false
	}
	if !ok {
		r.holders[claim] = &holder{pod: pod.UID, rejected: map[string]*corev1.Pod{}}
	}
	return true
}

// release ends the reservation of this pod, if it has one.
func (r *reservations) release(claim types.NamespacedName, pod *corev1.Pod) {
	r.mu.Lock()
	current, ok := r.holders[claim]
	ok = ok && current.pod == pod.UID
	if ok {
		delete(r.holders, claim)
	}
	r.mu.Unlock()
	if ok && len(current.rejected) > 0 {
		r.activate(current.rejected)
	}
}

// Reserve takes the claims that only one node may have. When one is refused,
// the scheduler calls Unreserve, which gives back the others.
func (p *Plugin) Reserve(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, _ string) *fwk.Status {
	p.startSweeping()
	for _, key := range claimsOf(pod) {
		claim, err := p.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
		if err != nil {
			return fwk.AsStatus(fmt.Errorf("reading claim %s: %w", key, err))
		}
		if !isShared(claim) && !p.reserved.take(key, pod) {
			return fwk.NewStatus(fwk.Unschedulable, fmt.Sprintf("claim %q is on its way to a node for another pod", key.Name))
		}
	}
	return nil
}

// Unreserve gives the claims back and undoes the attachments that PreBind made.
func (p *Plugin) Unreserve(ctx context.Context, state fwk.CycleState, pod *corev1.Pod, node string) {
	claims := claimsOf(pod)
	if len(claims) == 0 {
		return
	}
	p.undoAttachments(ctx, state, pod, node)
	for _, key := range claims {
		p.reserved.release(key, pod)
	}
}

// PostBind gives the claims back: from here on the bound pod refers to them.
func (p *Plugin) PostBind(_ context.Context, _ fwk.CycleState, pod *corev1.Pod, _ string) {
	for _, key := range claimsOf(pod) {
		p.reserved.release(key, pod)
	}
}
