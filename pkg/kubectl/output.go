package kubectl

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// dryRun is --dry-run as kubectl has it, but for client: a judgement without the
// cluster would be a guess.
type dryRun struct{ value string }

const (
	dryRunNone   = "none"
	dryRunServer = "server"
)

func (d *dryRun) add(cmd *cobra.Command) {
	flag := cmd.Flags()
	flag.StringVar(&d.value, "dry-run", dryRunNone, `"none" or "server": the cluster checks everything and nothing is stored; --dry-run alone means server`)
	flag.Lookup("dry-run").NoOptDefVal = dryRunServer
}

func (d *dryRun) validate() error {
	if !slices.Contains([]string{dryRunNone, dryRunServer}, d.value) {
		return usage(`--dry-run=%s: must be "none" or "server"`, d.value)
	}
	return nil
}

func (d *dryRun) on() bool { return d.value == dryRunServer }

func (d *dryRun) create() []client.CreateOption {
	if d.on() {
		return []client.CreateOption{client.DryRunAll}
	}
	return nil
}

func (d *dryRun) update() []client.UpdateOption {
	if d.on() {
		return []client.UpdateOption{client.DryRunAll}
	}
	return nil
}

func (d *dryRun) patch() []client.PatchOption {
	if d.on() {
		return []client.PatchOption{client.DryRunAll}
	}
	return nil
}

// suffix is what kubectl writes behind what it would have done.
func (d *dryRun) suffix() string {
	if d.on() {
		return " (server dry run)"
	}
	return ""
}

func print(w io.Writer, flags *genericclioptions.PrintFlags, object runtime.Object) error {
	printer, err := flags.ToPrinter()
	if err != nil {
		return usage("%w", err)
	}
	return printer.PrintObj(object, w)
}

// writeData writes what is no Kubernetes object as JSON or YAML.
func writeData(w io.Writer, format string, data any) error {
	text, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return err
	}
	if format == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	_, err = fmt.Fprintln(w, string(text))
	return err
}

// addDataOutput adds -o for what writeData writes.
func addDataOutput(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "", `Output format: "json" or "yaml"; empty is a table`)
}

func validateDataOutput(format string) error {
	if !slices.Contains([]string{"", "json", "yaml"}, format) {
		return usage(`--output=%s: must be "json" or "yaml"`, format)
	}
	return nil
}
