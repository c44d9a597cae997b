package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../"

// block is a fenced block of a document.
type block struct {
	page     string // "docs/events.md"
	line     int    // of its fence
	language string
	text     string
}

// others are the languages of blocks that no test runs; blocks with commands are called sh. "" is configuration, output and
// pictures.
var others = []string{"", "json", "yaml", "ini"}

var (
	fence       = regexp.MustCompile("^\\s*(?:```+|~~~+)\\s*(\\S*)")
	looksLikeIt = regexp.MustCompile(`(?m)^\s*(\$ |go (run|test|build) |sendgate [a-z]|curl |docker |\. \./)`)
)

// documents are all pages that people read.
func documents(t *testing.T) []string {
	t.Helper()
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(root + pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	if !slices.Contains(pages, root+"README.md") || len(pages) < 8 {
		t.Fatalf("documents = %v: the search is broken", pages)
	}
	return pages
}

// commandBlocks returns the blocks of commands, page by page in their order, and fails for a block that hides commands.
func commandBlocks(t *testing.T) []block {
	t.Helper()
	return slices.DeleteFunc(blocks(t), func(b block) bool { return !b.holdsCommands(t) })
}

// blocks returns all fenced blocks, page by page in their order.
func blocks(t *testing.T) []block {
	t.Helper()
	var all []block
	for _, page := range documents(t) {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var b *block
		for n, line := range strings.Split(string(raw), "\n") {
			m := fence.FindStringSubmatch(line)
			switch {
			case m != nil && b == nil:
				b = &block{page: strings.TrimPrefix(page, root), line: n + 1, language: m[1]}
			case m != nil:
				all = append(all, *b)
				b = nil
			case b != nil:
				b.text += line + "\n"
			}
		}
		if b != nil {
			t.Errorf("%s:%d: the block has no end", b.page, b.line)
		}
	}
	return all
}

// languages are those of whole programs, by the name of their blocks, with what runs a program: {file} and {port} are replaced.
// The first line of a block names its file. docs_languages_test.go runs them.
var languages = map[string][]string{
	"go":     {"{dir}/program"}, // which "go build" makes before
	"js":     {"node", "{file}"},
	"python": {"python3", "{file}"},
	"php":    {"php", "-S", "127.0.0.1:{port}", "{file}"}, // without -S for a program that serves nothing
	"java":   {"java", "{file}"},
}

func (b *block) holdsCommands(t *testing.T) bool {
	t.Helper()
	if b.language == "sh" {
		return true
	}
	if _, run := languages[b.language]; !run && !slices.Contains(others, b.language) {
		t.Errorf("%s:%d: no test knows blocks of %s; commands are called sh", b.page, b.line, b.language)
	}
	if b.language == "" && looksLikeIt.MatchString(b.text) {
		t.Errorf("%s:%d: commands in a block that is not called sh: no test would run them", b.page, b.line)
	}
	return false
}

// notRun are the blocks that no test can run here, by their page and a text in them. A test of internal/cli parses their
// sendgate command lines, and the shell checks the syntax of the whole block.
var notRun = []struct{ page, holds, why string }{
	{"README.md", "go run ./cmd/sendgate dev", "it takes fixed ports and runs until it is stopped; the tests below run dev at free ones"},
	{"README.md", "go test -v -tags drill", "these are the drills"},
	{"CONTRIBUTING.md", "go test ./...", "these are the tests"},
	{"docs/deploy.md", "goreleaser release", "it builds for all systems; a test of the root builds for this one"},
	{"docs/deploy.md", "apt install", "it installs a package; a test of the root does so on a copy of the machine"},
	{"docs/deploy.md", "/etc/sendgate/sendgate.env", "it needs the package's settings"},
	{"docs/deploy.md", "kubectl", "it needs a cluster; a test of the root renders the chart"},
	{"docs/deploy.md", "--profile monitoring", "it needs Docker"},
	{"docs/guarantees.md", "go test -v -tags drill", "these are the drills"},
	{"docs/guarantees.md", "go test -v -tags mutants", "these are the mutants"},
	{"docs/operations.md", "docker compose up", "it needs Docker; the checks of the image run it"},
	{"docs/operations.md", "pg_basebackup", "it needs a server with an archive; internal/app restores one in a test"},
	{"docs/operations.md", "pg_ctl start", "it needs a restored server; internal/app starts one in a test"},
	{"docs/operations.md", "docker/roles.sql", "it needs a server named db and asks for passwords; internal/app makes the roles in a test"},
	{"docs/operations.md", "pg_restore", "it needs servers named db and the roles on them"},
	{"docs/operations.md", "pg_promote", "it needs a standby; a drill promotes one"},
	{"docs/postfix.md", "X-Envelope-From", "Postfix calls it, with a report on its input"},
	{"docs/postfix.md", "postqueue", "it needs a running Postfix"},
	{"docs/providers.md", "Through ses-eu", "it mails over Amazon SES"},
	{"docs/providers.md", "providers webhooks ses-eu", "it calls Amazon SES"},
	{"docs/webhooks.md", "aws sns", "it needs the AWS CLI and an account there"},
}

// reason is the index in notRun of a block that is not run, or -1 if the block is run.
func (b *block) reason() int {
	return slices.IndexFunc(notRun, func(n struct{ page, holds, why string }) bool {
		return n.page == b.page && strings.Contains(b.text, n.holds)
	})
}

func TestEveryBlockOfCommandsIsKnown(t *testing.T) {
	t.Parallel()
	used, all := map[int]bool{}, commandBlocks(t)
	for _, b := range all {
		used[b.reason()] = true
		if out, err := exec.Command("sh", "-n", "-c", b.text).CombinedOutput(); err != nil { //nolint:gosec // a document of ours
			t.Errorf("%s:%d: the shell can't read it: %v\n%s", b.page, b.line, err, out)
		}
	}
	for i, n := range notRun {
		if !used[i] {
			t.Errorf("notRun names a block of %s with %q, which is not there", n.page, n.holds)
		}
	}
	if len(all) < 40 {
		t.Errorf("found %d blocks: the search is broken", len(all))
	}
}
