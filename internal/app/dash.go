package app

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/dash"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/signin"
)

var _ signin.Store = (*postgres.DB)(nil)

// dashboard makes the pages at /dash. Their calls of the API do not leave the process.
func (a *App) dashboard(server *httpapi.Server) (http.Handler, error) {
	gate := a.gate
	if gate == nil {
		var err error
		gate, err = signin.New(signin.Options{
			Store: a.db, Key: a.derivedKeys("sendgate sign-in key")[0], Client: server.ClientNetwork, Failed: server.NoteFailedSignIn,
			Secure:    a.cfg.TLS() || a.cfg.BehindProxy || strings.HasPrefix(a.cfg.PublicURL, "https://"),
			PublicURL: a.cfg.PublicURL, Links: a.enterByLink, Log: a.log, Now: a.clock.Now,
		})
		if err != nil {
			return nil, err
		}
	}
	return dash.New(dash.Options{Gate: gate, As: server.As, Mailbox: a.mailbox, Now: a.clock.Now})
}

// devUser is the person of sendgate dev.
const devUser = "dev"

// invite makes the person of sendgate dev, if there is none, and returns a link that signs in once, without a password.
func (d *dev) invite(ctx context.Context, a *App) (string, error) {
	_, invitation := record.NewToken()
	err := a.db.CreateUser(ctx, "system", devUser, record.RoleAdmin, invitation)
	if err != nil && !errors.Is(err, record.ErrConflict) {
		return "", err
	}
	token, link := record.NewToken()
	if err := a.db.CreateLink(ctx, "system", devUser, link, true); err != nil {
		return "", err
	}
	return a.URL + record.WelcomePath + "#" + token, nil
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
