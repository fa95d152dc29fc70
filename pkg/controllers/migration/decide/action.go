package decide

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is any object of the API.
type Object interface {
	metav1.Object
	runtime.Object
}

// API is what actions do, and what they ask. Objects that are passed stay as they are.
type API interface {
	// Create returns the object as it was stored. A pod that was made of another one keeps
	// the fields of that one that our types do not know, and is not created when that one
	// has changed since it was judged; nil: it was not.
	Create(ctx context.Context, object Object, copyOf *corev1.Pod) (Object, error)
	// Change patches an object, unless it has changed since it was judged.
	Change(ctx context.Context, from, to Object) error
	// ChangePodStatus patches the status of a pod.
	ChangePodStatus(ctx context.Context, from, to *corev1.Pod) error
	// Delete deletes an object, but not another one of its name.
	Delete(ctx context.Context, object Object) error
	// Evict goes through the Eviction API, so that PodDisruptionBudgets hold. It fails
	// when the pod has changed since it was judged. A dry run asks only whether the pod
	// may go.
	Evict(ctx context.Context, pod *corev1.Pod, dryRun bool) error
	// Probe reports whether the admission webhook turns a pod into the replacement, and when
	// it was asked by the clock of the API server.
	Probe(ctx context.Context, pod *corev1.Pod) (admitted bool, at metav1.Time, err error)
	// AskBudget returns why the migration of a pod may not start now; "" when it may.
	AskBudget(ctx context.Context, pod *corev1.Pod) (string, error)
	// Measure returns the last measurement of a pod; nil when there is none.
	Measure(ctx context.Context, pod *corev1.Pod) *Sample
}

// Result is what came of an action.
type Result struct {
	// Admitted and Reason are the answer of the budget, or of the webhook.
	Admitted bool
	Reason   string
	// ProbedAt is when the webhook was asked, by the clock of the API server.
	ProbedAt metav1.Time
	// Sample is the measurement; nil when there is none.
	Sample *Sample
	// Created is the pod as the API server returned it; nil for all else.
	Created *corev1.Pod
	// Err is what the API server answered instead.
	Err error
}

// Action is one thing to do. It is done at most once for each decision.
type Action interface {
	Do(ctx context.Context, api API) Result
}

// The actions.
type (
	// CreateObject creates an object. One that is made of a pod keeps the fields of that
	// pod that our types do not know.
	CreateObject struct {
		Object Object
		CopyOf *corev1.Pod
	}
	// ChangeObject changes an object from what was judged.
	ChangeObject struct{ From, To Object }
	// ChangeStatus changes the status of a pod.
	ChangeStatus struct{ From, To *corev1.Pod }
	// DeleteObject deletes an object.
	DeleteObject struct{ Object Object }
	// EvictPod evicts a pod, or asks whether it may be.
	EvictPod struct {
		Pod    *corev1.Pod
		DryRun bool
	}
	// ProbeAdmission asks what the admission webhook makes of a pod. Where that is the
	// replacement, a pod is changed, if one is given.
	ProbeAdmission struct{ Probe, From, To *corev1.Pod }
	// TakePlace asks for a place in the budget.
	TakePlace struct{ Pod *corev1.Pod }
	// MeasurePod measures a pod.
	MeasurePod struct{ Pod *corev1.Pod }
)

// Do creates the object.
func (a CreateObject) Do(ctx context.Context, api API) Result {
	created, err := api.Create(ctx, a.Object, a.CopyOf)
	pod, _ := created.(*corev1.Pod)
	if err != nil {
		pod = nil
	}
	return Result{Created: pod, Err: err}
}

// Do changes the object.
func (a ChangeObject) Do(ctx context.Context, api API) Result {
	return Result{Err: api.Change(ctx, a.From, a.To)}
}

// Do changes the status.
func (a ChangeStatus) Do(ctx context.Context, api API) Result {
	return Result{Err: api.ChangePodStatus(ctx, a.From, a.To)}
}

// Do deletes the object.
func (a DeleteObject) Do(ctx context.Context, api API) Result {
	return Result{Err: api.Delete(ctx, a.Object)}
}

// Do evicts the pod, or asks.
func (a EvictPod) Do(ctx context.Context, api API) Result {
	return Result{Err: api.Evict(ctx, a.Pod, a.DryRun)}
}

// Do asks the webhook, and changes the pod where the answer is yes.
func (a ProbeAdmission) Do(ctx context.Context, api API) Result {
	admitted, at, err := api.Probe(ctx, a.Probe)
	if admitted && err == nil && a.From != nil {
		err = api.Change(ctx, a.From, a.To)
	}
	return Result{Admitted: admitted, ProbedAt: at, Err: err}
}

// Do asks the budget.
func (a TakePlace) Do(ctx context.Context, api API) Result {
	reason, err := api.AskBudget(ctx, a.Pod)
	return Result{Admitted: reason == "" && err == nil, Reason: reason, Err: err}
}

// Do measures the pod.
func (a MeasurePod) Do(ctx context.Context, api API) Result {
	return Result{Sample: api.Measure(ctx, a.Pod)}
}
