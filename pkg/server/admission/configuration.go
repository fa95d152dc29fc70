package admission

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/pods/owners"
)

// ConditionName is the matchCondition that the reconciler keeps in step.
const ConditionName = "owner-is-migrating"

const (
	// matchNothing is the expression while no owner is being migrated.
	matchNothing = "false"
	// matchControlled is the expression for more owners than one can list.
	matchControlled = "has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(o, has(o.controller) && o.controller)"
	// maxOwners keeps the expression short and cheap: the API server evaluates it
	// for every pod that is created.
	maxOwners = 200
	// healPeriod is how soon a change by another client is undone.
	healPeriod = time.Minute
)

// Expression is true only for pods of the owners of unfinished migrations that
// need the webhook.
func Expression(migrations []v1alpha1.PodMigration) string {
	var uids []string
	for i := range migrations {
		s := &migrations[i].Status
		if h := s.Handover; h != nil && h.Owner != nil && owners.NeedsWebhook(h.Method) && !s.Phase.IsFinished() && isPlain(h.Owner.UID) {
			uids = append(uids, "'"+string(h.Owner.UID)+"'")
		}
	}
	slices.Sort(uids)
	uids = slices.Compact(uids)
	switch {
	case len(uids) == 0:
		return matchNothing
	case len(uids) > maxOwners:
		return matchControlled
	}
	return strings.TrimSuffix(matchControlled, ")") + " && o.uid in [" + strings.Join(uids, ",") + "])"
}

// isPlain keeps what is no UID out of the expression. API servers create UUIDs.
func isPlain(uid types.UID) bool {
	return uid != "" && strings.Trim(string(uid), "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.") == ""
}

// configurer keeps the webhook configuration in step with the migrations and with
// the certificate. It reads and writes that one object alone.
type configurer struct {
	live         client.Reader
	writer       client.Client
	certificates *Certificates
	name         string
	url          string
}

// Reconcile writes the configuration when it is not as it should be. A missing one
// is not created: whoever installed the rebalancer without it has no webhook.
func (c *configurer) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	authority, err := c.certificates.ensure(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	list := &v1alpha1.PodMigrationList{}
	if err := c.writer.List(ctx, list); err != nil {
		return ctrl.Result{}, fmt.Errorf("listing migrations: %w", err)
	}
	found := &admissionv1.MutatingWebhookConfiguration{}
	if err := c.live.Get(ctx, types.NamespacedName{Name: c.name}, found); apierrors.IsNotFound(err) {
		ctrl.LoggerFrom(ctx).V(2).Info("There is no webhook configuration, pods of owners do not become replacements", "configuration", c.name)
		return ctrl.Result{RequeueAfter: healPeriod}, nil
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading webhook configuration %s: %w", c.name, err)
	}
	wanted := c.wanted(found, Expression(list.Items), authority)
	if wanted == nil {
		return ctrl.Result{RequeueAfter: healPeriod}, nil
	}
	// Only what differs is sent, and only if no other client wrote meanwhile.
	patch := client.StrategicMergeFrom(found, client.MergeFromWithOptimisticLock{})
	if err := c.writer.Patch(ctx, wanted, patch); err != nil {
		return ctrl.Result{}, fmt.Errorf("writing webhook configuration %s: %w", c.name, err)
	}
	return ctrl.Result{RequeueAfter: healPeriod}, nil
}

// wanted returns the configuration as it should be; nil when it is.
func (c *configurer) wanted(found *admissionv1.MutatingWebhookConfiguration, expression string, authority []byte) *admissionv1.MutatingWebhookConfiguration {
	wanted := found.DeepCopy()
	changed := false
	for i := range wanted.Webhooks {
		w := &wanted.Webhooks[i]
		if !bytes.Equal(w.ClientConfig.CABundle, authority) {
			w.ClientConfig.CABundle, changed = authority, true
		}
		if c.url != "" && (w.ClientConfig.URL == nil || *w.ClientConfig.URL != c.url) {
			w.ClientConfig.URL, w.ClientConfig.Service, changed = new(c.url), nil, true
		}
		if len(w.MatchConditions) != 1 || w.MatchConditions[0].Name != ConditionName || w.MatchConditions[0].Expression != expression {
			w.MatchConditions, changed = []admissionv1.MatchCondition{{Name: ConditionName, Expression: expression}}, true
		}
	}
	if !changed {
		return nil
	}
	return wanted
}
