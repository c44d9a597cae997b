package httpapi

import (
	"net/http"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	defaultReproject = 500
	maxReproject     = 1000
)

// reproject parses one page of kept payloads again with the present parser, and rebuilds what follows from their events.
func (s *Server) reproject(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.ReprojectRequest](s, w, r)
	if err != nil {
		return err
	}
	if in.Limit == 0 {
		in.Limit = defaultReproject
	}
	if in.Limit < 1 || in.Limit > maxReproject {
		return invalid("limit", "out_of_range", "must be 1 to 1000")
	}
	l := listing{name: "reproject", filter: in.Account + "\n" + in.Since.UTC().Format(timeFormat)}
	after, err := s.reprojectAfter(l, in.Cursor)
	if err != nil {
		return err
	}
	if err := s.knownAccount(r, in.Account); err != nil {
		return err
	}
	raw, err := s.store.RawEvents(r.Context(), in.Account, in.Since, after, in.Limit)
	if err != nil {
		return err
	}
	out := api.ReprojectResult{Payloads: len(raw)}
	if len(raw) == in.Limit {
		out.Cursor = s.cursors.seal(l, raw[len(raw)-1].Origin.String())
	}
	parsed := s.reread(raw)
	for _, p := range parsed {
		out.Events += len(p.Events)
	}
	if out.Changed, out.Messages, err = s.store.Reproject(r.Context(), parsed, in.DryRun); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// reprojectAfter opens the cursor; "" means the first page.
func (s *Server) reprojectAfter(l listing, cursor string) (mail.ID, error) {
	if cursor == "" {
		return mail.ID{}, nil
	}
	if len(cursor) > maxCursor {
		return mail.ID{}, errCursor()
	}
	last, err := s.cursors.open(l, cursor)
	if err != nil {
		return mail.ID{}, err
	}
	id, err := mail.ParseID(last)
	if err != nil {
		return mail.ID{}, errCursor()
	}
	return id, nil
}

// knownAccount refuses an unknown account name: it would select no payloads and look like success.
func (s *Server) knownAccount(r *http.Request, name string) error {
	if name == "" {
		return nil
	}
	cfg, err := s.store.Config(r.Context())
	if err == nil && cfg.Account(name) == nil {
		err = invalid("account", "unknown_account", "is not the name of an account")
	}
	return err
}

// reread parses payloads with the accounts' present adapters. Payloads of an account without an adapter are left out, so their
// events stay as they are.
func (s *Server) reread(raw []record.RawEvent) []record.Reprojected {
	out := make([]record.Reprojected, 0, len(raw))
	for _, p := range raw {
		if _, parser, _ := s.hooks.Hook(p.Account); parser != nil {
			out = append(out, record.Reprojected{Origin: p.Origin, Events: parser.Parse(p.Raw)})
		}
	}
	return out
}
