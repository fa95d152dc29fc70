package kubectl

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
)

// defaultSystemNamespace is where the manifests put the rebalancer.
const defaultSystemNamespace = "ai-storage-system"

// cli is what all commands share.
type cli struct {
	genericiooptions.IOStreams
	flags *genericclioptions.ConfigFlags
	// systemNamespace is that of the rebalancer.
	systemNamespace string
	// connect returns the cluster that the flags name.
	connect func() (*session, error)
	now     func() time.Time
	// silence keeps the libraries of this process quiet for good: some log what they
	// return as an error too.
	silence func()
	// width of the terminal that progress goes to, in characters; 0 where it is none.
	width func() int
	// poll is the time between two looks where nothing is watched.
	poll time.Duration
}

// Run executes the command line until it is done or ctx ends, and returns the
// exit code. It calls silence before the command unless -v asks for what the
// libraries log: their logger is the whole process's, so the program has to say
// how, and one that runs more than a command line gives a silence that does nothing.
func Run(ctx context.Context, args []string, streams genericiooptions.IOStreams, silence func()) int {
	c := &cli{IOStreams: streams, flags: genericclioptions.NewConfigFlags(true), now: time.Now, silence: silence, poll: time.Second}
	c.connect = c.connectByFlags
	c.width = func() int { return terminalWidth(streams.Out) }
	return c.run(ctx, args)
}

func (c *cli) run(ctx context.Context, args []string) int {
	root := c.rootCommand() //nolint:contextcheck // cobra gives the context to the commands.
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	for _, one := range all(err) {
		fmt.Fprintln(c.ErrOut, "error:", explain(one))
	}
	if codeOf(err) == ExitUsage {
		fmt.Fprintln(c.ErrOut, "See 'kubectl migrate --help'.")
	}
	return codeOf(err)
}

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-migrate",
		Short: "Move pods without redoing finished work and without losing unfinished work",
		Long: `Move pods between nodes without redoing finished work and without losing unfinished
work, and see what the rebalancer plans.

` + exitCodesHelp,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl migrate"},
		SilenceErrors: true,
		SilenceUsage:  true,
		// Typing errors, as cobra itself counts them.
		SuggestionsMinimumDistance: 2,
		Args:                       noUnknownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(c.In)
	root.SetOut(c.Out)
	root.SetErr(c.ErrOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	c.flags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&c.systemNamespace, "system-namespace", defaultSystemNamespace, "Namespace that the rebalancer runs in")
	c.addVerbosity(root)
	root.AddCommand(c.podCommand(), c.planCommand(), c.listCommand(), c.describeCommand(), c.cancelCommand(), c.recoverCommand(), c.topCommand(),
		c.pauseCommand(), c.resumeCommand(), c.drainCommand(), c.versionCommand())
	c.completeFlags(root)
	return root
}

// addVerbosity adds -v as kubectl has it. Without it the libraries are silent:
// what a user has to know is in the output of the command.
func (c *cli) addVerbosity(root *cobra.Command) {
	klogFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(klogFlags)
	root.PersistentFlags().AddGoFlag(klogFlags.Lookup("v"))
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if cmd.Flags().Lookup("v").Value.String() == "0" {
			c.silence()
			cmd.SetContext(klog.NewContext(cmd.Context(), logr.Discard()))
		}
	}
}

func noUnknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage("%s", message)
}

// exactly wants so many arguments, and says what they are.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage("%s needs %s; %d arguments were given", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("%s needs %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no arguments, but %q was given", cmd.CommandPath(), args[0])
	}
	return nil
}
