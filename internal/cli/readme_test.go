package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/seal"
)

const root = "../../"

// TestReadmeListsEverySetting compares the README's table of settings with the struct: names, order and defaults.
func TestReadmeListsEverySetting(t *testing.T) {
	t.Parallel()
	required := map[string]bool{"DATABASE_URL": true, "SECRET_KEY": true}
	var want []string
	for f := range fieldsOf(reflect.TypeFor[config.Config]()) {
		name, def := f.Tag.Get("env"), f.Tag.Get("envDefault")
		shown := "`" + def + "`"
		switch {
		case required[name]:
			shown = "required"
		case def == "" && f.Type.Kind() == reflect.Bool:
			shown = "`false`"
		case def == "":
			shown = "none"
		}
		want = append(want, fmt.Sprintf("| `%s%s` | %s", config.Prefix, name, shown))
	}
	var got []string
	for _, line := range readLines(t, root+"README.md") {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `"+config.Prefix) && len(cells) == 3 {
			got = append(got, cells[0]+" | "+cells[1])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("README settings (-internal/config +README)\n%s", diff)
	}
}

func fieldsOf(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if t.Field(i).Tag.Get("env") != "" && !yield(t.Field(i)) {
				return
			}
		}
	}
}

// TestReadmeStatesTheLimits compares the provider table with the windows that an account starts with.
func TestReadmeStatesTheLimits(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(strings.Join(readLines(t, root+"README.md"), "\n"), "| kind | limits |")
	for kind, windows := range documentedLimits() {
		row := ""
		for line := range strings.Lines(table) {
			if row == "" && strings.HasPrefix(line, "| `"+kind+"` |") {
				row = line
			}
		}
		for _, w := range windows {
			if !strings.Contains(row, windowText(w)) {
				t.Errorf("README row of %s lacks %q: %s", kind, windowText(w), row)
			}
		}
		if got := strings.Count(strings.Split(row+"|||", "|")[2], " / "); got != len(windows) {
			t.Errorf("README row of %s states %d windows, want %d", kind, got, len(windows))
		}
	}
}

// windowText gives "1,000 requests / h".
func windowText(w limit.Window) string {
	n := fmt.Sprint(w.N)
	if len(n) > 3 {
		n = n[:len(n)-3] + "," + n[len(n)-3:]
	}
	per := map[time.Duration]string{time.Second: "s", time.Minute: "min", 5 * time.Minute: "5 min", time.Hour: "h", 24 * time.Hour: "24 h"}[w.Per]
	return fmt.Sprintf("%s %s / %s", n, w.Unit, per)
}

// TestDocumentedCommandsParse runs each command line of the documentation through the grammar.
func TestDocumentedCommandsParse(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(root + "docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal("no documentation found", err)
	}
	for _, page := range append(pages, root+"README.md") {
		shell, blocks, seen := false, 0, 0
		for n, line := range readLines(t, page) {
			if strings.HasPrefix(line, "```") {
				shell = line == "```sh"
				if shell {
					blocks++
				}
				continue
			}
			if args := commandOf(line); shell && args != nil {
				seen++
				s := Streams{Out: io.Discard, Err: io.Discard}
				parser, err := newParser(t.Context(), &s)
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := parser.Parse(args)
				if err != nil {
					t.Errorf("%s:%d: %s: %v", page, n+1, line, err)
					continue
				}
				if add, ok := parsed.Selected().Target.Addr().Interface().(*providersAddCmd); ok {
					checkAccount(t, add)
				}
			}
		}
		if blocks > 0 && seen == 0 {
			t.Errorf("%s shows no command", page)
		}
	}
}

// checkAccount lets the adapter check an account that a document adds.
func checkAccount(t *testing.T, c *providersAddCmd) {
	t.Helper()
	settings, err := mergeSettings(nil, c.Flags.Set)
	if err != nil {
		t.Errorf("providers add %s: %v", c.Name, err)
		return
	}
	secrets := map[string]seal.Secret{}
	for _, spec := range c.Flags.Secret {
		name, _, _ := strings.Cut(spec, "=")
		secrets[name] = seal.NewSecret("AKIA0000000000000000")
	}
	if err := (catalog.Catalog{}).Validate(provider.Kind(c.Kind), settings, secrets); err != nil {
		t.Errorf("providers add %s: %v", c.Name, err)
	}
}

var word = regexp.MustCompile(`(?:[^\s"']|"[^"]*"|'[^']*')+`)

// commandOf splits a line that calls sendgate into its arguments; nil for any other line.
func commandOf(line string) []string {
	line, _, _ = strings.Cut(line, " #")
	line, _, _ = strings.Cut(line, " | ")
	line, _, _ = strings.Cut(line, " > ")
	words := word.FindAllString(line, -1)
	for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
		words = words[1:]
	}
	switch {
	case len(words) > 3 && strings.HasPrefix(line, "go run ./cmd/sendgate "):
		words = words[3:]
	case len(words) > 1 && words[0] == "sendgate":
		words = words[1:]
	default:
		return nil
	}
	for i, w := range words {
		quote := `"`
		if strings.Contains(w, `'`) {
			quote = `'`
		}
		words[i] = strings.ReplaceAll(w, quote, "")
	}
	return words
}

// TestLinkedPlacesExist checks the links of the documentation that stay in the repository, and the headings that they name.
func TestLinkedPlacesExist(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]+))?\)`)
	pages, _ := filepath.Glob(root + "docs/*.md")
	for _, page := range append(pages, root+"README.md") {
		for _, line := range readLines(t, page) {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				target := page
				if m[1] != "" {
					target = filepath.Join(filepath.Dir(page), m[1])
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s links to %s: %v", page, m[1], err)
				} else if m[2] != "" && !slices.Contains(anchors(t, target), m[2]) {
					t.Errorf("%s links to %s#%s, and no heading there has that name", page, m[1], m[2])
				}
			}
		}
	}
}

// anchors are the names that forges give to the headings of a page.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	var names []string
	inBlock := false
	for _, line := range readLines(t, page) {
		inBlock = inBlock != strings.HasPrefix(line, "```")
		if m := regexp.MustCompile(`^<a id="([a-z-]+)"></a>$`).FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		}
		if heading := strings.TrimLeft(line, "#"); heading != line && !inBlock {
			kept := regexp.MustCompile(`[^a-z0-9_ -]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			names = append(names, strings.ReplaceAll(kept, " ", "-"))
		}
	}
	return names
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}
