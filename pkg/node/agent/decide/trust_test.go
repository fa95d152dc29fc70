package decide

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ai-storage/orchestrator/internal/fixture"
	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

const theirs = "sha256:a"

func sending() *v1alpha1.PodMigration {
	m := reported(fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopying), v1alpha1.DestinationReceiving)
	m.Status.Checkpoint.Source.Fingerprint = theirs
	return m
}

func TestAdmits(t *testing.T) {
	change := func(change func(*v1alpha1.PodMigration)) *v1alpha1.PodMigration {
		m := sending()
		change(m)
		return m
	}
	good := Sender{Fingerprint: theirs, Migration: sending().UID, Attempt: 2}
	pod := fixture.MakePod("train-r").UID(fixture.ReplacementUID).Node("b").Obj()
	for name, test := range map[string]struct {
		m      *v1alpha1.PodMigration
		sender Sender
		pod    *corev1.Pod
		want   bool
	}{
		"the source":               {sending(), good, pod, true},
		"the source, to seal":      {change(func(m *v1alpha1.PodMigration) { m.Status.Checkpoint.Step = v1alpha1.StepSeal }), good, pod, true},
		"another fingerprint":      {sending(), Sender{Fingerprint: "sha256:c", Migration: good.Migration, Attempt: 2}, pod, false},
		"no fingerprint reported":  {change(func(m *v1alpha1.PodMigration) { m.Status.Checkpoint.Source.Fingerprint = "" }), Sender{Migration: good.Migration, Attempt: 2}, pod, false},
		"another migration":        {sending(), Sender{Fingerprint: theirs, Migration: fixture.OriginalUID, Attempt: 2}, pod, false},
		"an earlier attempt":       {sending(), Sender{Fingerprint: theirs, Migration: good.Migration, Attempt: 1}, pod, false},
		"a report before this":     {change(func(m *v1alpha1.PodMigration) { m.Status.Checkpoint.Source.Attempt = 1 }), good, pod, false},
		"an agent of another node": {change(func(m *v1alpha1.PodMigration) { m.Status.Checkpoint.Source.Node = "c" }), good, pod, false},
		"released":                 {change(func(m *v1alpha1.PodMigration) { m.Status.Checkpoint.Step = v1alpha1.StepRelease }), good, pod, false},
		"aborted":                  {change(func(m *v1alpha1.PodMigration) { m.Status.Checkpoint.Step = v1alpha1.StepAbort }), good, pod, false},
		"ended":                    {ended(sending(), v1alpha1.PhaseSucceeded), good, pod, false},
		"rolled back":              {with(sending(), v1alpha1.ConditionRolledBack, metav1.ConditionFalse), good, pod, false},
		"the pod is gone":          {sending(), good, nil, false},
		"another pod of the name":  {sending(), good, fixture.MakePod("train-r").UID(fixture.OriginalUID).Node("b").Obj(), false},
		"a pod of another node":    {sending(), good, fixture.MakePod("train-r").UID(fixture.ReplacementUID).Node("c").Obj(), false},
		"a status of another node": {change(func(m *v1alpha1.PodMigration) { m.Status.Replacement.NodeName = "c" }), good, pod, false},
		"no destination":           {change(func(m *v1alpha1.PodMigration) { m.Status.Replacement = nil }), good, pod, false},
	} {
		if err := Admits(test.m, "b", test.sender, test.pod); (err == nil) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConnectTo(t *testing.T) {
	at := func(address string) *v1alpha1.PodMigration {
		m := sending()
		m.Status.Checkpoint.Destination.Address = address
		return m
	}
	pod := fixture.MakePod("train-r").UID(fixture.ReplacementUID).Node("b").Obj()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "b.example"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.2"}, {Type: corev1.NodeInternalIP, Address: "2001:db8::2"}}}}
	other := node.DeepCopy()
	other.Name = "c"
	forged := sending()
	forged.Status.Checkpoint.Destination.Node = "c"
	for name, test := range map[string]struct {
		m    *v1alpha1.PodMigration
		pod  *corev1.Pod
		node *corev1.Node
		want string
	}{
		"its address":               {sending(), pod, node, "192.0.2.2:10271"},
		"its other address":         {at("[2001:db8::2]:10271"), pod, node, "[2001:db8::2]:10271"},
		"without brackets, no port": {at("2001:db8::2"), pod, node, ""},
		"an address of nobody":      {at("192.0.2.3:10271"), pod, node, ""},
		"a name":                    {at("b.example:10271"), pod, node, ""},
		"no port":                   {at("192.0.2.2"), pod, node, ""},
		"no report":                 {fixture.Moving(v1alpha1.StepCopy, v1alpha1.SourceCopying), pod, node, ""},
		"another node":              {sending(), pod, other, ""},
		"no node":                   {sending(), pod, nil, ""},
		"a report of another node":  {forged, pod, other, ""},
		"the pod is elsewhere":      {sending(), fixture.MakePod("train-r").UID(fixture.ReplacementUID).Node("c").Obj(), node, ""},
		"the pod is gone":           {sending(), nil, node, ""},
		"another pod of that name":  {sending(), fixture.MakePod("train-r").UID(fixture.OriginalUID).Node("b").Obj(), node, ""},
		"an earlier attempt's host": {withAttempt(sending(), 3), pod, node, ""},
	} {
		address, fingerprint, err := ConnectTo(test.m, test.pod, test.node)
		if address != test.want || (err == nil) != (test.want != "") || err == nil && fingerprint != "sha256:b" {
			t.Errorf("%s: %q, %q, %v", name, address, fingerprint, err)
		}
	}
}

func withAttempt(m *v1alpha1.PodMigration, attempt int32) *v1alpha1.PodMigration {
	m.Status.Checkpoint.Attempt = attempt
	return m
}

func TestMayRemove(t *testing.T) {
	kept := with(ended(fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.PhaseFailed), v1alpha1.ConditionCheckpointKept, metav1.ConditionTrue)
	waits := with(with(ended(fixture.StoppingFirst(v1alpha1.StepSeal, v1alpha1.SourceSealed), v1alpha1.PhaseFailed), v1alpha1.ConditionCommitted, metav1.ConditionTrue), v1alpha1.ConditionSealed, metav1.ConditionTrue)
	for name, test := range map[string]struct {
		m    *v1alpha1.PodMigration
		want bool
	}{
		"the migration is gone":         {nil, true},
		"it is under way":               {fixture.Moving(v1alpha1.StepSeal, v1alpha1.SourceSealed), false},
		"it has succeeded":              {ended(fixture.Moving(v1alpha1.StepRelease, v1alpha1.SourceSealed), v1alpha1.PhaseSucceeded), true},
		"it has failed":                 {ended(fixture.Moving(v1alpha1.StepAbort, v1alpha1.SourceThawed), v1alpha1.PhaseFailed), true},
		"the claim has the only copy":   {kept, false},
		"this node has the only copy":   {waits, false},
		"a replacement has got it":      {with(waits.DeepCopy(), v1alpha1.ConditionReleased, metav1.ConditionTrue), true},
		"it was to be, and was aborted": {ended(fixture.StoppingFirst(v1alpha1.StepAbort, v1alpha1.SourceThawed), v1alpha1.PhaseCancelled), true},
	} {
		if got := MayRemove(test.m); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
