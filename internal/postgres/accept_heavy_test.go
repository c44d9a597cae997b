//go:build drill

package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// A message that is heavier than a whole ordinary batch gets more time for its statement than any other attempt, so that a slow
// disk can take it too.
func TestHeavyMessageGetsMoreTime(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `CREATE TABLE seen (timeout interval)`)
	b.exec(t, `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO seen VALUES (current_setting('statement_timeout')::interval); RETURN NULL; END $$`)
	db := b.open(t, Options{AcceptWait: time.Minute})
	b.exec(t, `CREATE TRIGGER note AFTER INSERT ON message FOR EACH STATEMENT EXECUTE FUNCTION note()`)
	for _, size := range []int{1000, acceptWeight + 10<<20, 1000} {
		_, err := db.Accept(t.Context(), with(func(s *record.Submission) { s.Message.Text = strings.Repeat("x", size) }))
		must(t, err)
	}
	got := list[time.Duration](t, b, `SELECT timeout FROM seen`)
	if len(got) != 3 || got[0] > longestAttempt || got[1] <= longestAttempt || got[2] > longestAttempt {
		t.Errorf("statement timeouts = %s, want at most %s for the light ones and more for the heavy one", got, longestAttempt)
	}
}
