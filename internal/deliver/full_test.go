package deliver

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

// A relay that takes N recipients a transaction gets the rest at once. Where others were put off too they wait, but no
// longer from call to call, and nobody who was taken is asked for again.
func TestRecipientsWithoutRoomGoInTheNextCall(t *testing.T) {
	t.Parallel()
	full := func(email string) provider.Refusal {
		return provider.Refusal{Email: email, Class: provider.Transient, Code: "4.5.3", Full: true}
	}
	grey := provider.Refusal{Email: "b@example.org", Class: provider.Transient, Code: "4.2.0"}
	bad := provider.Refusal{Email: "b@example.org", Class: provider.BadRecipient, Code: "5.1.1"}
	waits := map[string]queue.Avoid{"ses-eu": {Until: noon().Add(4 * time.Second), Why: "transient: some recipients were put off"}}
	for name, tc := range map[string]struct {
		refused []provider.Refusal
		want    *queue.Requeue
	}{
		"all taken":        {nil, nil},
		"full":             {[]provider.Refusal{full("b@example.org"), full("c@example.org")}, &queue.Requeue{Tries: 1}},
		"full and bad":     {[]provider.Refusal{bad, full("c@example.org")}, &queue.Requeue{Tries: 1}},
		"full and put off": {[]provider.Refusal{grey, full("c@example.org")}, &queue.Requeue{Tries: 1, Avoid: waits}},
		"put off":          {[]provider.Refusal{grey}, &queue.Requeue{Tries: 2, Avoid: waits}},
	} {
		c := testCall("a@example.org", "b@example.org", "c@example.org")
		r, h := next(c, provider.Receipt{Refused: tc.refused}, nil, testPolicy(), noon(), 0.5)
		if diff := cmp.Diff(tc.want, r.Requeue); diff != "" {
			t.Errorf("%s: requeue (-want +got):\n%s", name, diff)
		}
		if r.Class != "accepted" || h != healthy || r.Recipients[0] != (queue.RecipientChange{N: 0, Status: mail.Sent}) {
			t.Errorf("%s: class %s, recipients %+v", name, r.Class, r.Recipients)
		}
	}
}

// Who was surely not in a call whose answer was lost is not in doubt.
func TestUnknownLeavesOutWhoWasNotTaken(t *testing.T) {
	t.Parallel()
	c := testCall("a@example.org", "b@example.org", "c@example.org")
	r, _ := next(c, provider.Receipt{}, &provider.Error{Class: provider.Uncertain, Detail: "connection lost", Refused: []provider.Refusal{
		{Email: "b@example.org", Class: provider.BadRecipient, Code: "5.1.1", Detail: "no such user"},
		{Email: "c@example.org", Class: provider.Transient, Full: true},
	}}, testPolicy(), noon(), 0.5)
	want := []queue.RecipientChange{
		{N: 0, Status: mail.Unknown, Detail: "uncertain: connection lost"},
		{N: 1, Status: mail.Failed, Detail: "5.1.1 no such user"},
	}
	if diff := cmp.Diff(want, r.Recipients); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
	if r.Unknown == nil || r.Requeue != nil {
		t.Errorf("unknown %+v, requeue %+v, want the message to wait for the call's verdict", r.Unknown, r.Requeue)
	}
}
