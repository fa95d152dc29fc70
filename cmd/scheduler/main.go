// Command scheduler is kube-scheduler with our plugins and the
// scheduler-plugins catalogue.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of API requests
	_ "k8s.io/component-base/metrics/prometheus/version"  // metric of the version
	"k8s.io/kubernetes/cmd/kube-scheduler/app"

	_ "github.com/ai-storage/orchestrator/pkg/apis/config/scheme" // plugin arguments
	"github.com/ai-storage/orchestrator/pkg/scheduling/plugins"
)

func main() {
	var options []app.Option
	for name, factory := range plugins.Registry() {
		options = append(options, app.WithPlugin(name, factory))
	}
	command := app.NewSchedulerCommand(options...)
	fitToAPIServer(command)
	os.Exit(cli.Run(command))
}
