package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestVersionIsTheNewestOfTheReleaseNotes(t *testing.T) {
	t.Parallel()
	notes, err := os.ReadFile(root + "CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	newest := regexp.MustCompile(`(?m)^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$`).FindStringSubmatch(string(notes))
	if newest == nil || newest[1] != release {
		t.Errorf("the newest release of CHANGELOG.md is %q, and the program says %s", newest, release)
	}
	w := &world{t: t}
	if out := w.run("version").out; !strings.HasPrefix(out, "sendgate  "+release) {
		t.Errorf("version prints %q", out)
	}
	if out := w.run("version", "--json").out; !strings.Contains(out, `"version": "`+release+`"`) && !strings.Contains(out, `"version":"`+release+`"`) {
		t.Errorf("version --json prints %q", out)
	}
}
