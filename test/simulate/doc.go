// Package simulate runs migrations in one process, in virtual time, from a seed: the
// real reconciler of package migration, the real decisions of the node agents and the
// real admission webhook, against models of everything around them.
//
// A seed draws a scenario (who owns the pods, what they keep, how they are moved), and
// disturbances: crashes of the controller between any two calls, a leader that stalls
// while another one works, lost answers, late watches, nodes that are cut off or
// reboot, and what users do meanwhile. One actor runs at a time, and gives way at every
// call to the API server, so the same seed is the same run, always.
//
//   - store.go, apiserver.go, eviction.go and client.go are the API server, as far as
//     a client can tell: resourceVersions, preconditions, finalizers, grace periods,
//     dry runs, admission, quotas, budgets;
//   - garbage.go, replicaset.go, job.go, jobpolicy.go, statefulset.go, scheduler.go,
//     kubelet.go, probe.go and nodes.go are what acts on the objects of Kubernetes;
//   - leader.go, agent.go and webhook.go drive the product, memory.go is what it carries
//     of processes and applications;
//   - scenario.go, special.go and disturbance.go draw, users.go does what users do;
//   - invariants.go and effects.go say what must never be, final.go what must be in the end;
//   - run.go runs a seed, shrink.go drops from a run that failed what it does not need.
//
// What a container works at is counted: a working pod increases a number on its
// volumes and acknowledges it. A copy holds the number as of then. So what was lost is
// seen, whoever lost it.
package simulate
