package simulate

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
	webhookserver "github.com/ai-storage/orchestrator/pkg/server/admission"
)

// webhook is the admission webhook, and what the API server knows of it.
type webhook struct {
	handler admission.Handler
	// asked are the owners for whose pods the API server asks.
	asked []types.UID
	// down is until when it does not answer.
	down moment
	// due is set while a change of the configuration is on its way.
	due bool
}

func newWebhook(w *world) *webhook {
	live := client.Client(&apiClient{w: w})
	return &webhook{handler: webhookserver.NewHandler(live, scheme, webhookserver.Options{AgentImage: agentImage})}
}

// configure writes the owners of unfinished migrations into the configuration, as the
// rebalancer does, and the API server learns of it a moment later.
func (w *world) configure() {
	if w.webhook.due {
		return
	}
	w.webhook.due = true
	w.after(w.between(20*time.Millisecond, 3*time.Second), func() {
		w.webhook.due = false
		var asked []types.UID
		each(w.store, migrations, func(m *v1alpha1.PodMigration) {
			if h := m.Status.Handover; h != nil && h.Owner != nil && owners.NeedsWebhook(h.Method) && !m.Status.Phase.IsFinished() {
				asked = append(asked, h.Owner.UID)
			}
		})
		w.webhook.asked = asked
	})
}

// admitAndCreate stores an object, after the webhook was asked. It runs in a process,
// since the webhook reads meanwhile.
func (w *world) admitAndCreate(object client.Object, dryRun bool) error {
	pod, is := object.(*corev1.Pod)
	if !is {
		return w.create(object, dryRun)
	}
	c := metav1.GetControllerOf(pod)
	if c == nil || !slices.Contains(w.webhook.asked, c.UID) || w.now < w.webhook.down {
		return w.create(pod, dryRun)
	}
	actor := w.actor
	raw, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	response := w.webhook.handler.Handle(context.Background(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "request", Namespace: pod.Namespace, Operation: admissionv1.Create, DryRun: &dryRun, Object: runtime.RawExtension{Raw: raw},
	}})
	// Others acted while the webhook read.
	w.actor = actor
	for _, warning := range response.Warnings {
		w.say("webhook", "warns %s of %s: %s", actor, pod.Name, warning)
	}
	if len(response.Patches) > 0 {
		encoded, err := json.Marshal(response.Patches)
		if err != nil {
			return err
		}
		patch, err := jsonpatch.DecodePatch(encoded)
		if err != nil {
			return err
		}
		if raw, err = patch.Apply(raw); err != nil {
			return err
		}
		*pod = corev1.Pod{}
		if err := json.Unmarshal(raw, pod); err != nil {
			return err
		}
	}
	return w.create(pod, dryRun)
}
