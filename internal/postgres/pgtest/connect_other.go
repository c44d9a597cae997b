//go:build !linux && !darwin && !freebsd

package pgtest

import (
	"context"
	"errors"
	"os"
	"time"
)

// connect uses the server of the environment: on this system there is no private one to share.
func connect() (*host, error) {
	h := &host{admin: os.Getenv("SENDGATE_TEST_DATABASE_URL"), external: true}
	if h.admin == "" {
		return nil, errors.New("set SENDGATE_TEST_DATABASE_URL to a server whose role may create databases")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	h.session = &session{url: h.admin}
	_, err := h.today(ctx)
	return h, err
}
