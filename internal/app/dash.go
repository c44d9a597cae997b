package app

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/sendgate/sendgate/internal/dash"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/httpapi"
)

// dashboard makes the pages at /dash. Their calls of the API do not leave the process.
func (a *App) dashboard(server *httpapi.Server) (http.Handler, error) {
	gate := a.gate
	if gate == nil {
		var err error
		if gate, err = a.newGate(server); err != nil {
			return nil, err
		}
	}
	return dash.New(dash.Options{Gate: gate, As: server.As, Mailbox: a.mailbox, Now: a.clock.Now})
}

// mailsShown is how many mails the mailbox of sendgate dev shows.
const mailsShown = 200

// mailbox returns the newest mails that the emulators took.
func mailbox(emu *emulator.Emulator) []dash.Mail {
	all := emu.Ledger()
	all = all[max(0, len(all)-mailsShown):]
	mails := make([]dash.Mail, 0, len(all))
	for _, e := range slices.Backward(all) {
		mails = append(mails, dash.Mail{
			At: e.At, Provider: e.Provider, MessageID: e.MessageID, From: e.From, To: e.To, Subject: e.Subject, Outcome: e.Outcome,
			URL: emu.URL() + "/_ledger/" + url.PathEscape(e.ProviderMessageID) + "/html",
		})
	}
	return mails
}
