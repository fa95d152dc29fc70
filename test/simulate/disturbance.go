package simulate

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Disturbance is one thing that interferes with a run.
type Disturbance struct {
	Kind string
	// Call is the number of the call of a controller, or of an agent, at which it
	// happens; 0 for one that happens at a moment. Of says which calls of a controller
	// count: all, those that change other objects than the migration ("write"), or those
	// of one verb; or that not calls count but parts of passes ("pass"), or last passes
	// ("seal").
	Call int
	Of   string
	At   time.Duration
	// Lasts is for how long; Target chooses among what there is.
	Lasts  time.Duration
	Target int
	// Then is what a user does a moment later.
	Then string
}

func (d Disturbance) String() string {
	when := fmt.Sprintf("at call %d", d.Call)
	switch {
	case d.Call == 0:
		when = fmt.Sprintf("at %.1f s", d.At.Seconds())
	case d.Of != "":
		when = fmt.Sprintf("at %s %d", d.Of, d.Call)
	}
	if d.Then != "" {
		when += ", then " + d.Then
	}
	return fmt.Sprintf("%s %s (%.1f s, target %d)", d.Kind, when, d.Lasts.Seconds(), d.Target)
}

// Kinds of disturbances of the calls of a controller.
const (
	crashBefore = "CrashBeforeCall"
	crashAfter  = "CrashAfterCall"
	stallBefore = "StallBeforeCall"
	stallAfter  = "StallAfterCall"
	errorBefore = "RefusedCall"
	errorAfter  = "LostAnswer"
	agentCrash  = "AgentCrash"
	agentError  = "AgentLostAnswer"
)

// callKinds are drawn the more often, the more often they are listed.
var callKinds = []string{
	crashBefore, crashAfter, crashAfter, stallBefore, stallBefore, stallAfter, errorBefore, errorAfter, errorAfter,
	agentCrash, agentCrash, agentError,
}

// worldKinds happen to the world, by users and by machines.
var worldKinds = []string{
	"CutNode", "CutNode", "RebootNode", "WebhookDown", "VolumesHang", "ClaimFull", "AgentDown",
	"Cancel", "Cancel", "DeleteMigration", "DeleteMigration", "DeleteOriginal", "DeleteReplacement", "DeleteReplacement", "DeletePlaceholder",
	"EvictPlaceholder", "PreemptPlaceholder", "DeleteClaim", "DeleteOwner", "OrphanOwner", "DeleteNamespace", "ScaleToZero", "ScaleUp", "ScaleDown",
	"Suspend", "RollOut", "Cordon", "Drain", "EvictOriginal", "EvictReplacement", "EditPod", "AddBudget", "RemoveBudget",
	"ContainerFinishes", "ContainerFails", "Quota", "SecondMigration", "KillNode",
}

// streamKinds happen within a pass of a stream, or right after what it brought was sealed.
var streamKinds = []string{
	"CutLinks", "CutLinks", "DestinationAgentDies", "DestinationAgentDies", "SourceAgentDies", "KillDestination", "KillDestination", "DestinationReboots",
	"ClaimFull", "DiskFull", "VolumesHang", "VolumesHang", "DeletePlaceholder", "EvictPlaceholder", "PreemptPlaceholder", "DeleteReplacement", "DeleteClaim", "Cancel", "Stranger", "CordonDestination",
}

// drawDisturbances draws up to five; every fourth run has none.
func drawDisturbances(r *rand.Rand) []Disturbance {
	var drawn []Disturbance
	for range max(0, r.IntN(8)-1) {
		if len(drawn) == 5 {
			break
		}
		d := Disturbance{Target: r.IntN(100), Lasts: time.Duration(r.IntN(60000)+500) * time.Millisecond}
		if chance(r, 10) {
			d.Lasts *= 6
		}
		switch draw := r.IntN(100); {
		case draw < 38:
			d.Kind = pick(r, callKinds...)
			d.drawCall(r)
			if strings.HasPrefix(d.Kind, "Stall") && chance(r, 50) {
				d.Then = pick(r, "Cancel", "Cancel", "DeleteMigration", "DeleteReplacement", "DeleteOriginal", "DeleteClaim", "ScaleToZero")
			}
		case draw < 62:
			d.Kind, d.Of, d.Call = pick(r, streamKinds...), pick(r, "pass", "seal", "seal", "evict", "delete"), 1
			if d.Of != "seal" {
				d.Call = r.IntN(5) + 1
			}
		default:
			d.Kind = pick(r, worldKinds...)
			if chance(r, 70) {
				d.drawCall(r)
			} else {
				d.At = settled + time.Duration(r.IntN(90000))*time.Millisecond
			}
		}
		drawn = append(drawn, d)
	}
	return drawn
}

func (d *Disturbance) drawCall(r *rand.Rand) {
	d.Call = r.IntN(250) + 1
	if d.Kind == agentCrash || d.Kind == agentError {
		return
	}
	switch draw := r.IntN(100); {
	case draw < 30:
		d.Of, d.Call = "write", r.IntN(25)+1
	case draw < 60:
		d.Of, d.Call = pick(r, "evict", "evict", "create", "delete", "patch"), r.IntN(4)+1
	}
}

