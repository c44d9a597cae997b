package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCompletionKnowsTheGrammar(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"mess":                               {"messages"},
		"messages ":                          {"list", "show", "cancel", "resend"},
		"messages re":                        {"resend"},
		"messages list --st":                 {"--status", "--stream"},
		"messages list --status failed --to": {"--to"},
		"dev --limits ":                      {"documented", "none"},
		"dev --limits=n":                     {"--limits=none"},
		"dev --limits = n":                   {"none"},
		"dev --limits =":                     {"documented", "none"},
		"completion z":                       {"zsh"},
		"messages show ":                     nil, // an id: anything
		"route explain --file ":              nil, // a file
		"nonsense ":                          nil,
		"load -n 5 --wait-t":                 {"--wait-timeout"},
	} {
		o := (&world{t: t}).run(append([]string{completeVerb}, strings.Split(line, " ")...)...)
		var got []string
		for line := range strings.Lines(o.out) {
			word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			got = append(got, word)
		}
		if !slices.Equal(got, want) || o.code != 0 {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	all := (&world{t: t}).run(completeVerb, "").out
	if !strings.Contains(all, "queue\tShow the messages") || strings.Contains(all, completeVerb) {
		t.Errorf("commands:\n%s", all)
	}
}

// The shells run the scripts as they do at a prompt, with this program in place of sendgate.
func TestShellsComplete(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	wrapper := "#!/bin/sh\n" + asProgram + "=1 exec '" + program + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "sendgate"), []byte(wrapper), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	for shell, ask := range map[string]string{
		"bash": `. "$1"; COMP_WORDS=(sendgate messages list --s); COMP_CWORD=3; _sendgate; printf '%s\n' "${COMPREPLY[@]}"
			COMP_WORDS=(sendgate messages ''); COMP_CWORD=2; _sendgate; printf '%s\n' "${COMPREPLY[@]}"; complete -p sendgate`,
		"zsh": `compdef() { print "$@" }; . "$1"; compadd() { print -l "${values[@]}" }; words=(sendgate messages list --s); CURRENT=4; _sendgate
			words=(sendgate messages ''); CURRENT=3; _sendgate`,
		"fish": `source $argv[1]; complete -C 'sendgate messages list --s'; complete -C 'sendgate messages '`,
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			script := filepath.Join(dir, "script."+shell)
			if err := os.WriteFile(script, []byte((&world{t: t}).run("completion", shell).out), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"-c", ask, shell, script}
			if shell == "fish" {
				args = []string{"-c", ask, script}
			}
			cmd := exec.CommandContext(t.Context(), path, args...) //nolint:gosec // a shell
			cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, word := range []string{"--status", "--stream", "--since", "list", "show", "cancel", "resend"} {
				if !strings.Contains(string(out), word) {
					t.Errorf("%s does not complete to %s:\n%s", shell, word, out)
				}
			}
			if strings.Contains(string(out), "--tag") {
				t.Errorf("%s completes --s to --tag:\n%s", shell, out)
			}
		})
	}
}
