package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// completeVerb is what the scripts of the shells call: sendgate __complete WORD... with the words of the line after the
// program's name. The last word is the one that is completed; it may be empty.
const completeVerb = "__complete"

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help implements kong.HelpProvider.
func (*completionCmd) Help() string {
	return `Examples:

  sendgate completion bash > /etc/bash_completion.d/sendgate
  sendgate completion zsh > "${fpath[1]}/_sendgate"
  sendgate completion fish > ~/.config/fish/completions/sendgate.fish

For the present bash only: source <(sendgate completion bash)`
}

// Run implements the command.
func (c *completionCmd) Run(s *Streams) error {
	if _, err := io.WriteString(s.Out, completionScripts[c.Shell]); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// completionScripts ask the program itself, so that they need no change when the commands do. Where it knows no word, the
// shell completes file names.
var completionScripts = map[string]string{
	"bash": `_sendgate() {
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]}" ` + completeVerb + ` "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1))
}
complete -o default -F _sendgate sendgate
`,
	"zsh": `#compdef sendgate
_sendgate() {
    local line
    local -a values texts
    for line in "${(@f)$("${words[1]}" ` + completeVerb + ` "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -n "$line" ]] || continue
        values+=("${line%%$'\t'*}")
        texts+=("${line/$'\t'/  -- }")
    done
    if (( $#values )); then
        compadd -l -d texts -a values
    else
        _files
    fi
}
if [ "$funcstack[1]" = "_sendgate" ]; then
    _sendgate "$@"
else
    compdef _sendgate sendgate
fi
`,
	"fish": `function __sendgate_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    test -n "$current"; or set current ''
    $words[1] ` + completeVerb + ` $words[2..-1] "$current" 2>/dev/null
end
function __sendgate_knows
    test (count (__sendgate_complete)) -gt 0
end
complete -c sendgate -n __sendgate_knows -f -a '(__sendgate_complete)'
`,
}

// completions prints the words that may stand in place of the last one, each with a tab and what it means.
func completions(w io.Writer, root *kong.Node, words []string) error {
	for _, c := range complete(root, words) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(c.word+"\t"+c.help, "\t")); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

type candidate struct{ word, help string }

// complete follows the words to a command, and lists what may come next. It lists nothing where any text or a file may stand.
func complete(node *kong.Node, words []string) []candidate {
	if len(words) == 0 {
		words = []string{""}
	}
	current := words[len(words)-1]
	var pending *kong.Flag // the next word is its value
	places := 0            // arguments of the command that are given
	for _, word := range words[:len(words)-1] {
		switch {
		case word == "=": // bash cuts --flag=value at the sign
		case pending != nil:
			pending = nil
		case strings.HasPrefix(word, "-"):
			pending = valueFlag(node, word)
		default:
			switch child := childOf(node, word); {
			case child != nil:
				node = child
			case len(node.Children) > 0:
				return nil // no such command
			default:
				places++
			}
		}
	}
	name, value, assigned := strings.Cut(current, "=")
	switch {
	case pending != nil:
		return enumOf(pending.Value, strings.TrimPrefix(current, "="), "")
	case strings.HasPrefix(current, "-") && assigned:
		if flag := flagOf(node, name); flag != nil {
			return enumOf(flag.Value, value, name+"=")
		}
		return nil
	case strings.HasPrefix(current, "-"):
		return flagsOf(node, current)
	case places < len(node.Positional):
		return enumOf(node.Positional[places], current, "")
	}
	return childrenOf(node, current)
}

func childrenOf(node *kong.Node, prefix string) []candidate {
	var all []candidate
	for _, child := range node.Children {
		if !child.Hidden && strings.HasPrefix(child.Name, prefix) {
			all = append(all, candidate{child.Name, clean(child.Help)})
		}
	}
	return all
}

func childOf(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

func flagsOf(node *kong.Node, prefix string) []candidate {
	var all []candidate
	for _, group := range node.AllFlags(true) {
		for _, flag := range group {
			if name := "--" + flag.Name; strings.HasPrefix(name, prefix) {
				all = append(all, candidate{name, clean(flag.Help)})
			}
		}
	}
	return all
}

func flagOf(node *kong.Node, word string) *kong.Flag {
	for _, group := range node.AllFlags(true) {
		for _, flag := range group {
			if word == "--"+flag.Name || flag.Short != 0 && word == "-"+string(flag.Short) {
				return flag
			}
		}
	}
	return nil
}

// valueFlag returns the flag whose value is the next word, or nil.
func valueFlag(node *kong.Node, word string) *kong.Flag {
	if flag := flagOf(node, word); flag != nil && !flag.IsBool() {
		return flag
	}
	return nil
}

// enumOf lists the values of a flag or argument that has a fixed set of them.
func enumOf(v *kong.Value, prefix, before string) []candidate {
	var all []candidate
	if v.Enum == "" {
		return nil
	}
	for _, word := range v.EnumSlice() {
		if word != "" && strings.HasPrefix(word, prefix) {
			all = append(all, candidate{before + word, ""})
		}
	}
	return all
}
