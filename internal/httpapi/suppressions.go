package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// SuppressionStore keeps who is mailed no more.
type SuppressionStore interface {
	// Suppress stops mail to an address, unless there is a suppression that lasts at least as long.
	Suppress(ctx context.Context, s record.Suppression) error
	// ImportSuppressions is Suppress for many and returns how many were new.
	ImportSuppressions(ctx context.Context, t mail.TenantID, list []record.Suppression) (added int64, err error)
	// Unsuppress removes all suppressions of an address, or those of the given streams. If one of them comes from a complaint
	// and complaints is not set, it removes none: record.ErrForbidden.
	Unsuppress(ctx context.Context, actor string, t mail.TenantID, email string, complaints bool, streams ...string) error
	// FindSuppressions lists the suppressions that Email, Stream and Reason of match select, by address and stream, starting
	// behind after.
	FindSuppressions(ctx context.Context, match, after record.Suppression, limit int) ([]record.Suppression, error)
}

// suppressionReasons are the reasons that a caller may give.
var suppressionReasons = []string{"manual", "hard_bounce", "soft_bounce", "complaint", "unsubscribe"}

const maxSuppressionDetail = 200 // characters

// listSuppressions lists a tenant's suppressions in force by address and stream. With ?email= it checks one address.
func (s *Server) listSuppressions(r *http.Request) (out api.SuppressionPage, err error) {
	q := readQuery(r, "email", "stream", "reason", "limit", "cursor")
	match, limit := q.suppressions(principal(r).Tenant), q.limit()+1
	match.Email = q.email("email")
	l := listing{name: "suppressions", tenant: match.Tenant, filter: q.filter()}
	after := position(q, s.cursors, l, afterSuppression)
	if err := q.err(); err != nil {
		return out, err
	}
	rows, err := s.store.FindSuppressions(r.Context(), match, after, limit)
	return pageOf(s.cursors, l, rows, limit, suppressionPlace, suppressionView), err
}

// suppressions reads the filter that list and export share.
func (q *query) suppressions(t mail.TenantID) record.Suppression {
	match := record.Suppression{Tenant: t, Stream: q.text("stream"), Reason: q.text("reason")}
	if match.Reason != "" && !slices.Contains(suppressionReasons, match.Reason) {
		q.complain("reason", "unknown_reason", "must be "+strings.Join(suppressionReasons, ", "))
	}
	return match
}

// suppressionPlace and afterSuppression write and read the position where a listing continues. Neither part can contain a
// line feed.
func suppressionPlace(x *record.Suppression) string { return x.Email + "\n" + x.Stream }

func afterSuppression(place string) (record.Suppression, error) {
	email, stream, _ := strings.Cut(place, "\n")
	return record.Suppression{Email: email, Stream: stream}, nil
}

func suppressionView(x *record.Suppression) api.Suppression {
	out := api.Suppression{
		Email: x.Email, Stream: x.Stream, Reason: x.Reason, Origin: x.Origin, Account: x.Account, Detail: x.Detail,
		CreatedAt: x.CreatedAt, ExpiresAt: optional(x.ExpiresAt),
	}
	if !x.MessageID.IsZero() {
		out.MessageID = x.MessageID.String()
	}
	return out
}

// addSuppression is idempotent. Of two suppressions for the same address and stream, the one that lasts longer stays; the
// answer shows it.
func (s *Server) addSuppression(r *http.Request, in api.SuppressionRequest) (out api.Suppression, err error) {
	x, err := suppressionOf(in, s.clock())
	if err != nil {
		return out, err
	}
	x.Tenant, x.Origin, x.By = principal(r).Tenant, "api", principal(r).ID
	if err := s.store.Suppress(r.Context(), x); err != nil {
		return out, err
	}
	rows, err := s.applying(r.Context(), x.Tenant, x.Email)
	for i := range rows {
		if rows[i].Stream == x.Stream {
			x = rows[i]
		}
	}
	return suppressionView(&x), afterStore(err)
}

