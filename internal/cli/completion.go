package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	c := &cobra.Command{
		Use:     "completion bash|zsh|fish",
		Short:   "Print a shell completion script",
		GroupID: groupOther,
		Long: `completion prints a script that makes a shell complete egate's commands, flags, words
and the names of gates. Load it in the running shell, or install it for all.`,
		Example: `  source <(egate completion bash)
  egate completion bash | sudo tee /etc/bash_completion.d/egate >/dev/null
  egate completion zsh > "${fpath[1]}/_egate"
  egate completion fish > ~/.config/fish/completions/egate.fish`,
		ValidArgs: toCompletions(shells),
		Args:      arguments(1, 1, "one shell: bash, zsh or fish"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		switch args[0] {
		case "bash":
			return c.Root().GenBashCompletionV2(a.stdout, true)
		case "zsh":
			return c.Root().GenZshCompletion(a.stdout)
		case "fish":
			return c.Root().GenFishCompletion(a.stdout, true)
		}
		return usagef("%q is no shell that completion knows; it knows bash, zsh and fish", args[0])
	}
	return c
}
