package restapi

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) *metav1.MicroTime { return new(metav1.NewMicroTime(noon.Add(d))) }

func cpu(request, use string) *v1alpha1.ResourceRecord {
	r := &v1alpha1.ResourceRecord{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(request)}, Source: v1alpha1.UsageUnavailable}
	if use != "" {
		r.Usage, r.Source = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(use)}, v1alpha1.UsageFromMetricsAPI
	}
	return r
}

func TestFiguresOf(t *testing.T) {
	ended := func(phase v1alpha1.Phase, took time.Duration, before, later *v1alpha1.ResourceRecord) v1alpha1.PodMigration {
		m := v1alpha1.PodMigration{}
		m.Status.Phase, m.Status.Before, m.Status.After = phase, before, later
		m.Status.Times.Started, m.Status.Times.Finished = after(0), after(took)
		m.Status.Downtime = &metav1.Duration{Duration: took / 10}
		return m
	}
	running := v1alpha1.PodMigration{}
	running.Status.Phase = v1alpha1.PhasePlacing
	running.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue}}
	got := figuresOf([]v1alpha1.PodMigration{
		ended(v1alpha1.PhaseSucceeded, 10*time.Second, cpu("3", "1"), cpu("1", "500m")),
		ended(v1alpha1.PhaseSucceeded, 30*time.Second, cpu("1", "1"), cpu("1", "")),
		ended(v1alpha1.PhaseFailed, time.Hour, cpu("1", "1"), nil),
		ended(v1alpha1.PhaseCancelled, time.Hour, nil, nil),
		running, {},
	})
	want := Figures{
		Migrations:     Counts{Total: 6, Succeeded: 2, Failed: 1, Cancelled: 1, Running: 1, Queued: 1},
		SuccessPercent: Figure{new(200.0 / 3), 3}, AverageDurationSeconds: Figure{new(20.0), 2}, AverageDowntimeSeconds: Figure{new(2.0), 2},
		CPURequestSavingsPercent: Figure{new(50.0), 2}, CPUUsageSavingsPercent: Figure{new(50.0), 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

func TestPhaseTimesOf(t *testing.T) {
	m := &v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon)}}
	seconds := func() string {
		text := ""
		for _, p := range phaseTimesOf(m) {
			text += string(p.Phase)
			if p.Seconds != nil {
				text += fmt.Sprint(" ", *p.Seconds)
			}
			text += "; "
		}
		return text
	}
	if got := seconds(); got != "Pending; " {
		t.Errorf("new: %s", got)
	}
	m.Status.Times = v1alpha1.StepTimes{Started: after(time.Second), Prepared: after(3 * time.Second)}
	if got := seconds(); got != "Pending 1; Preparing 2; Placing; " {
		t.Errorf("placing: %s", got)
	}
	m.Status.Phase, m.Status.Times.Finished = v1alpha1.PhaseFailed, after(7*time.Second)
	if got := seconds(); got != "Pending 1; Preparing 2; Placing 4; " {
		t.Errorf("rolled back: %s", got)
	}
	m.Status.Times.HandingOver = after(6 * time.Second)
	if got := seconds(); got != "Pending 1; Preparing 2; Placing 3; HandingOver 1; " {
		t.Errorf("done: %s", got)
	}
}

// Pages hold everything once, whatever comes in front of them meanwhile.
func TestPagesHoldEverythingOnce(t *testing.T) {
	var all []v1alpha1.PodMigration
	add := func(id int) {
		all = append(all, v1alpha1.PodMigration{ObjectMeta: metav1.ObjectMeta{
			UID: types.UID(fmt.Sprintf("%03d", id)), CreationTimestamp: metav1.NewTime(noon.Add(time.Duration(id/3) * time.Second))}})
	}
	for id := range 20 {
		add(id)
	}
	seen := map[string]int{}
	q := &listQuery{limit: 3}
	for {
		list := q.page(all)
		for _, m := range list.Items {
			seen[m.ID]++
		}
		if list.Continue == "" {
			break
		}
		var err error
		if q.after, err = positionOf(list.Continue); err != nil {
			t.Fatal(err)
		}
		add(100 + len(all))
	}
	for id := range 20 {
		if n := seen[fmt.Sprintf("%03d", id)]; n != 1 {
			t.Errorf("migration %d was listed %d times", id, n)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d were listed, want the 20 that were there at the start", len(seen))
	}
}

func TestNamesOfKeysDiffer(t *testing.T) {
	names := map[string]bool{}
	for _, parts := range [][3]string{{"anna", "ns", "k"}, {"ann", "ans", "k"}, {"anna", "n", "sk"}, {"anna", "ns", "l"}, {"berta", "ns", "k"}} {
		name := nameOf(parts[0], parts[1], parts[2])
		if names[name] || len(name) != len("api-")+32 || name != nameOf(parts[0], parts[1], parts[2]) {
			t.Errorf("name %s of %v", name, parts)
		}
		names[name] = true
	}
}
