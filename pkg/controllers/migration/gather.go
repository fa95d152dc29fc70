package migration

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration/decide"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// gather reads all that Next looks at.
func (r *reconciler) gather(ctx context.Context, m *v1alpha1.PodMigration) (*decide.State, error) {
	// A copy: the action and the status are written to m.
	s := &decide.State{Now: r.clock.Now(), Migration: m.DeepCopy(), Limits: r.limits, AgentImage: r.agentImage, PullSecrets: r.pullSecrets, DropAnnotations: r.dropAnnotations}
	var err error
	if m.Status.Phase.IsFinished() {
		if isKeeping(m) {
			if s.Claim, err = read(ctx, r.live, m.Namespace, m.Status.CheckpointClaim, &corev1.PersistentVolumeClaim{}); err != nil {
				return nil, err
			}
		}
		return s, r.gatherStrays(ctx, s)
	}
	if m.Spec.RecoverFrom != "" {
		return s, r.gatherRecovery(ctx, s)
	}
	if m.Status.Phase == "" || m.Status.Phase == v1alpha1.PhasePending {
		if err := r.gatherRequest(ctx, s); err != nil {
			return nil, err
		}
	} else {
		if s.Pod, err = read(ctx, r.live, m.Namespace, m.Spec.PodName, &corev1.Pod{}); err != nil {
			return nil, err
		}
		if err := r.gatherMade(ctx, s); err != nil {
			return nil, err
		}
	}
	if s.Owner, err = r.owner(ctx, s); err != nil {
		return nil, err
	}
	// The claims of the pod decide until there is a placeholder or a replacement.
	if s.Pod != nil && (m.Status.Phase != v1alpha1.PhaseHandingOver) {
		if s.Claims, err = r.claims(ctx, s.Pod, m.Status.CheckpointClaim); err != nil {
			return nil, err
		}
	}
	switch {
	case s.Pod != nil && s.Stored != nil:
		err = r.gatherVolumes(ctx, s)
	case s.Pod != nil && sealsNext(m):
		err = r.gatherStored(ctx, s)
	}
	return s, err
}

// gatherVolumes reads who else uses the claims of a pod, and which nodes reach its
// volumes, where that can matter.
func (r *reconciler) gatherVolumes(ctx context.Context, s *decide.State) error {
	hasClaim, hasAffinity := false, false
	for _, v := range s.Pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		hasClaim = true
		if _, volume := s.Claims(v.PersistentVolumeClaim.ClaimName); volume != nil && volume.Spec.NodeAffinity != nil {
			hasAffinity = true
		}
	}
	if hasClaim {
		list := &corev1.PodList{}
		if err := r.live.List(ctx, list, client.InNamespace(s.Pod.Namespace)); err != nil {
			return err
		}
		s.Neighbours = list.Items
	}
	if hasAffinity {
		list := &corev1.NodeList{}
		if err := r.live.List(ctx, list); err != nil {
			return err
		}
		for i := range list.Items {
			s.Nodes = append(s.Nodes, &list.Items[i])
		}
	}
	return nil
}

// gatherStrays finds what was created for a finished migration after its end: by a
// controller that was believed dead. It, or its successor, comes here afterwards.
func (r *reconciler) gatherStrays(ctx context.Context, s *decide.State) error {
	m := s.Migration
	if m.Status.Original == nil || m.Status.Times.Finished == nil || s.Now.After(m.Status.Times.Finished.Add(lateness)) {
		return nil
	}
	for _, reference := range []*v1alpha1.PodReference{m.Status.Replacement, m.Status.Placeholder} {
		if reference == nil {
			continue
		}
		pod, err := read(ctx, r.live, m.Namespace, reference.Name, &corev1.Pod{})
		if err != nil {
			return err
		}
		if pod != nil && pod.DeletionTimestamp == nil && isStray(m, pod) {
			s.Strays = append(s.Strays, *pod)
		}
	}
	if m.Status.CheckpointClaim == "" || m.Status.Checkpoint.ClaimReused {
		return nil
	}
	claim, err := read(ctx, r.live, m.Namespace, m.Status.CheckpointClaim, &corev1.PersistentVolumeClaim{})
	if err == nil && claim != nil && isUnused(m, claim) {
		s.StrayClaim = claim
	}
	return err
}

// lateness is how long after the end of a migration a controller that was believed dead
// may still create something for it. What is made under the name of the replacement counts
// for a shorter time: a user may create a pod of that name, and with that mark, again.
const (
	lateness            = time.Hour
	replacementLateness = 10 * time.Minute
)

// isStray reports whether a pod was created for a migration that had finished, and would
// have been removed with it: it has a name that the migration gives, and is not the pod
// that is recorded. Moments are those of two clocks, and only bound how long that counts.
func isStray(m *v1alpha1.PodMigration, pod metav1.Object) bool {
	finished, created := m.Status.Times.Finished, pod.GetCreationTimestamp().Time
	if finished == nil || !m.Status.Phase.IsFinished() || !v1alpha1.OwnedBy(pod.GetLabels(), m.UID) || created.After(finished.Add(lateness)) {
		return false
	}
	is := func(reference *v1alpha1.PodReference) bool {
		return reference != nil && reference.Name == pod.GetName() && reference.UID != pod.GetUID()
	}
	if is(m.Status.Placeholder) {
		return true
	}
	return m.Status.Phase != v1alpha1.PhaseSucceeded && is(m.Status.Replacement) && !created.After(finished.Add(replacementLateness))
}

