package reclaim

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/reclaim/decide"
	"github.com/ai-storage/orchestrator/pkg/pods"
	"github.com/ai-storage/orchestrator/pkg/pods/reclaimed"
	"github.com/ai-storage/orchestrator/pkg/scheduling/cluster"
)

// Reasons of the events on pods.
const (
	ReasonReclaimed   = "RequestsReclaimed"
	ReasonGivenBack   = "RequestsGivenBack"
	ReasonSkipped     = "RequestsNotReclaimed"
	actionReclaim     = "Reclaim"
	resizeSubresource = "resize"
)

type reconciler struct {
	pods   corelisters.PodLister
	client client.Client
	// live reads past every cache.
	live          client.Reader
	recorder      events.EventRecorder
	enabled       bool
	excluded      func(*corev1.Pod) string
	schedulerName string
	metrics       *Metrics
	starts        *starts
}

// Reconcile brings one pod to what is decided about it.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	pod, err := r.get(request.NamespacedName)
	if pod == nil || err != nil {
		return ctrl.Result{}, err
	}
	decision, err := decide.Decide(pod, decide.Facts{MayShrink: r.mayShrink(pod), StartedAgain: r.starts.again(pod)})
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("deciding what to reclaim of pod %s: %w", request, err)
	}
	if decision.Why != "" {
		ctrl.LoggerFrom(ctx).V(4).Info("Nothing to reclaim", "pod", request, "reason", decision.Why)
	}
	err = r.carryOut(ctx, pod, decision)
	// What a quota keeps from a container that starts again may be there later.
	if isRefusal(err) && len(decision.Restored) == 0 {
		err = r.skip(ctx, pod, decision.Remember, "the API server refuses to resize the pod: "+err.Error())
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// The pod has changed or is gone. The next look is at what it is then.
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, err
}

func (r *reconciler) mayShrink(pod *corev1.Pod) bool {
	return r.enabled && pod.Spec.SchedulerName == r.schedulerName && r.excluded(pod) == ""
}

// carryOut writes the record, resizes, and writes the record that is left. Each
// write holds only for the pod as it was seen, so that nothing is decided twice.
func (r *reconciler) carryOut(ctx context.Context, seen *corev1.Pod, d decide.Decision) error {
	pod := seen.DeepCopy()
	if err := r.remember(ctx, pod, d.Remember); err != nil {
		return err
	}
	if d.Resized != nil {
		want := pod.DeepCopy()
		want.Spec = *d.Resized.Spec.DeepCopy()
		patch := client.StrategicMergeFrom(pod, client.MergeFromWithOptimisticLock{})
		if err := r.client.SubResource(resizeSubresource).Patch(ctx, want, patch); err != nil {
			return err
		}
		pod = want
		r.report(ctx, seen, pod, d)
	}
	return r.remember(ctx, pod, d.Keep)
}

// remember writes a record, unless the pod has it.
func (r *reconciler) remember(ctx context.Context, pod *corev1.Pod, rec reclaimed.Record) error {
	before := pod.DeepCopy()
	if err := rec.Write(pod); err != nil {
		return err
	}
	if pod.Annotations[v1alpha1.ReclaimedAnnotation] == before.Annotations[v1alpha1.ReclaimedAnnotation] {
		return nil
	}
	return r.client.Patch(ctx, pod, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

// skip marks a pod that the API server does not let us shrink. The server
// refuses before it notices that we have seen an older pod, so the pod is read
// anew: it must be the one on which we have just written the reclaimed.
func (r *reconciler) skip(ctx context.Context, seen *corev1.Pod, written reclaimed.Record, why string) error {
	pod, asWritten := &corev1.Pod{}, seen.DeepCopy()
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(seen), pod); err != nil {
		return err
	}
	if err := written.Write(asWritten); err != nil {
		return err
	}
	const key = v1alpha1.ReclaimedAnnotation
	if pod.UID != seen.UID || pod.Annotations[key] != asWritten.Annotations[key] {
		return nil // It has changed, and is looked at again.
	}
	rec, err := decide.Skip(seen, why)
	if err != nil {
		return err
	}
	if err := r.remember(ctx, pod, rec); err != nil {
		return err
	}
	r.metrics.resizes.WithLabelValues(outcomeRefused).Inc()
	ctrl.LoggerFrom(ctx).Info("Pod cannot be resized, its requests come free when it moves", "pod", klog.KObj(pod), "reason", why)
	r.recorder.Eventf(pod, nil, corev1.EventTypeWarning, ReasonSkipped, actionReclaim, "%s", note(why))
	return nil
}

// isRefusal tells a resize that this cluster does not allow from one that may
// succeed later. A right that we lack is neither: it must be seen.
func isRefusal(err error) bool {
	if apierrors.IsForbidden(err) {
		return !strings.Contains(err.Error(), "cannot patch resource")
	}
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

func (r *reconciler) report(ctx context.Context, before, after *corev1.Pod, d decide.Decision) {
	logger := ctrl.LoggerFrom(ctx).WithValues("pod", klog.KObj(after))
	freed := requested(before).Sub(requested(after))
	if len(d.Restored) > 0 {
		r.metrics.resizes.WithLabelValues(outcomeGivenBack).Inc()
		logger.Info("Requests given back", "containers", d.Restored, "milliCPU", -freed.MilliCPU, "memory", -freed.Memory, "reason", d.Why)
		kind, why := corev1.EventTypeNormal, "it starts again"
		reason := ReasonGivenBack
		if d.Why != "" {
			kind, reason, why = corev1.EventTypeWarning, ReasonSkipped, d.Why
		}
		r.recorder.Eventf(after, nil, kind, reason, actionReclaim, "%s", note(fmt.Sprintf(
			"container %s has its requests back (%dm CPU, %d MiB of memory): %s", strings.Join(d.Restored, ", "), -freed.MilliCPU, -freed.Memory>>20, why)))
		return
	}
	r.metrics.resizes.WithLabelValues(outcomeReclaimed).Inc()
	r.metrics.cpu.Add(float64(freed.MilliCPU) / 1000)
	r.metrics.memory.Add(float64(freed.Memory))
	logger.Info("Requests of finished containers reclaimed", "containers", d.Shrunk, "milliCPU", freed.MilliCPU, "memory", freed.Memory)
	r.recorder.Eventf(after, nil, corev1.EventTypeNormal, ReasonReclaimed, actionReclaim,
		"container %s has finished: %dm CPU and %d MiB of memory of its requests are free", strings.Join(d.Shrunk, ", "), freed.MilliCPU, freed.Memory>>20)
}

// requested is what the scheduler will count for a pod once a resize is done. What
// it counts at this moment does not show the resize yet: it keeps to what the node
// has given to the pod until the kubelet reports less.
func requested(pod *corev1.Pod) cluster.Resources {
	return cluster.ResourcesOf(pods.SpecRequests(pod))
}

// note is a text cut to what an event may hold.
func note(text string) string { return pods.Truncate(text, pods.MaxEventNote) }
