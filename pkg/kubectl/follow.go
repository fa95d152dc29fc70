package kubectl

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// errGone: the migration that is followed was deleted.
var errGone = errors.New("the PodMigration was deleted")

// sighting is a migration as it was seen, or why it could not be.
type sighting struct {
	migration *v1alpha1.PodMigration
	err       error
	// final: nothing more will come.
	final bool
}

// follow sends every state of a migration until it is gone or ctx ends. A watch
// that ends, and an API server that does not answer for a while, are only
// reported: it retries.
func (s *session) follow(ctx context.Context, m *v1alpha1.PodMigration) <-chan sighting {
	seen := make(chan sighting)
	send := func(what sighting) bool {
		select {
		case seen <- what:
			return !what.final
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(seen)
		key := client.ObjectKeyFromObject(m)
		for ctx.Err() == nil {
			current := &v1alpha1.PodMigration{}
			err := s.client.Get(ctx, key, current)
			if err == nil && current.UID != m.UID || apierrors.IsNotFound(err) {
				send(sighting{err: errGone, final: true})
				return
			}
			if err != nil {
				if !send(sighting{err: err, final: isLasting(err)}) || !sleep(ctx, time.Second) {
					return
				}
				continue
			}
			if !send(sighting{migration: current}) || !s.watchOne(ctx, current, send) {
				return
			}
		}
	}()
	return seen
}

// watchOne sends what a watch delivers until it ends; false when there is nothing
// more to see.
func (s *session) watchOne(ctx context.Context, m *v1alpha1.PodMigration, send func(sighting) bool) bool {
	events, stop, err := s.watch(ctx, m.ResourceVersion, client.InNamespace(m.Namespace), client.MatchingFields{"metadata.name": m.Name})
	if err != nil {
		return send(sighting{err: err, final: isLasting(err)}) && sleep(ctx, time.Second)
	}
	defer stop()
	for event := range events {
		current, is := event.Object.(*v1alpha1.PodMigration)
		switch {
		case !is:
			return sleep(ctx, time.Second) // an error, such as a version that is too old: list again
		case current.UID != m.UID:
			continue
		case event.Type == watch.Deleted:
			return send(sighting{migration: current}) && send(sighting{err: errGone, final: true})
		case !send(sighting{migration: current}):
			return false
		}
	}
	return sleep(ctx, 100*time.Millisecond)
}

// watch follows migrations from a version on. It resumes watches that end.
func (s *session) watch(ctx context.Context, version string, options ...client.ListOption) (events <-chan watch.Event, stop func(), err error) {
	w, err := watchtools.NewRetryWatcherWithContext(ctx, version, migrationWatch{s.client, options})
	if err != nil {
		return nil, nil, err
	}
	return w.ResultChan(), w.Stop, nil
}

type migrationWatch struct {
	client  client.WithWatch
	options []client.ListOption
}

// WatchWithContext is called by the RetryWatcher, each time with the last version
// that it has seen.
func (w migrationWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return w.client.Watch(ctx, &v1alpha1.PodMigrationList{}, append([]client.ListOption{&client.ListOptions{Raw: &options}}, w.options...)...)
}

// isLasting reports errors that waiting does not cure.
func isLasting(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || meta.IsNoMatchError(err)
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