// settled is when the pods of a scenario run, and migrations are requested.
const settled = 30 * time.Second

// faultPlan has what is to happen at which call.
type faultPlan struct {
	w        *world
	ofLeader map[int][]Disturbance
	ofAgent  map[int][]Disturbance
	// of are those of some calls of the leaders; counted is how many of them there were.
	of      []Disturbance
	counted map[string]int
}

func newFaultPlan(w *world, disturbances []Disturbance) *faultPlan {
	f := &faultPlan{w: w, ofLeader: map[int][]Disturbance{}, ofAgent: map[int][]Disturbance{}, counted: map[string]int{}}
	for _, d := range disturbances {
		switch {
		case d.Call == 0:
			w.at(d.At, func() {
				w.statistic.count(d.Kind)
				w.disturb(d)
			})
		case d.Kind == agentCrash, d.Kind == agentError:
			f.ofAgent[d.Call] = append(f.ofAgent[d.Call], d)
		case d.Of != "":
			f.of = append(f.of, d)
		default:
			f.ofLeader[d.Call] = append(f.ofLeader[d.Call], d)
		}
	}
	return f
}

// next returns what the call of a process meets; nil when nothing.
func (f *faultPlan) next(p *process, verb string) *fault {
	var due []Disturbance
	switch p.calls {
	case &f.w.leaderCalls:
		due = f.ofLeader[f.w.leaderCalls]
		if isWrite(verb) {
			due = append(due[:len(due):len(due)], f.nextWrite(verb)...)
		}
	case &f.w.agentCalls:
		due = f.ofAgent[f.w.agentCalls]
	}
	if len(due) == 0 {
		return nil
	}
	return &fault{due: due}
}

// reach counts a part of a pass, or a last one, and lets happen what happens then.
func (f *faultPlan) reach(what string) {
	f.counted[what]++
	for _, d := range f.of {
		if d.Of == what && f.counted[what] == d.Call {
			f.w.statistic.count(d.Kind)
			f.w.at(f.w.now, func() { f.w.disturb(d) })
		}
	}
}

// nextWrite counts a call that changes an object, and returns what it meets.
func (f *faultPlan) nextWrite(call string) (due []Disturbance) {
	verb, _, _ := strings.Cut(call, " ")
	f.counted["write"]++
	f.counted[verb]++
	for _, d := range f.of {
		if (d.Of == verb || d.Of == "write") && f.counted[d.Of] == d.Call {
			due = append(due, d)
		}
	}
	return due
}

// isWrite reports whether a call changes another object than the migration.
func isWrite(verb string) bool {
	return !strings.HasPrefix(verb, "get") && !strings.HasPrefix(verb, "list") && !strings.HasPrefix(verb, "patch status of")
}

// fault is what one call meets.
type fault struct {
	due    []Disturbance
	answer error
}

type callPoint int

const (
	beforeEffect callPoint = iota
	afterEffect
)

func (f *fault) err() error { return f.answer }

// meet reports whether the call is answered with an error at this point.
func (f *fault) meet(w *world, p *process, verb string, point callPoint) bool {
	ends := false
	for _, d := range f.due {
		happens := beforeEffect
		if d.Kind == crashAfter || d.Kind == stallAfter || d.Kind == errorAfter || d.Kind == agentError || d.Kind == agentCrash && d.Target%2 == 0 {
			happens = afterEffect
		}
		if happens != point {
			continue
		}
		w.statistic.count(d.Kind)
		w.say(p.name, "meets %s at its call to %s", d.Kind, verb)
		switch d.Kind {
		case crashBefore, crashAfter:
			w.leaderOf(p, func(l *leader) { l.crash(d.Lasts / 4) })
			p.sleep(time.Hour)
		case stallBefore, stallAfter:
			if d.Then != "" {
				then := Disturbance{Kind: d.Then, At: w.now, Lasts: d.Lasts, Target: d.Target}
				w.after(w.between(100*time.Millisecond, d.Lasts/2), func() { w.disturb(then) })
			}
			w.leaderOf(p, func(l *leader) { l.stall(d.Lasts*2, d.Target%3) })
			p.sleep(0)
		case agentCrash:
			w.agentOf(p, func(a *agent) { a.crash(); w.after(d.Lasts/4, a.start) })
			p.sleep(time.Hour)
		case errorBefore:
			f.answer, ends = apierrors.NewInternalError(fmt.Errorf("etcdserver: request timed out")), true
		case errorAfter, agentError:
			f.answer, ends = apierrors.NewTimeoutError("the answer was lost", 1), true
		default:
			w.disturb(d)
		}
	}
	return ends
}

// leaderOf does something to the replica of a process, once that gives way.
func (w *world) leaderOf(p *process, do func(*leader)) {
	w.at(w.now, func() {
		for _, l := range w.leaders {
			if l.process == p {
				do(l)
				return
			}
		}
	})
}

func (w *world) agentOf(p *process, do func(*agent)) {
	w.at(w.now, func() {
		for _, m := range w.machines {
			for _, running := range m.agent.running {
				if running == p {
					do(m.agent)
					return
				}
			}
		}
	})
}
