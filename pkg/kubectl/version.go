package kubectl

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// versionView is what -o json shows.
type versionView struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	// API is the PodMigration API that this program speaks; Served reports whether
	// the cluster does, too, and is absent where it was not asked.
	API    string `json:"api"`
	Served *bool  `json:"served,omitempty"`
}

func (c *cli) versionCommand() *cobra.Command {
	var output string
	var clientOnly bool
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version of this program, and whether the cluster serves its API",
		Args: none,
		RunE: func(*cobra.Command, []string) error { return c.version(output, clientOnly) },
	}
	addDataOutput(cmd, &output)
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Do not ask the cluster")
	return cmd
}

func (c *cli) version(output string, clientOnly bool) error {
	if err := validateDataOutput(output); err != nil {
		return err
	}
	view := ownVersion()
	var unknown error
	if !clientOnly {
		var served bool
		if served, unknown = c.isServed(); unknown == nil {
			view.Served = &served
		}
	}
	if output != "" {
		if err := writeData(c.Out, output, view); err != nil {
			return err
		}
	} else {
		c.writeVersion(view)
	}
	if unknown != nil {
		return fmt.Errorf("asking the cluster for its APIs: %w", unknown)
	}
	return nil
}

func (c *cli) writeVersion(view versionView) {
	commit := ""
	if view.Commit != "" {
		commit = ", commit " + view.Commit
	}
	fmt.Fprintf(c.Out, "kubectl migrate %s%s (%s, %s)\n", view.Version, commit, view.Go, view.Platform)
	if view.Served == nil {
		return
	}
	served := "does not serve"
	if *view.Served {
		served = "serves"
	}
	fmt.Fprintf(c.Out, "The cluster %s %s.\n", served, view.API)
}

// version is that of a release, set by the linker (krew.sh).
var version string

// ownVersion is what the linker wrote down.
func ownVersion() versionView {
	view := versionView{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, API: v1alpha1.SchemeGroupVersion.String()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return view
	}
	view.Version = cmp.Or(version, info.Main.Version, view.Version)
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			view.Commit = setting.Value
		}
	}
	return view
}

// isServed reports whether the cluster knows PodMigrations of our version.
func (c *cli) isServed() (bool, error) {
	s, err := c.connect()
	if err != nil {
		return false, err
	}
	return s.serves(v1alpha1.SchemeGroupVersion.WithKind("PodMigration"))
}
