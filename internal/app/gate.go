package app

import (
	"context"
	"errors"
	"strings"

	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/signin"
)

var _ signin.Store = (*postgres.DB)(nil)

// newGate makes what lets people in at the dashboard.
func (a *App) newGate(server *httpapi.Server) (*signin.Gate, error) {
	return signin.New(signin.Options{
		Store: a.db, Key: a.derivedKeys("sendgate sign-in key")[0], Log: a.log, Now: a.clock.Now, Links: a.devLinks,
		Client: server.ClientNetwork, Failed: server.NoteFailedSignIn,
		Secure:    a.cfg.TLS() || a.cfg.BehindProxy || strings.HasPrefix(a.cfg.PublicURL, "https://"),
		PublicURL: a.cfg.PublicURL,
	})
}

// devUser is the person that the link of sendgate dev signs in.
const devUser = "dev"

// devLink makes a link that signs in as an admin, once and without a password.
func (a *App) devLink(ctx context.Context) (string, error) {
	_, unused := record.NewToken()
	if err := a.db.CreateUser(ctx, "dev", devUser, record.RoleAdmin, unused); err != nil && !errors.Is(err, record.ErrConflict) {
		return "", err
	}
	token, hash := record.NewToken()
	if err := a.db.CreateLink(ctx, "dev", devUser, hash, true); err != nil {
		return "", err
	}
	return a.URL + record.WelcomePath + "#" + token, nil
}
