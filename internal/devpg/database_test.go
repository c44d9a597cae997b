//go:build linux || darwin || freebsd

package devpg

import (
	"strings"
	"testing"
)

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ dsn, want string }{
		{"postgres://u:p@h:5432/old?sslmode=disable", "postgres://u:p@h:5432/new?sslmode=disable"},
		{"postgresql://u@/old?host=%2Ftmp%2Fx", "postgresql://u@/new?host=%2Ftmp%2Fx"},
		{"postgres://h", "postgres://h/new"},
		{"host=h dbname=old", "host=h dbname=old dbname='new'"},
	} {
		if got, err := WithDatabase(c.dsn, "new"); err != nil || got != c.want {
			t.Errorf("WithDatabase(%s) = %s, %v; want %s", c.dsn, got, err, c.want)
		}
	}
	if got, err := WithDatabase("postgres://u:hunter2@h:port/x", "new"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("WithDatabase of a malformed URL = %s, %v; want an error without the password", got, err)
	}
}
