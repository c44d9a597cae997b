package sendgrid_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

// An invitation is the last content, with the one parameter that SendGrid takes, and a file beside it.
func TestInvitationIsTheLastContent(t *testing.T) {
	t.Parallel()
	const ics = "BEGIN:VCALENDAR\r\nMETHOD:CANCEL\r\nEND:VCALENDAR\r\n"
	body, _ := sent(t, changed(func(m *mail.Message) {
		m.HTML, m.Calendar = "<p>", &mail.Calendar{Method: "CANCEL", Content: ics}
	}))
	want := []any{
		map[string]any{"type": "text/plain", "value": "It is on its way."},
		map[string]any{"type": "text/html", "value": "<p>"},
		map[string]any{"type": "text/calendar; method=CANCEL", "value": ics},
	}
	if diff := cmp.Diff(want, body["content"]); diff != "" {
		t.Errorf("content (-want +got):\n%s", diff)
	}
	files, _ := body["attachments"].([]any)
	if len(files) != 1 || files[0].(map[string]any)["type"] != "application/ics" || files[0].(map[string]any)["filename"] != "invite.ics" {
		t.Errorf("attachments = %v", files)
	}
}
