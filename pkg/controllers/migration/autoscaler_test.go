package migration

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The last word of an autoscaler counts; other events do not.
func TestComingNode(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	said := func(reason string, second int) corev1.Event {
		return corev1.Event{Reason: reason, Message: "m", LastTimestamp: metav1.NewTime(start.Add(time.Duration(second) * time.Second))}
	}
	// Karpenter's recorder and events.k8s.io fill other fields.
	series := said("Nominated", 0)
	series.Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(start.Add(9 * time.Second))}
	newer := corev1.Event{Reason: "NotTriggerScaleUp", EventTime: metav1.NewMicroTime(start.Add(5 * time.Second))}
	for name, test := range map[string]struct {
		events []corev1.Event
		want   string
	}{
		"nobody says anything":              {nil, ""},
		"only the scheduler":                {[]corev1.Event{said("FailedScheduling", 1)}, ""},
		"the cluster autoscaler":            {[]corev1.Event{said("FailedScheduling", 3), said("TriggeredScaleUp", 1)}, "TriggeredScaleUp: m"},
		"Karpenter":                         {[]corev1.Event{said("Nominated", 1)}, "Nominated: m"},
		"it cannot":                         {[]corev1.Event{said("NotTriggerScaleUp", 1)}, ""},
		"it could not, and can now":         {[]corev1.Event{said("TriggeredScaleUp", 2), said("NotTriggerScaleUp", 1)}, "TriggeredScaleUp: m"},
		"it tried, and has found it cannot": {[]corev1.Event{newer, said("TriggeredScaleUp", 2)}, ""},
		"it says so again, in a series":     {[]corev1.Event{series, newer}, "Nominated: m"},
	} {
		if got := comingNode(test.events); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