// isUnused reports whether a claim of a migration that has finished still goes with the
// record: one that was used, or is kept, does not.
func isUnused(m *v1alpha1.PodMigration, claim metav1.Object) bool {
	return m.Status.Phase.IsFinished() && v1alpha1.OwnedBy(claim.GetLabels(), m.UID) &&
		slices.ContainsFunc(claim.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return o.UID == m.UID })
}

// gatherMade reads what the migration has made, by the names that were
// written down when it was accepted.
func (r *reconciler) gatherMade(ctx context.Context, s *decide.State) error {
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
	if p := m.Status.Placeholder; p != nil {
		if s.Placeholder, err = read(ctx, r.live, m.Namespace, p.Name, &corev1.Pod{}); err != nil {
			return err
		}
	}
	if h := m.Status.Handover; h != nil && owners.NeedsWebhook(h.Method) {
		if err := r.gatherSiblings(ctx, s, h.Owner); err != nil {
			return err
		}
	}
	if err := r.gatherNodes(ctx, s); err != nil {
		return err
	}
	if err := r.gatherComingNode(ctx, s); err != nil {
		return err
	}
	if m.Status.Phase == v1alpha1.PhaseHandingOver {
		s.PreviousClaim, err = r.previousClaim(ctx, s)
	}
	return err
}

// previousClaim reads the checkpoint claim that the original brought along; nil where it
// brought none.
func (r *reconciler) previousClaim(ctx context.Context, s *decide.State) (*corev1.PersistentVolumeClaim, error) {
	name := ""
	if c := s.Migration.Status.Checkpoint; c != nil {
		name = c.PreviousClaim
	}
	if name == "" && s.Pod != nil {
		name = containers.PreviousCheckpoint(s.Pod)
	}
	if name == "" {
		return nil, nil
	}
	return read(ctx, r.live, s.Migration.Namespace, name, &corev1.PersistentVolumeClaim{})
}

// gatherSiblings reads the pods of the owner. One that has become the replacement
// under a name that the owner gave is found by its mark.
func (r *reconciler) gatherSiblings(ctx context.Context, s *decide.State, owner *metav1.OwnerReference) error {
	list := &corev1.PodList{}
	if err := r.live.List(ctx, list, client.InNamespace(s.Migration.Namespace)); err != nil {
		return err
	}
	for i := range list.Items {
		pod := &list.Items[i]
		if controller := metav1.GetControllerOf(pod); controller == nil || controller.UID != owner.UID {
			continue
		}
		s.Siblings = append(s.Siblings, *pod)
		if !isMadeBy(s.Replacement, s.Migration) && isMadeBy(pod, s.Migration) && pod.Labels[v1alpha1.RoleLabel] == "" {
			s.Replacement = pod
		}
	}
	return nil
}

// isMadeBy reports whether a pod carries the mark of a migration.
func isMadeBy(pod *corev1.Pod, m *v1alpha1.PodMigration) bool {
	return pod != nil && v1alpha1.OwnedBy(pod.Labels, m.UID)
}

// gatherNodes reads how long the two nodes have not been Ready.
func (r *reconciler) gatherNodes(ctx context.Context, s *decide.State) (err error) {
	if node := s.Migration.Status.Original.NodeName; node != "" {
		if s.SourceDown, err = r.downFor(ctx, node, s.Now); err != nil {
			return err
		}
	}
	if node := s.DestinationNode(); node != "" {
		s.DestinationDown, err = r.downFor(ctx, node, s.Now)
	}
	return err
}

// downFor is how long a node has not been Ready; zero when it is. The moment is that of
// another clock: where ours is minutes ahead, a migration that is not committed ends before
// the grace is over, and where it is behind at its deadline. What is committed does not
// depend on it.
func (r *reconciler) downFor(ctx context.Context, name string, now time.Time) (time.Duration, error) {
	node, err := read(ctx, r.live, "", name, &corev1.Node{})
	if err != nil {
		return 0, err
	}
	if node == nil {
		return decide.NodeGone, nil
	}
	since := node.CreationTimestamp
	for _, c := range node.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return 0, nil
		}
		since = c.LastTransitionTime
	}
	// The clocks of two machines may differ.
	return max(1, now.Sub(since.Time)), nil
}

// claims reads the claims of a pod, and another one, and the volumes that they are
// bound to.
func (r *reconciler) claims(ctx context.Context, pod *corev1.Pod, another string) (containers.ClaimLookup, error) {
	found := map[string]*corev1.PersistentVolumeClaim{}
	bound := map[string]*corev1.PersistentVolume{}
	names := []string{another}
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		}
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		claim, err := read(ctx, r.live, pod.Namespace, name, &corev1.PersistentVolumeClaim{})
		if err != nil {
			return nil, err
		}
		found[name] = claim
		if claim == nil || claim.Spec.VolumeName == "" {
			continue
		}
		if bound[name], err = r.volume(ctx, claim.Spec.VolumeName); err != nil {
			return nil, err
		}
	}
	return func(name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
		return found[name], bound[name]
	}, nil
}

// volume reads a volume; nil when it does not exist. Of one on a path of its node the class
// may say that every node has the same path.
func (r *reconciler) volume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	volume, err := read(ctx, r.live, "", name, &corev1.PersistentVolume{})
	if err != nil || volume == nil || volume.Spec.HostPath == nil || volume.Spec.StorageClassName == "" {
		return volume, err
	}
	class, err := read(ctx, r.live, "", volume.Spec.StorageClassName, &storagev1.StorageClass{})
	if err != nil {
		return nil, err
	}
	return containers.WithSharedPath(volume, class), nil
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
