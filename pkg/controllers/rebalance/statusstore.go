package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ConfigMaps by which the loop and people talk, in the namespace of the rebalancer.
const (
	// StatusName holds what the loop saw and decided last; the loop writes it.
	StatusName = "ai-storage-rebalancer-status"
	// ControlName holds whether the loop is paused; people write it.
	ControlName = "ai-storage-rebalancer-control"

	statusKey = "status.json"
)

// Pause says whether the loop may begin migrations. Those in flight continue.
type Pause struct {
	Paused bool   `json:"paused"`
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
	// Since is nil where nobody wrote it down.
	Since *time.Time `json:"since,omitempty"`
}

// String says who paused the loop, and why; "" when it is not paused.
func (p Pause) String() string {
	if !p.Paused {
		return ""
	}
	text := "paused"
	if p.By != "" {
		text += " by " + p.By
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// StatusStore is where the leader shows its status to the other replicas and to
// kubectl, and where it reads whether it is paused.
type StatusStore struct {
	// Live reads past every cache.
	Live      client.Reader
	Writer    client.Writer
	Namespace string
}

// Pause reads whether the loop is paused. Without the ConfigMap it is not; with
// one that cannot be understood it is, which is the safe side.
func (b *StatusStore) Pause(ctx context.Context) (Pause, error) {
	control := &corev1.ConfigMap{}
	err := b.Live.Get(ctx, client.ObjectKey{Namespace: b.Namespace, Name: ControlName}, control)
	if apierrors.IsNotFound(err) {
		return Pause{}, nil
	}
	if err != nil {
		return Pause{}, fmt.Errorf("reading whether the loop is paused: %w", err)
	}
	return pauseOf(control.Data), nil
}

func pauseOf(data map[string]string) Pause {
	pause := Pause{Reason: data["reason"], By: data["by"]}
	if since, err := time.Parse(time.RFC3339, data["since"]); err == nil {
		pause.Since = &since
	}
	switch paused := strings.TrimSpace(data["paused"]); paused {
	case "true":
		pause.Paused = true
	case "", "false":
		return Pause{}
	default:
		pause.Paused = true
		pause.Reason = fmt.Sprintf("data.paused of ConfigMap %s is %q: write \"true\" or \"false\"", ControlName, paused)
	}
	return pause
}

// Publish writes a status for others to read.
func (b *StatusStore) Publish(ctx context.Context, status *Status) error {
	encoded, err := encodeStatus(status, maxStatusBytes)
	if err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	shown := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.Namespace, Name: StatusName},
		Data:       map[string]string{statusKey: string(encoded)},
	}
	// Only the leader writes, and a later status always counts: no resourceVersion.
	err = b.Writer.Update(ctx, shown)
	if apierrors.IsNotFound(err) {
		err = b.Writer.Create(ctx, shown)
	}
	if err != nil {
		return fmt.Errorf("publishing the status in ConfigMap %s: %w", StatusName, err)
	}
	return nil
}

// Published reads the status that the leader wrote last, as it stands; nil before
// the first cycle.
func (b *StatusStore) Published(ctx context.Context) (json.RawMessage, error) {
	shown := &corev1.ConfigMap{}
	err := b.Live.Get(ctx, client.ObjectKey{Namespace: b.Namespace, Name: StatusName}, shown)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the status of the loop: %w", err)
	}
	if !json.Valid([]byte(shown.Data[statusKey])) {
		return nil, fmt.Errorf("data[%q] of ConfigMap %s is no JSON", statusKey, StatusName)
	}
	return json.RawMessage(shown.Data[statusKey]), nil
}
