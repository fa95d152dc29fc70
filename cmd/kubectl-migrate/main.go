// Command kubectl-migrate is the kubectl plugin: kubectl migrate.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // clusters that users log in to
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ai-storage/orchestrator/pkg/kubectl"
)

func main() {
	log.SetLogger(klog.Background())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	code := kubectl.Run(ctx, os.Args[1:], streams, func() { klog.SetLogger(logr.Discard()) })
	stop()
	os.Exit(code)
}