// suppressionOf checks a request, or a row of an import.
func suppressionOf(in api.SuppressionRequest, now time.Time) (record.Suppression, error) {
	x := record.Suppression{Stream: in.Stream, Reason: in.Reason, Detail: in.Detail, CreatedAt: now.UTC()}
	a, err := mail.ParseAddress(in.Email)
	if err != nil {
		return x, invalid("email", "invalid_address", "must be one email address")
	}
	x.Email = a.Email
	if x.Reason == "" {
		x.Reason = "manual"
	}
	switch {
	case !slices.Contains(suppressionReasons, x.Reason):
		return x, invalid("reason", "unknown_reason", "must be "+strings.Join(suppressionReasons, ", "))
	case x.Stream != "" && !mail.IsName(x.Stream):
		return x, invalid("stream", "invalid_name", "must be the name of a stream: lower-case letters, digits, - and _")
	case len([]rune(x.Detail)) > maxSuppressionDetail || !clean(x.Detail):
		return x, invalid("detail", "invalid_detail", "must have at most 200 characters without control characters")
	case in.ExpiresAt != nil && !in.ExpiresAt.After(now):
		return x, invalid("expires_at", "out_of_range", "must be in the future")
	case in.ExpiresAt != nil && in.ExpiresAt.Year() > 9998:
		return x, invalid("expires_at", "out_of_range", "must be before the year 9999")
	}
	if in.ExpiresAt != nil {
		x.ExpiresAt = in.ExpiresAt.UTC()
	}
	return x, nil
}

// applying reads the suppressions of an address, in all streams.
func (s *Server) applying(ctx context.Context, t mail.TenantID, email string) ([]record.Suppression, error) {
	return s.store.FindSuppressions(ctx, record.Suppression{Tenant: t, Email: email}, record.Suppression{}, suppressionBatch)
}

func errNotSuppressed() error {
	return refuse(http.StatusNotFound, "not_found", "This address is not suppressed.")
}

// getSuppression shows the suppressions of an address; with ?stream=, those that stop mail of that stream. None is a 404.
func (s *Server) getSuppression(r *http.Request) (out api.List[api.Suppression], err error) {
	q := readQuery(r, "stream")
	stream := q.text("stream")
	if err := q.err(); err != nil {
		return out, err
	}
	a, err := mail.ParseAddress(pathParam(r, "email"))
	if err != nil {
		return out, errNotSuppressed()
	}
	rows, err := s.applying(r.Context(), principal(r).Tenant, a.Email)
	if err != nil {
		return out, err
	}
	rows = slices.DeleteFunc(rows, func(x record.Suppression) bool { return stream != "" && x.Stream != "" && x.Stream != stream })
	if len(rows) == 0 {
		return out, errNotSuppressed()
	}
	return listView(rows, suppressionView), nil
}

// deleteSuppression lifts all suppressions of an address, or with ?stream= that of one stream. An empty stream means the
// suppression that names no stream. If one of them comes from a complaint, the key needs an extra scope; without it none is
// lifted.
func (s *Server) deleteSuppression(w http.ResponseWriter, r *http.Request) error {
	q := readQuery(r, "stream")
	var streams []string
	if q.values.Has("stream") {
		streams = []string{q.text("stream")}
	}
	if err := q.err(); err != nil {
		return err
	}
	a, err := mail.ParseAddress(pathParam(r, "email"))
	if err != nil {
		return errNotSuppressed()
	}
	key := principal(r)
	err = s.store.Unsuppress(r.Context(), key.ID, key.Tenant, a.Email, key.May(record.ScopeComplaints), streams...)
	if errors.Is(err, record.ErrForbidden) {
		return errScopeMissing(record.ScopeComplaints)
	}
	if err != nil {
		return missing(err, "This address is not suppressed.")
	}
	return noContent(w)
}
