package dash

import (
	"net/http"
	"time"

	"github.com/sendgate/sendgate/api"
)

// Mail is a mail that an emulated provider took.
type Mail struct {
	At                     time.Time
	Provider               string
	MessageID              string // ours, "" if it came from elsewhere
	From, Subject, Outcome string
	To                     []string
	URL                    string // where the emulator shows it
}

// showMailbox lists what the emulated providers took, newest first. So a developer needs no other catcher of mail.
func showMailbox(v *visit) error {
	if v.Mailbox == nil {
		return &api.Problem{
			Status: http.StatusNotFound, Title: "Not found", Code: "not_found", Detail: "There is a mailbox in sendgate dev only: real providers show no mails.",
		}
	}
	return v.show(http.StatusOK, "mailbox", "mailbox", "Mailbox", v.Mailbox())
}
