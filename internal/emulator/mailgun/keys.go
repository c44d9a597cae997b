package mailgun

import (
	"net/http"

	"github.com/sendgate/sendgate/internal/emulator"
)

func (a *api) Keys() map[string]string { return map[string]string{"mailgun_signing_key": a.signingKey} }

func (a *api) CompleteHook(h emulator.Hook) error {
	if h["signing_key"] == "" {
		h["signing_key"] = a.signingKey
	}
	return nil
}

// showSigningKey answers as described on the page "Get webhook signing key saved on the account".
func (a *api) showSigningKey(*http.Request, []byte) *emulator.Reply {
	return emulator.JSON(http.StatusOK, map[string]string{"message": "success", "http_signing_key": a.signingKey})
}
