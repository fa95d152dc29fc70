package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// finalWindow is the end of a run, over which the last figures are means.
const finalWindow = time.Minute

// result is what one arm did to one scenario.
type result struct {
	Arm  string `json:"arm"`
	Seed uint64 `json:"seed"`
	Pods int    `json:"pods"`
	// Factor turns percent of a request, as in the trace, into use.
	Factor float64 `json:"factor"`

	// Standard deviations of the CPU load over the nodes, in percent of
	// allocatable: at the start, as the mean of the last minute, as the mean of the
	// whole run, and what it would be in the last minute if no pod had moved.
	Before  float64 `json:"before"`
	After   float64 `json:"after"`
	Average float64 `json:"average"`
	Skipped float64 `json:"skipped"`
	// Nodes above the threshold, likewise.
	OverutilizedBefore int     `json:"overutilizedBefore"`
	OverutilizedAfter  float64 `json:"overutilizedAfter"`

	// Moves are pods that left their node. Undone are those of them that took the
	// replica back to a node that it had left before; Back are these and those
	// whose successor was at once placed on the same node.
	Moves  int `json:"moves"`
	Undone int `json:"undone"`
	Back   int `json:"back"`
	// Repeated are moves of replicas that had been moved before.
	Repeated int `json:"repeated"`
	// DownSeconds adds up the time in which no pod of a replica ran.
	DownSeconds int `json:"downSeconds"`
	// Strangers are pods that continue nobody. There should be none.
	Strangers int `json:"strangers"`
	// Migrations of ours, by how they ended.
	Migrations map[string]int `json:"migrations,omitempty"`
	// Failures are the messages of migrations that did not succeed.
	Failures []string `json:"failures,omitempty"`

	// loadAverage of the machine, at its highest.
	loadAverage float64

	Points []point `json:"points"`
	Log    []move  `json:"log"`
}

func (r *result) observe(p point) { r.Points = append(r.Points, p) }

// finish sums up what was observed.
func (r *result) finish(moves []move, strangers int) {
	r.Log, r.Moves, r.Strangers = moves, len(moves), strangers
	moved := map[slot]bool{}
	for _, m := range moves {
		if m.Undoes {
			r.Undone++
		}
		if m.isBack() {
			r.Back++
		}
		if s := (slot{m.Workload, m.Replica}); moved[s] {
			r.Repeated++
		} else {
			moved[s] = true
		}
	}
	if len(r.Points) == 0 {
		return
	}
	first, last := r.Points[0], r.Points[len(r.Points)-1]
	r.Before, r.OverutilizedBefore = first.Deviation, first.Overutilized
	var all, after, alone, overutilized []float64
	for _, p := range r.Points {
		r.DownSeconds += p.Down // a point a second
		all = append(all, p.Deviation)
		if p.Seconds > last.Seconds-finalWindow.Seconds() {
			after, alone, overutilized = append(after, p.Deviation), append(alone, p.Skipped), append(overutilized, float64(p.Overutilized))
		}
	}
	r.Average, r.After, r.Skipped, r.OverutilizedAfter = mean(all), mean(after), mean(alone), mean(overutilized)
}

// addMigrations tells how the migrations of ours ended.
func (r *result) addMigrations(ctx context.Context, cluster *devcluster.Cluster) error {
	config, err := cluster.AdminConfig()
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	reader, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	var migrations v1alpha1.PodMigrationList
	if err := reader.List(ctx, &migrations); err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	r.Migrations = map[string]int{}
	for _, m := range migrations.Items {
		phase := string(m.Status.Phase)
		if !m.Status.Phase.IsFinished() {
			phase = "InFlight"
		}
		r.Migrations[phase]++
		if m.Status.Phase == v1alpha1.PhaseFailed || m.Status.Phase == v1alpha1.PhaseCancelled {
			r.Failures = append(r.Failures, m.Spec.PodName+": "+m.Status.Message)
		}
	}
	return nil
}
