package postmark

import (
	"errors"
	"fmt"

	"github.com/sendgate/sendgate/internal/emulator"
)

// hookUsername goes with a password that is new in each emulator.
const hookUsername = "sendgate"

func (a *api) Keys() map[string]string {
	return map[string]string{"postmark_username": hookUsername, "postmark_password": a.hookPassword}
}

// CompleteHook fills in username and password, unless a header and its token are used instead.
func (a *api) CompleteHook(h emulator.Hook) error {
	switch {
	case (h["header"] == "") != (h["token"] == ""):
		return errors.New("header, token: go together")
	case h["header"] != "" && !emulator.ValidHeader(h["header"], h["token"]):
		return fmt.Errorf("header: %q is not a valid header", h["header"])
	case h["header"] != "" && h["username"]+h["password"] != "":
		return errors.New("header: goes without username and password")
	case h["header"] != "":
		return nil
	}
	if h["username"] == "" {
		h["username"] = hookUsername
	}
	if h["password"] == "" {
		h["password"] = a.hookPassword
	}
	return nil
}
