package main

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/server/restapi"
)

// startEvery is how often a migration begins. Those with a number below 0 began
// before the server, further apart.
const (
	startEvery = 4 * time.Second
	pastEvery  = 7 * time.Minute
	pastCount  = 40
)

// steps of a migration: when each phase begins, and the end.
var steps = []struct {
	phase v1alpha1.Phase
	after time.Duration
}{
	{v1alpha1.PhasePending, 0},
	{v1alpha1.PhasePreparing, 2 * time.Second},
	{v1alpha1.PhasePlacing, 6 * time.Second},
	{v1alpha1.PhaseHandingOver, 9 * time.Second},
	{v1alpha1.PhaseSucceeded, 12 * time.Second},
}

var pods = []struct{ namespace, name string }{
	{"training", "resnet50-sweep"}, {"training", "bert-finetune"}, {"serving", "embedder"},
	{"batch", "tokenize-corpus"}, {"training", "diffusion-eval"}, {"etl", "feature-build"},
}

type migration struct{ restapi.Migration }

// migrations that exist at a moment, the newest first.
func (w *world) migrations(now time.Time) []restapi.Migration {
	if w.idle {
		return nil
	}
	var all []restapi.Migration
	for i := int(now.Sub(w.start) / startEvery); i >= -pastCount; i-- {
		if !w.pause.Paused || i < 0 {
			all = append(all, w.migration(i, now).Migration)
		}
	}
	return all
}

func (w *world) migration(i int, now time.Time) migration {
	created := w.start.Add(time.Duration(i) * startEvery)
	if i < 0 {
		created = w.start.Add(time.Duration(i) * pastEvery)
	}
	pod := pods[(i+len(pods)*pastCount)%len(pods)]
	m := migration{restapi.Migration{
		ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i+pastCount+1), Name: fmt.Sprintf("rebalance-%d", i+pastCount+1),
		Namespace: pod.namespace, PodName: fmt.Sprintf("%s-%d", pod.name, i+pastCount+1),
		SourceNode: nodeName(3 + 8*(i&1)), TargetNode: nodeName((i+pastCount)%3 + 4),
		CreatedAt: created.UTC(), TimeoutSeconds: 600,
		Handover:        &restapi.Handover{Order: "CreateBeforeDelete", Method: "Release"},
		CheckpointClaim: fmt.Sprintf("checkpoint-%s-%d", pod.name, i+pastCount+1), CheckpointPath: v1alpha1.CheckpointMountPath,
		Containers: []restapi.Container{
			{Name: "fetch-dataset", Kind: v1alpha1.KindInit, State: v1alpha1.StateCompleted, Reason: "Completed", Message: "finished with exit code 0 and will not restart: left out, its requests are freed"},
			{Name: "train", Kind: v1alpha1.KindContainer, State: v1alpha1.StateRunning, ShouldMigrate: true, Reason: "Running", Message: "is running"},
			{Name: "metrics", Kind: v1alpha1.KindSidecar, State: v1alpha1.StateRunning, ShouldMigrate: true, Reason: "Sidecar", Message: "is a sidecar"},
		},
		OriginalResources: resources("6", "24Gi", "4200m", "9Gi"),
	}}
	m.advance(now.Sub(created), i)
	return m
}

func resources(cpu, memory, usedCPU, usedMemory string) *restapi.Resources {
	return &restapi.Resources{
		Requests: map[corev1.ResourceName]string{"cpu": cpu, "memory": memory},
		Usage:    map[corev1.ResourceName]string{"cpu": usedCPU, "memory": usedMemory},
		Source:   v1alpha1.UsageFromMetricsAPI,
	}
}

// advance to an age. Every ninth migration fails before its handover.
func (m *migration) advance(age time.Duration, i int) {
	fails := (i+9*pastCount)%9 == 4
	for _, step := range steps {
		at := m.CreatedAt.Add(step.after)
		if age < step.after {
			break
		}
		if n := len(m.PhaseTimes); n > 0 {
			last := &m.PhaseTimes[n-1]
			last.EndedAt, last.Seconds = &at, new(at.Sub(last.StartedAt).Seconds())
		}
		if fails && step.phase == v1alpha1.PhaseHandingOver {
			m.Phase, m.FinishedAt = v1alpha1.PhaseFailed, &at
			m.Message = "the replacement found no node within 3 s: 0/20 nodes are available: 18 Insufficient cpu, 2 node(s) were unschedulable; the original runs on"
			return
		}
		m.Phase = step.phase
		m.enter(step.phase, at)
	}
}

func (m *migration) enter(phase v1alpha1.Phase, at time.Time) {
	switch phase {
	case v1alpha1.PhasePending:
		m.Queued, m.Message = true, "waits for a place in the budget"
	case v1alpha1.PhasePreparing:
		m.Queued, m.StartedAt, m.Message = false, &at, "copies the pod's volumes for the first time"
	case v1alpha1.PhasePlacing:
		m.Message = "the replacement waits for a node"
	case v1alpha1.PhaseHandingOver:
		m.NewPod, m.NewNode, m.Message = m.PodName+"-migrated", m.TargetNode, "copies the last changes"
	case v1alpha1.PhaseSucceeded:
		m.FinishedAt, m.DowntimeSeconds, m.CopiedBytes, m.Message = &at, new(1.4), new(int64(734003200)), ""
		m.OptimizedResources = resources("4500m", "20Gi", "4150m", "9Gi")
		return
	}
	m.PhaseTimes = append(m.PhaseTimes, restapi.PhaseTime{Phase: phase, StartedAt: at})
}

// figures count what migrations shows; the fixed ones follow from its resources.
func (w *world) figures(now time.Time) restapi.Figures {
	var f restapi.Figures
	for _, m := range w.migrations(now) {
		f.Migrations.Total++
		switch {
		case m.Phase == v1alpha1.PhaseSucceeded:
			f.Migrations.Succeeded++
		case m.Phase == v1alpha1.PhaseFailed:
			f.Migrations.Failed++
		case m.Queued:
			f.Migrations.Queued++
		default:
			f.Migrations.Running++
		}
	}
	good := f.Migrations.Succeeded
	if good == 0 {
		return f
	}
	f.SuccessPercent = restapi.Figure{Value: new(100 * float64(good) / float64(good+f.Migrations.Failed)), N: good + f.Migrations.Failed}
	f.AverageDurationSeconds, f.AverageDowntimeSeconds = restapi.Figure{Value: new(10.0), N: good}, restapi.Figure{Value: new(1.4), N: good}
	f.CPURequestSavingsPercent, f.MemoryRequestSavingsPercent = restapi.Figure{Value: new(25.0), N: good}, restapi.Figure{Value: new(100.0 / 6), N: good}
	f.CPUUsageSavingsPercent, f.MemoryUsageSavingsPercent = restapi.Figure{Value: new(100 * 0.05 / 4.2), N: good}, restapi.Figure{Value: new(0.0), N: good}
	return f
}
