package simulate

import (
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/pkg/controllers/migration"
	"github.com/ai-storage/orchestrator/pkg/node/agent/decide"
)

// Plant is a fault that is put between the product and the world, to see whether the
// simulation finds it.
type Plant struct {
	Name string
	// Client wraps the clients of controller and agents.
	Client func(w *World, c client.Client) client.Client
	// SourceTask and DestinationTask change what an agent does.
	SourceTask      func(m *v1alpha1.PodMigration, task decide.Task) decide.Task
	DestinationTask func(m *v1alpha1.PodMigration, task decide.Task) decide.Task
	// IgnoreProbes freezes pods for longer than their liveness probes allow; KeepImages
	// leaves what processes were restored from.
	IgnoreProbes, KeepImages bool
	// KeepWaiting never removes what waits on a node, KeepCopies what is on a claim;
	// KeepReceiving does not end the reception at the release.
	KeepWaiting, KeepCopies, KeepReceiving bool
	// Admits decides which connections the agent of a destination takes.
	Admits func(m *v1alpha1.PodMigration, node string, s decide.Sender, pod *corev1.Pod) error
	// SealEarly reports a seal that the other side has not confirmed, and has the other side
	// report what the source does. SkipCopy does not write the last pass to the claim, and
	// restores whatever is there.
	SealEarly, SkipCopy bool
}

// World is the world of a run, as a Plant sees it.
type World = world

// Options of a run.
type Options struct {
	Seed uint64
	// Only keeps the disturbances with these numbers; nil keeps all.
	Only []int
	// Trace writes down what happens.
	Trace bool
	Plant *Plant
}

// Statistic counts what a run was.
type Statistic struct {
	Steps, Calls, Reconciliations int
	Simulated                     time.Duration
	Drawn                         map[string]int
	Ends                          map[string]int
}

func (s *Statistic) count(kind string) {
	if s.Drawn == nil {
		s.Drawn = map[string]int{}
	}
	s.Drawn[kind]++
}

// Result is what came of a run.
type Result struct {
	Seed         uint64
	Scenario     string
	Disturbances []Disturbance
	Violation    *Violation
	Trace        []string
	Statistic    Statistic
	// migrations are those that are left. leaderCalls is how many calls the controller made.
	migrations []*v1alpha1.PodMigration
	// frozen is how long a pod was frozen that was thawed again, at most.
	frozen time.Duration
	// recoveries are how those of users ended.
	recoveries  map[string]int
	leaderCalls int
	// end is that of a script; nil when its step was not reached.
	end *End
}

// endBound is how long a migration may take beyond its timeout, when nothing interferes
// any more; quiet is how long nothing happens before the end is judged.
const (
	endBound = 8 * time.Minute
	quiet    = 2 * time.Minute
)

// Sources of random numbers of one seed. Dropping a disturbance changes no scenario.
const (
	scenarioSource = iota + 1
	disturbanceSource
	worldSource
)

// Run runs a seed.
func Run(o Options) Result {
	return runScenario(o, drawScenario(rand.New(rand.NewPCG(o.Seed, scenarioSource))))
}

func runScenario(o Options, s *scenario) Result {
	return runDisturbed(o, s, drawDisturbances(rand.New(rand.NewPCG(o.Seed, disturbanceSource))))
}

// runDisturbed runs a scenario with disturbances that are given.
func runDisturbed(o Options, s *scenario, drawn []Disturbance) Result {
	if o.Only != nil {
		kept := []Disturbance{}
		for _, i := range o.Only {
			kept = append(kept, drawn[i])
		}
		drawn = kept
	}
	w := &world{
		store: newStore(), random: rand.New(rand.NewPCG(o.Seed, worldSource)), scenario: s, traced: o.Trace, plant: o.Plant,
		owned: newCreations(), binding: map[types.UID]string{},
		memory: map[string]client.Object{}, jobPause: map[types.UID]moment{}, jobIndexes: map[types.UID][]int{},
	}
	defer w.end()
	w.checks, w.work = &checker{w: w, deletedBy: map[types.UID]string{}, wereReady: map[types.UID]bool{}, forbids: map[types.UID]moment{}}, newLedger(w)
	w.webhook = newWebhook(w)
	w.faults = newFaultPlan(w, drawn)
	if s.script != nil {
		w.player = &player{script: s.script}
	}
	w.leaders = []*leader{newLeader(w, "leader-1", s.skews[0]), newLeader(w, "leader-2", s.skews[1])}
	w.setUp()
	w.leaders[0].lead()
	w.at(settled, w.requestAll)
	w.after(podGCInterval, w.collectUnscheduled)
	w.after(recoverInterval, w.recoverAll)
	w.run(drawn)
	r := Result{Seed: o.Seed, Scenario: s.String(), Disturbances: drawn, Violation: w.failure, Trace: w.trace, Statistic: w.statistic}
	r.Statistic.Simulated = w.now
	r.Statistic.Ends, r.recoveries = w.ends()
	r.leaderCalls = w.leaderCalls
	if w.player != nil {
		r.end = w.scriptEnd()
	}
	r.frozen = w.frozen
	each(w.store, migrations, func(m *v1alpha1.PodMigration) { r.migrations = append(r.migrations, m) })
	return r
}

func (w *world) requestAll() {
	for i, p := range w.userPods() {
		if w.player != nil {
			w.player.original = p
		}
		if i < w.scenario.migrations {
			w.request("m"+string(rune('1'+i)), p)
		}
	}
}

// run lets everything happen until all migrations have ended and it was quiet.
func (w *world) run(disturbances []Disturbance) {
	last := settled
	for _, d := range disturbances {
		if d.Call == 0 {
			last = max(last, d.At)
		}
		last = max(last, settled+d.Lasts*2)
	}
	limit := last + time.Duration(w.scenario.timeout)*time.Second + endBound
	// What is begun later could not end within the limit.
	w.recoverUntil = limit - endBound/2
	done := moment(-1)
	for w.failure == nil && w.step(limit) {
		switch {
		case w.now < settled+time.Second || !w.allEnded():
			done = -1
		case done < 0:
			done = max(w.now, last)
		case w.now > done+quiet:
			limit = w.now
		}
	}
	if w.failure == nil {
		w.checks.final()
	}
}

func (w *world) allEnded() bool {
	for _, object := range w.byKind[migrations] {
		if !object.(*v1alpha1.PodMigration).Status.Phase.IsFinished() {
			return false
		}
	}
	for _, m := range w.machines {
		if m.isDown() && !m.dead {
			return false
		}
	}
	return true
}

// ends counts how migrations ended, and of those the recoveries.
func (w *world) ends() (all, recoveries map[string]int) {
	all, recoveries = map[string]int{}, map[string]int{}
	each(w.store, migrations, func(m *v1alpha1.PodMigration) {
		end := string(m.CurrentPhase()) + "/" + migration.ReasonOf(m)
		if m.Spec.RecoverFrom != "" {
			recoveries[end]++
			end = "recovery " + end
		}
		all[end]++
	})
	return all, recoveries
}
