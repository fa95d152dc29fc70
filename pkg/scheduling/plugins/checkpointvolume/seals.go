package checkpointvolume

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// Indexes of the cache: the migration itself, and the owner of its pod.
const (
	uidIndex   = "uid"
	ownerIndex = "owner"
)

// seals reports whether checkpoints are sealed, and whether pods are those that a
// migration expects, from a cache of the PodMigrations. The cache is filled from
// the moment the first pod of an owner asks. Where the API does not serve
// PodMigrations, or does not let us read them, nothing is held.
type seals struct {
	start    func()
	activate func(map[string]*corev1.Pod)
	informer cache.SharedIndexInformer

	mu         sync.Mutex
	unreadable bool
	// held are the pods that wait, by migration.
	held map[types.UID]map[string]*corev1.Pod
}

// newSeals returns nil, which holds nothing, without a configuration: a
// simulation has none.
func newSeals(ctx context.Context, config *rest.Config, activate func(map[string]*corev1.Pod)) (*seals, error) {
	if config == nil {
		return nil, nil
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for PodMigrations: %w", err)
	}
	return sealsOf(ctx, client, activate)
}

func sealsOf(ctx context.Context, client dynamic.Interface, activate func(map[string]*corev1.Pod)) (*seals, error) {
	resource := v1alpha1.SchemeGroupVersion.WithResource("podmigrations")
	indexes := cache.Indexers{
		uidIndex: func(object any) ([]string, error) {
			return []string{string(object.(*v1alpha1.PodMigration).UID)}, nil
		},
		ownerIndex: func(object any) ([]string, error) {
			if h := object.(*v1alpha1.PodMigration).Status.Handover; h != nil && h.Owner != nil {
				return []string{string(h.Owner.UID)}, nil
			}
			return nil, nil
		},
	}
	s := &seals{
		activate: activate,
		informer: dynamicinformer.NewFilteredDynamicInformer(client, resource, metav1.NamespaceAll, 0, indexes, nil).Informer(),
		held:     map[types.UID]map[string]*corev1.Pod{},
	}
	if err := s.informer.SetTransform(sealOnly); err != nil {
		return nil, err
	}
	if err := s.informer.SetWatchErrorHandlerWithContext(s.watchFailed); err != nil {
		return nil, err
	}
	registration, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    s.changed,
		UpdateFunc: func(_, object any) { s.changed(object) },
		DeleteFunc: s.changed,
	})
	if err != nil {
		return nil, err
	}
	s.start = sync.OnceFunc(func() {
		go s.informer.RunWithContext(ctx)
		go func() {
			if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
				s.releaseAll()
			}
		}()
	})
	return s, nil
}

// sealOnly keeps of a PodMigration what tells whether it is sealed, what it expects, and
// what its replacement is built from.
func sealOnly(object any) (any, error) {
	raw, ok := object.(*unstructured.Unstructured)
	if !ok {
		return object, nil
	}
	var full v1alpha1.PodMigration
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw.Object, &full); err != nil {
		return nil, fmt.Errorf("reading PodMigration %s/%s: %w", raw.GetNamespace(), raw.GetName(), err)
	}
	return &v1alpha1.PodMigration{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: full.Namespace, Name: full.Name, UID: full.UID, ResourceVersion: full.ResourceVersion,
			CreationTimestamp: full.CreationTimestamp,
		},
		Spec: full.Spec,
		Status: v1alpha1.PodMigrationStatus{
			Phase: full.Status.Phase, Conditions: full.Status.Conditions,
			Checkpoint: full.Status.Checkpoint, Handover: full.Status.Handover,
			Original: full.Status.Original, Replacement: full.Status.Replacement, Placeholder: full.Status.Placeholder,
			Containers: full.Status.Containers, CheckpointClaim: full.Status.CheckpointClaim,
		},
	}, nil
}

