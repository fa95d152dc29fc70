package admission

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/containers"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// readTimeout leaves the handler time to answer: the API server waits for 2 s
// (timeoutSeconds in manifests/base/webhook.yaml).
const readTimeout = 1500 * time.Millisecond

// podHandler answers the API server about one pod.
type podHandler struct {
	// live reads without a cache: a pod that is created the moment after its
	// original was released must be recognised.
	live       client.Reader
	decoder    admission.Decoder
	agentImage string
	// pullSecrets are those of Options.
	pullSecrets []string
	metrics     *Metrics
}

// NewHandler returns what answers the API server about one pod. live has no cache, its
// scheme knows Kubernetes; of the options the image, its Secrets and the registerer count.
func NewHandler(live client.Reader, scheme *runtime.Scheme, o Options) admission.Handler {
	return &podHandler{live: live, decoder: admission.NewDecoder(scheme), agentImage: o.AgentImage, pullSecrets: o.PullSecrets, metrics: NewMetrics(o.Registerer)}
}

// Handle rewrites the pod that a migration expects, and lets all others pass. A
// dry run is answered in the same way: nothing is written here.
func (h *podHandler) Handle(ctx context.Context, request admission.Request) admission.Response {
	pod, rewritten, err := h.rewrite(ctx, request)
	switch {
	case err != nil:
		h.metrics.observe(outcomeFailed)
		ctrl.LoggerFrom(ctx).Error(err, "Failed to turn a pod into the replacement of its migration, letting it pass", "namespace", request.Namespace)
		return admission.Allowed("").WithWarnings("the pod does not become the replacement of a migration: " + err.Error())
	case rewritten == nil:
		h.metrics.observe(outcomePassed)
		return admission.Allowed("")
	}
	response, err := patch(pod, rewritten)
	if err != nil {
		h.metrics.observe(outcomeFailed)
		ctrl.LoggerFrom(ctx).Error(err, "Failed to encode the changes of a pod, letting it pass", "pod", klog.KObj(pod))
		return admission.Allowed("").WithWarnings("the pod does not become the replacement of a migration: " + err.Error())
	}
	h.metrics.observe(outcomeRewritten)
	if request.DryRun == nil || !*request.DryRun {
		ctrl.LoggerFrom(ctx).Info("Turned the pod of an owner into the replacement of a migration",
			"pod", klog.KObj(rewritten), "migrationUID", rewritten.Labels[v1alpha1.MigrationUIDLabel])
	}
	return response
}

// rewrite returns the pod as it came, and as it should be; nil when no migration
// expects it.
func (h *podHandler) rewrite(ctx context.Context, request admission.Request) (pod, rewritten *corev1.Pod, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	pod = &corev1.Pod{}
	if err := h.decoder.Decode(request, pod); err != nil {
		return nil, nil, fmt.Errorf("reading the pod: %w", err)
	}
	pod.Namespace = cmp.Or(pod.Namespace, request.Namespace)
	if isDryRun := request.DryRun != nil && *request.DryRun; !isDryRun && pod.Annotations[v1alpha1.ProbeAnnotation] != "" {
		// A probe is never stored, so this one is not ours.
		return pod, nil, nil
	}
	m, err := h.expecting(ctx, pod)
	if err != nil || m == nil {
		return nil, nil, err
	}
	options, err := h.options(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	verdicts := containers.Verdicts{Containers: m.Status.Containers, Mode: m.CheckpointMode()}
	rewritten, err = containers.Rewrite(pod, verdicts, options)
	if err != nil {
		return nil, nil, fmt.Errorf("PodMigration %s: %w", m.Name, err)
	}
	return pod, rewritten, nil
}

// expecting returns the migration that expects a pod; the oldest of several, so
// that all replicas choose the same one.
func (h *podHandler) expecting(ctx context.Context, pod *corev1.Pod) (*v1alpha1.PodMigration, error) {
	list := &v1alpha1.PodMigrationList{}
	if err := h.live.List(ctx, list, client.InNamespace(pod.Namespace)); err != nil {
		return nil, fmt.Errorf("listing the migrations of namespace %s: %w", pod.Namespace, err)
	}
	expected := slices.DeleteFunc(list.Items, func(m v1alpha1.PodMigration) bool { return !owners.Expected(&m, pod) })
	if len(expected) == 0 {
		return nil, nil
	}
	m := slices.MinFunc(expected, func(a, b v1alpha1.PodMigration) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return &m, nil
}

// options are what the controller would have set for a replacement that it creates. The
// error says why the migration cannot have one now.
func (h *podHandler) options(ctx context.Context, m *v1alpha1.PodMigration) (containers.ReplacementOptions, error) {
	s := &m.Status
	if s.Original == nil || s.Replacement == nil {
		return containers.ReplacementOptions{}, fmt.Errorf("PodMigration %s expects a replacement before it was accepted", m.Name)
	}
	o := containers.OptionsOf(m, h.agentImage)
	o.PullSecrets = h.pullSecrets
	if s.Checkpoint.Carries() && h.agentImage == "" {
		return o, fmt.Errorf("PodMigration %s carries state, and there is no node agent: see --node-agent-image of the rebalancer", m.Name)
	}
	var err error
	o.Images, err = h.images(ctx, m)
	return o, err
}

// images are those of the original, as long as it is there.
func (h *podHandler) images(ctx context.Context, m *v1alpha1.PodMigration) (map[string]string, error) {
	original := &corev1.Pod{}
	key := types.NamespacedName{Namespace: m.Namespace, Name: m.Status.Original.Name}
	if err := h.live.Get(ctx, key, original); apierrors.IsNotFound(err) || err == nil && original.UID != m.Status.Original.UID {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading original %s: %w", key, err)
	}
	images := map[string]string{}
	for _, c := range slices.Concat(original.Spec.InitContainers, original.Spec.Containers) {
		images[c.Name] = c.Image
	}
	return images, nil
}

// patch compares the pod as we read it, not as it came: fields that this version
// does not know are not touched.
func patch(pod, rewritten *corev1.Pod) (admission.Response, error) {
	before, err := json.Marshal(pod)
	if err != nil {
		return admission.Response{}, err
	}
	after, err := json.Marshal(rewritten)
	if err != nil {
		return admission.Response{}, err
	}
	response := admission.PatchResponseFromRaw(before, after)
	if !response.Allowed {
		return response, fmt.Errorf("comparing with code %d: %s", http.StatusInternalServerError, response.Result.Message)
	}
	return response, nil
}
