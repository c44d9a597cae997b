package cli

import (
	"testing"
	"time"
)

func TestRestoreWantsASaneCommandLine(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour).Format(time.RFC3339)
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"--yes"}, "--since"},
		{[]string{"--since", "yesterday", "--yes"}, "RFC 3339"},
		{[]string{"--since", soon, "--yes"}, "is in the future"},
		{[]string{"--since", "2026-01-31T12:00:00Z", "--lost-at", soon, "--yes"}, "is in the future"},
		{[]string{"--since", "2026-01-31T12:00:00Z", "--lost-at", "2026-01-31T11:00:00Z", "--yes"}, "before --since"},
		{[]string{"--since", "2026-01-31T12:00:00Z"}, "add --yes"},
	} {
		w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_DATABASE_URL=postgres://sendgate@127.0.0.1:1/sendgate"}}
		w.run(append([]string{"restore"}, tc.args...)...).want(t, 2, "", tc.says)
	}
}

func TestRestoreFailsWithoutADatabase(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.run("restore", "--since", "2026-01-31T12:00:00Z", "--yes").want(t, 1, "", "SENDGATE_DATABASE_URL")
	w.env = []string{"SENDGATE_DATABASE_URL=postgres://sendgate@127.0.0.1:1/sendgate"}
	w.run("restore", "--since", "2026-01-31T12:00:00Z", "--yes").want(t, 1, "", "connection refused")
	w.env = append(w.env, "SENDGATE_UNKNOWN_WAIT=soon")
	w.run("restore", "--since", "2026-01-31T12:00:00Z", "--yes").want(t, 1, "", "SENDGATE_UNKNOWN_WAIT")
}
