package sendgrid

import (
	"strings"
	"testing"
)

func FuzzQuery(f *testing.F) {
	f.Add(`to_email = 'a@b.c' AND sg_message_id_created_at > TIMESTAMP "2025-01-01T00:00:00Z" AND status IN ('a', 'b')`)
	f.Add(`subject='it''s' AND reason="x"`)
	f.Fuzz(func(t *testing.T, s string) {
		q, ok := parseQuery(s)
		if ok && strings.TrimSpace(s) != "" && len(q.equal)+len(q.in)+len(q.times) == 0 {
			t.Errorf("%q is taken and asks for nothing", s)
		}
	})
}
