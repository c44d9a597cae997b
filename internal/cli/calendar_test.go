package cli

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
)

func TestSendTakesAnInvitation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"POST /v1/send": accepted()})
	ics := "BEGIN:VCALENDAR\r\nmethod:Cancel\r\nEND:VCALENDAR\r\n"
	w.file("off.ics", ics)
	w.file("event.ics", "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n")
	args := []string{"send", "--from", "a@example.com", "--to", "b@example.org", "--text", "x", "--calendar"}
	w.run(append(args, "off.ics")...).want(t, 0, someID, "")
	var got api.SendRequest
	mustJSON(t, w.last("POST", "/v1/send").body, &got)
	if got.Calendar == nil || *got.Calendar != (api.Calendar{Method: "Cancel", Content: ics}) {
		t.Errorf("calendar = %+v", got.Calendar)
	}
	w.run(append(args, "event.ics")...).want(t, 2, "", "has no METHOD line")
	w.run(append(args, "none.ics")...).want(t, 1, "", "read calendar")
	help := w.run("send", "--help")
	if !strings.Contains(help.out, "--calendar") {
		t.Errorf("help does not name --calendar: %s", help.out)
	}
}
