package kubectl

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// completionTime bounds how long a shell waits for names.
const completionTime = 3 * time.Second

// completer lists what fits in a place of the command line, with a word on each
// behind a tab.
type completer func(ctx context.Context, s *session) []string

type completionFunc = func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// completeOne completes a single argument.
func (c *cli) completeOne(list completer) completionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.names(cmd, list)
	}
}

// completeMany completes every argument, with none twice.
func (c *cli) completeMany(list completer) completionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		names, directive := c.names(cmd, list)
		return slices.DeleteFunc(names, func(choice string) bool {
			return slices.ContainsFunc(args, func(given string) bool { return given == nameOf(choice) })
		}), directive
	}
}

func nameOf(choice string) string {
	for i, r := range choice {
		if r == '\t' {
			return choice[:i]
		}
	}
	return choice
}

func (c *cli) completeFlag(cmd *cobra.Command, flag string, list completer) {
	must(cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return c.names(cmd, list)
	}))
}

// completeFlags completes the flags that all commands share.
func (c *cli) completeFlags(root *cobra.Command) {
	c.completeFlag(root, "namespace", completeNamespaces)
	c.completeFlag(root, "system-namespace", completeNamespaces)
	for flag, names := range map[string]func(*api.Config) []string{
		"context": func(config *api.Config) []string { return keys(config.Contexts) },
		"cluster": func(config *api.Config) []string { return keys(config.Clusters) },
		"user":    func(config *api.Config) []string { return keys(config.AuthInfos) },
	} {
		must(root.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			config, err := c.flags.ToRawKubeConfigLoader().RawConfig()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return names(&config), cobra.ShellCompDirectiveNoFileComp
		}))
	}
}

func keys[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// must is for flags that this program has defined itself.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (c *cli) names(cmd *cobra.Command, list completer) ([]string, cobra.ShellCompDirective) {
	s, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	return list(ctx, s), cobra.ShellCompDirectiveNoFileComp
}

func completePods(ctx context.Context, s *session) []string {
	pods := &corev1.PodList{}
	if err := s.client.List(ctx, pods, client.InNamespace(s.namespace)); err != nil {
		return nil
	}
	var names []string
	for _, pod := range pods.Items {
		if pod.Spec.NodeName != "" && pod.Status.Phase == corev1.PodRunning {
			names = append(names, pod.Name+"\ton node "+pod.Spec.NodeName)
		}
	}
	return names
}

func completeNodes(ctx context.Context, s *session) []string {
	nodes := &corev1.NodeList{}
	if err := s.client.List(ctx, nodes); err != nil {
		return nil
	}
	var names []string
	for _, node := range nodes.Items {
		names = append(names, node.Name)
	}
	return names
}

func completeMigrations(ctx context.Context, s *session) []string {
	return migrationsThat(ctx, s, func(*v1alpha1.PodMigration) bool { return true })
}

func completeUnfinished(ctx context.Context, s *session) []string {
	return migrationsThat(ctx, s, func(m *v1alpha1.PodMigration) bool { return !m.Status.Phase.IsFinished() })
}

func migrationsThat(ctx context.Context, s *session, fits func(*v1alpha1.PodMigration) bool) []string {
	list := &v1alpha1.PodMigrationList{}
	if err := s.client.List(ctx, list, client.InNamespace(s.namespace)); err != nil {
		return nil
	}
	var names []string
	for i := range list.Items {
		if m := &list.Items[i]; fits(m) {
			names = append(names, m.Name+"\tof pod "+m.Spec.PodName+", "+string(m.Status.Phase))
		}
	}
	return names
}

func completeNamespaces(ctx context.Context, s *session) []string {
	list := &corev1.NamespaceList{}
	if err := s.client.List(ctx, list); err != nil {
		return nil
	}
	var names []string
	for _, ns := range list.Items {
		names = append(names, ns.Name)
	}
	return names
}

// completeWords completes what needs no cluster.
func (c *cli) completeWords(cmd *cobra.Command, flag string, words []string) {
	must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)))
}
