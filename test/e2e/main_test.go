//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
	"github.com/ai-storage/orchestrator/test/devcluster"
)

// env is the cluster that all tests of this package share.
var env struct {
	cluster *devcluster.Cluster
	config  *rest.Config
	client  client.WithWatch
	// nodes are the two nodes that pods move between. Only what watches them runs
	// on the observer.
	nodes    []string
	observer string
	// breakpoints and line stand between the tests and the rebalancer, all the time.
	breakpoints *breakpoints
	line        *webhookLine
}

// takeDownTime is kept of the tests' time limit, to leave nothing running.
const takeDownTime = 2 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if limit, ok := timeLimit(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit-takeDownTime)
		defer cancel()
	}
	code, err := runAll(ctx, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// timeLimit is that of go test, after which nothing is cleaned up any more.
func timeLimit() (time.Duration, bool) {
	limit, ok := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration)
	return limit, ok && limit > takeDownTime
}

func runAll(ctx context.Context, m *testing.M) (code int, err error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return 1, err
	}
	stateDir, err := os.MkdirTemp("", "ais-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() {
		down := takeDown
		if code == 0 && err == nil {
			down = takeDownWithoutState
		}
		if downErr := down(stateDir); downErr != nil && err == nil {
			err = fmt.Errorf("taking the cluster down: %w", downErr)
		}
		if code == 0 && err == nil {
			err = os.RemoveAll(stateDir)
		} else {
			fmt.Fprintln(os.Stderr, "logs are kept in", stateDir)
		}
	}()
	env.cluster, err = devcluster.Up(ctx, devcluster.Options{
		StateDir:     stateDir,
		BinDir:       filepath.Join(root, "bin"),
		ManifestsDir: filepath.Join(root, "manifests"),
		ConfigFile:   filepath.Join(root, "test/e2e/testdata/scheduler-configuration.yaml"),
		Nodes:        devcluster.NodeSpec{Kind: devcluster.Real, Count: 3},
		CSI:          true,
		Images:       images(),
		Components:   []string{devcluster.Scheduler},
		Progress:     os.Stdout,
	})
	if err != nil {
		return 1, fmt.Errorf("bringing the cluster up: %w", err)
	}
	if err := connect(ctx); err != nil {
		return 1, err
	}
	env.breakpoints = newBreakpoints()
	if env.line, err = newWebhookLine(); err != nil {
		return 1, err
	}
	if err := errors.Join(startRebalancer(), env.cluster.AwaitComponent(ctx, devcluster.Rebalancer)); err != nil {
		return 1, err
	}
	// Nothing reports an interrupt or the time limit to the tests, and neither may
	// wait for them.
	endWatch := context.AfterFunc(ctx, func() {
		fmt.Fprintln(os.Stderr, "e2e:", context.Cause(ctx), "- logs are kept in", stateDir)
		if err := takeDown(stateDir); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
		os.Exit(130)
	})
	defer endWatch()
	code = m.Run()
	if err := checkRights(); err != nil {
		return 1, err
	}
	return code, nil
}

// images are those that only the long proofs need.
func images() []string {
	if !isFull() {
		return nil
	}
	return programArchives()
}

// takeDown has a time of its own: what was started must go also after an
// interrupt.
func takeDown(stateDir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), takeDownTime)
	defer cancel()
	return devcluster.Down(ctx, stateDir, os.Stdout)
}

func connect(ctx context.Context) (err error) {
	if env.config, err = env.cluster.AdminConfig(); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	if env.client, err = client.NewWithWatch(env.config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	return prepareNodes(ctx)
}
