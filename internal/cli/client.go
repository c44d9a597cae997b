package cli

import (
	"context"
	"errors"

	"github.com/sendgate/sendgate/api"
)

// mailClient is a client for /v1, with the sending key, and adminClient is one for /admin/v1, with the admin key. kong makes
// the one that Run of the command takes. A command that first checks its input calls caller or operator itself.
type (
	mailClient  struct{ *api.Client }
	adminClient struct{ *api.Client }
)

func (s *Streams) caller() (mailClient, error) {
	t, err := s.target()
	switch {
	case err != nil:
		return mailClient{}, err
	case t.url == "":
		return mailClient{}, errors.New("SENDGATE_ADMIN_URL is only for the admin API: set SENDGATE_URL as well")
	case t.apiKey.IsZero():
		return mailClient{}, errNoAPIKey
	}
	c, err := api.New(t.url, t.apiKey.Reveal())
	return mailClient{c}, err
}

func (s *Streams) operator() (adminClient, error) {
	t, err := s.target()
	switch {
	case err != nil:
		return adminClient{}, err
	case t.adminKey.IsZero():
		return adminClient{}, errNoAdminKey
	}
	c, err := api.New(t.adminURL, t.adminKey.Reveal())
	return adminClient{c}, err
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
