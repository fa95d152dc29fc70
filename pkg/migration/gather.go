package migration

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/containers"
)

// gather reads all that Next looks at.
func (r *reconciler) gather(ctx context.Context, m *v1alpha1.PodMigration) (*State, error) {
	s := &State{Now: r.clock.Now(), Migration: m, Limits: r.limits}
	if m.Status.Phase.IsFinished() {
		return s, nil
	}
	var err error
	if s.Pod, err = read(ctx, r.live, m.Namespace, m.Spec.PodName, &corev1.Pod{}); err != nil {
		return nil, err
	}
	if m.Status.Phase == "" || m.Status.Phase == v1alpha1.PhasePending {
		if err := r.gatherRequest(ctx, s); err != nil {
			return nil, err
		}
	} else if err := r.gatherMade(ctx, s); err != nil {
		return nil, err
	}
	needsClaims := s.Pod != nil && (m.Status.Phase == "" || m.Status.Phase == v1alpha1.PhasePending || m.Status.Phase == v1alpha1.PhasePreparing)
	if needsClaims {
		s.Claims, err = r.claims(ctx, s.Pod)
	}
	return s, err
}

// gatherRequest reads what a request is checked against.
func (r *reconciler) gatherRequest(ctx context.Context, s *State) error {
	m := s.Migration
	list := &v1alpha1.PodMigrationList{}
	if err := r.live.List(ctx, list, client.InNamespace(m.Namespace)); err != nil {
		return err
	}
	s.Others = list.Items
	if m.Spec.TargetNode != "" {
		node, err := read(ctx, r.live, "", m.Spec.TargetNode, &corev1.Node{})
		if err != nil {
			return err
		}
		s.TargetNodeExists = node != nil
	}
	return nil
}

// gatherMade reads what the migration has made, by the names that were
// written down when it was accepted.
func (r *reconciler) gatherMade(ctx context.Context, s *State) error {
	m := s.Migration
	var err error
	if name := m.Status.Replacement; name != nil {
		if s.Replacement, err = read(ctx, r.live, m.Namespace, name.Name, &corev1.Pod{}); err != nil {
			return err
		}
	}
	if claim := m.Status.CheckpointClaim; claim != "" {
		if s.Claim, err = read(ctx, r.live, m.Namespace, claim, &corev1.PersistentVolumeClaim{}); err != nil {
			return err
		}
	}
	if s.Pod != nil && m.Status.Phase == v1alpha1.PhaseHandingOver {
		if previous := containers.PreviousCheckpoint(s.Pod); previous != "" {
			s.PreviousClaim, err = read(ctx, r.live, m.Namespace, previous, &corev1.PersistentVolumeClaim{})
		}
	}
	return err
}

// claims reads the claims of a pod and the volumes that they are bound to.
func (r *reconciler) claims(ctx context.Context, pod *corev1.Pod) (containers.ClaimLookup, error) {
	found := map[string]*corev1.PersistentVolumeClaim{}
	bound := map[string]*corev1.PersistentVolume{}
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		name := v.PersistentVolumeClaim.ClaimName
		claim, err := read(ctx, r.live, pod.Namespace, name, &corev1.PersistentVolumeClaim{})
		if err != nil {
			return nil, err
		}
		found[name] = claim
		if claim == nil || claim.Spec.VolumeName == "" {
			continue
		}
		if bound[name], err = read(ctx, r.live, "", claim.Spec.VolumeName, &corev1.PersistentVolume{}); err != nil {
			return nil, err
		}
	}
	return func(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
		return found[name], bound[name]
	}, nil
}

// read gets an object; the zero T when it does not exist.
func read[T client.Object](ctx context.Context, from client.Reader, namespace, name string, into T) (T, error) {
	var none T
	err := from.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, into)
	if apierrors.IsNotFound(err) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	return into, nil
}
