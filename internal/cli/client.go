package cli

import (
	"context"
	"errors"

	"github.com/sendgate/sendgate/api"
)

// caller returns a client for /v1, with the sending key.
func (s *Streams) caller() (*api.Client, error) {
	t, err := s.target()
	if err != nil {
		return nil, err
	}
	switch {
	case t.url == "":
		return nil, errors.New("SENDGATE_ADMIN_URL leads to the admin API alone: set SENDGATE_URL as well")
	case t.apiKey.IsZero():
		return nil, errNoAPIKey
	}
	return api.New(t.url, t.apiKey.Reveal())
}

// operator returns a client for /admin/v1, with the admin key.
func (s *Streams) operator() (*api.Client, error) {
	t, err := s.target()
	if err != nil {
		return nil, err
	}
	if t.adminKey.IsZero() {
		return nil, errNoAdminKey
	}
	return api.New(t.adminURL, t.adminKey.Reveal())
}

// watchQueue reads the figures of the queue before a load.
func watchQueue(ctx context.Context, s *Streams) (*queueWatch, error) {
	admin, err := s.operator()
	if err != nil {
		return nil, err
	}
	client, err := s.caller()
	if err != nil {
		return nil, err
	}
	before, err := admin.Queue(ctx)
	if err != nil {
		return nil, err
	}
	return &queueWatch{
		read: admin.Queue,
		failed: func(ctx context.Context, tag string) (int, error) {
			page, err := client.Messages(ctx, api.MessageQuery{Tag: tag, Status: "failed", Limit: maxPage})
			if err != nil {
				return 0, err
			}
			return len(page.Data), nil
		},
		scheduled: before.Scheduled, unknown: before.Unknown,
	}, nil
}
