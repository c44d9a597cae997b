package deliver

import (
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
)

// What the end of a lost claim takes away must not be the one that goes on: it would look like a claim that nobody carries.
func TestMessageIsHeldUntilTheLastOfItsClaimsEnds(t *testing.T) {
	t.Parallel()
	h := held{ids: map[mail.ID]int{}}
	id := mail.NewID()
	h.add(id)
	h.add(id)
	h.remove(id)
	if got := h.list(); len(got) != 1 || got[0] != id {
		t.Errorf("held after one of two claims ended = %v, want the message", got)
	}
	h.remove(id)
	if n := h.count(); n != 0 {
		t.Errorf("held after both ended = %d, want none", n)
	}
}
