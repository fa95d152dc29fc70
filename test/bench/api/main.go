// Command api proves that the HTTP API loses nothing: many clients send POSTs to
// the rebalancer of a local cluster, whose process is killed in the middle with
// SIGKILL and started again. Clients repeat what was not answered, with the same
// Idempotency-Key. Afterwards every accepted id has to exist, each pod has to have
// exactly one migration, and a repetition of every request has to name the same id.
// It prints latencies, and ends with 1 when anything is lost or doubled.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/ai-storage/orchestrator/test/devcluster"
)

type options struct {
	cluster        devcluster.Options
	posts, clients int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, flags(), os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func flags() options {
	o := options{cluster: devcluster.Options{
		Nodes:      devcluster.NodeSpec{Kind: devcluster.Simulated, Count: 20},
		Components: []string{devcluster.Scheduler, devcluster.Rebalancer}, Progress: os.Stdout,
	}}
	flag.StringVar(&o.cluster.StateDir, "state-dir", filepath.Join(os.TempDir(), "ai-storage-bench-api"), "directory of the local cluster")
	flag.StringVar(&o.cluster.BinDir, "bin-dir", "bin", "directory of the programs")
	flag.StringVar(&o.cluster.ManifestsDir, "manifests", "manifests", "directory of the manifests")
	flag.StringVar(&o.cluster.ConfigFile, "config", "config/scheduler-configuration.yaml", "configuration of scheduler and rebalancer")
	flag.IntVar(&o.posts, "posts", 1000, "POSTs in all, one pod each")
	flag.IntVar(&o.clients, "clients", 50, "clients that send at the same time")
	flag.Parse()
	return o
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.clients < 1 || o.posts < o.clients {
		return fmt.Errorf("-posts %d has to be at least -clients %d, which has to be at least 1", o.posts, o.clients)
	}
	cluster, err := devcluster.Up(ctx, o.cluster)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, devcluster.Down(context.WithoutCancel(ctx), o.cluster.StateDir, io.Discard))
	}()
	world, err := newWorld(ctx, cluster, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d pods run on %d nodes; %d clients with a service account each send %d POSTs\n", o.posts, o.cluster.Nodes.Count, o.clients, o.posts)
	load := newLoad(world, o)
	if err := load.run(ctx); err != nil {
		return err
	}
	load.print(out)
	return world.verify(ctx, load, out)
}

// print what the clients saw.
func (l *load) print(out io.Writer) {
	fmt.Fprintf(out, "accepted %d of %d in %.1f s; after %d the rebalancer was killed, and answered again %.1f s later\n",
		len(l.accepted), l.posts, l.took.Seconds(), l.killAfter, l.outage.Seconds())
	fmt.Fprintf(out, "attempts that were not answered with 202: %d; of the accepted, %d were found stored already by their key\n", l.failed, l.replayed)
	for _, line := range []struct {
		name  string
		times []time.Duration
	}{
		{"one attempt that was answered", l.attempts}, {"from the first attempt, through the outage", l.whole},
	} {
		slices.Sort(line.times)
		fmt.Fprintf(out, "%-43s n %d  p50 %s  p99 %s  max %s\n", line.name, len(line.times), at(line.times, 50), at(line.times, 99), at(line.times, 100))
	}
}

// at is the percentile of sorted times, by nearest rank.
func at(sorted []time.Duration, percent int) time.Duration {
	rank := (len(sorted)*percent + 99) / 100
	return sorted[max(rank, 1)-1].Round(100 * time.Microsecond)
}
