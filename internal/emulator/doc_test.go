package emulator_test

import (
	"os"
	"strings"
	"testing"
)

// The tables of the package comment have a row for each kind.
func TestTheCommentDescribesEveryKind(t *testing.T) {
	t.Parallel()
	comment, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"at the call", "outcome", "taken"} {
		_, below, ok := strings.Cut(string(comment), "\n//\tkind      "+header)
		if !ok {
			t.Fatalf("doc.go has no table whose header begins with \"kind\" and %q", header)
		}
		table, _, _ := strings.Cut(below, "\n//\n")
		for _, kind := range kindNames() {
			if !strings.Contains(table, "\n//\t"+kind+" ") {
				t.Errorf("the table with %q in doc.go has no row for %s: add one", header, kind)
			}
		}
	}
}