// holds reports whether the pod has to wait for the seal of its migration. If so, it is activated when the migration changes.
func (s *seals) holds(pod *corev1.Pod, migration types.UID) bool {
	if s == nil {
		return false
	}
	s.start()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreadable || s.informer.HasSynced() && !s.isUnsealed(migration) {
		delete(s.held[migration], podKey(pod))
		return false
	}
	s.hold(pod, migration)
	return true
}

// hold remembers that a pod waits for a migration. The lock is taken.
func (s *seals) hold(pod *corev1.Pod, migration types.UID) {
	if s.held[migration] == nil {
		s.held[migration] = map[string]*corev1.Pod{}
	}
	s.held[migration][podKey(pod)] = pod
}

// expects reports whether the pod has to wait for a migration of which it should
// have become the replacement, or that is being rolled back: the admission webhook did
// not answer when its owner made it. It is then activated when the migration changes. In doubt it is not held, since most pods
// have nothing to do with a migration.
func (s *seals) expects(pod *corev1.Pod) bool {
	controller := metav1.GetControllerOf(pod)
	if s == nil || controller == nil {
		return false
	}
	s.start()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreadable || !s.informer.HasSynced() {
		return false
	}
	found, err := s.informer.GetIndexer().ByIndex(ownerIndex, string(controller.UID))
	if err != nil {
		return false
	}
	for _, object := range found {
		if m := object.(*v1alpha1.PodMigration); m.Namespace == pod.Namespace && owners.MustWait(m, pod) {
			s.hold(pod, m.UID)
			return true
		}
	}
	return false
}

func (s *seals) isUnsealed(migration types.UID) bool {
	m := s.migration(migration)
	return m != nil && isUnsealed(m)
}

// migration is one of the cache; nil when it is not there.
func (s *seals) migration(uid types.UID) *v1alpha1.PodMigration {
	if s == nil {
		return nil
	}
	found, err := s.informer.GetIndexer().ByIndex(uidIndex, string(uid))
	if err != nil || len(found) == 0 {
		return nil
	}
	return found[0].(*v1alpha1.PodMigration)
}

// awaits reports whether a placeholder has to wait until the cache has what its
// replacement is built from. If so, it is activated when the migration changes.
func (s *seals) awaits(placeholder *corev1.Pod, migration types.UID) bool {
	if s == nil {
		return false
	}
	s.start()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.migration(migration)
	if s.unreadable || m != nil && (m.Status.Phase.IsFinished() || m.Namespace != placeholder.Namespace || m.Status.Placeholder != nil) {
		delete(s.held[migration], podKey(placeholder))
		return false
	}
	s.hold(placeholder, migration)
	return true
}

// changed activates the pods that waited for the migration. The cache has the
// change already, so a pod that asks at the same time does not miss it.
func (s *seals) changed(object any) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	m, ok := object.(*v1alpha1.PodMigration)
	if !ok {
		return
	}
	s.mu.Lock()
	s.unreadable = false
	pods := s.held[m.UID]
	delete(s.held, m.UID)
	s.mu.Unlock()
	s.release(pods)
}

func (s *seals) releaseAll() {
	s.mu.Lock()
	held := s.held
	s.held = map[types.UID]map[string]*corev1.Pod{}
	s.mu.Unlock()
	for _, pods := range held {
		s.release(pods)
	}
}

// release must be called without the lock: activating asks PreEnqueue again.
func (s *seals) release(pods map[string]*corev1.Pod) {
	if len(pods) > 0 {
		s.activate(pods)
	}
}

// watchFailed lets pods pass when it cannot be known whether they should wait.
// Other failures end by themselves.
func (s *seals) watchFailed(ctx context.Context, reflector *cache.Reflector, err error) {
	if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		cache.DefaultWatchErrorHandler(ctx, reflector, err)
		return
	}
	s.mu.Lock()
	first := !s.unreadable
	s.unreadable = true
	s.mu.Unlock()
	if first {
		klog.FromContext(ctx).Info("PodMigrations cannot be read, so no replacement is held back for its checkpoint", "reason", err.Error())
	}
	s.releaseAll()
}
