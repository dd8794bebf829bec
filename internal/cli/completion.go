package cli

import (
	"io"

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
			if _, err := io.WriteString(a.stdout, bashFallback); err != nil {
				return err
			}
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

// bashFallback stands in for the two functions of the package bash-completion
// that the script calls, in a shell that has not loaded it. It leaves words with
// = and : as bash splits them.
const bashFallback = `declare -F _get_comp_words_by_ref >/dev/null || _get_comp_words_by_ref() {
    cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
}
declare -F __ltrim_colon_completions >/dev/null || __ltrim_colon_completions() { :; }
`
