package mailgun

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Mailgun says "bounce" for every 5xx. The reply says what it means.
func TestABounceMeansWhatItsReplySays(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../smtpcode/testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if f[0] != "mailgun" {
			continue
		}
		tried++
		code, text, _ := strings.Cut(f[1], " ")
		got := failure{code: code, reason: "bounce", text: text}.bounce()
		if string(got.Class) != f[2] || !slices.Contains(strings.Split(f[4], "|"), string(got.Reason)) || got.Rule == "" {
			t.Errorf("%s = %+v, want %s %s and a rule", f[1], got, f[2], f[4])
		}
	}
	if tried < 5 {
		t.Errorf("%d replies, want the rows of Mailgun", tried)
	}
}
