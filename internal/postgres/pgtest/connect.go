//go:build linux || darwin || freebsd

package pgtest

import (
	"context"
	"os"
)

// connect finds the server of the environment or joins the shared one, and makes the template if there is none.
func connect() (*host, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startGrace)
	defer cancel()
	h := &host{admin: os.Getenv("SENDGATE_TEST_DATABASE_URL")}
	h.external = h.admin != ""
	if !h.external {
		url, use, err := join(ctx, shared{dir: sharedDir(), linger: linger})
		if err != nil {
			return nil, err
		}
		h.admin, h.use = url, use
	}
	h.session = &session{url: h.admin}
	_, err := h.today(ctx)
	return h, err
}
