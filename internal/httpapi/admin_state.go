package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/record"
)

// StateStore tells how the installation is doing.
type StateStore interface {
	Queue(ctx context.Context) (record.QueueState, error)
	LimitStates(ctx context.Context) ([]limit.State, error)
	Audit(ctx context.Context, f record.AuditFilter) ([]record.AuditEntry, error)
	Ping(ctx context.Context) error // the database answers and has our schema
}

func (s *Server) getQueue(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	q, err := s.store.Queue(r.Context())
	if err != nil {
		return err
	}
	out := api.Queue{
		Ready: q.Ready, Scheduled: q.Scheduled, Inflight: q.Inflight, Unknown: q.Unknown, OldestDue: optional(q.OldestDue),
	}
	for _, f := range []struct {
		name string
		n    int64
	}{{"ready", q.Ready}, {"scheduled", q.Scheduled}, {"unknown", q.Unknown}} {
		if f.n >= record.MaxCounted {
			out.AtLeast = append(out.AtLeast, f.name)
		}
	}
	for _, t := range q.Tenants {
		out.Tenants = append(out.Tenants, api.TenantRow{Tenant: t.Tenant, Ready: t.Ready, More: t.More})
	}
	for _, rep := range q.Replicas {
		out.Replicas = append(out.Replicas, api.Replica{
			ID: rep.ID, Host: rep.Host, StartedAt: rep.StartedAt, LeaseUntil: rep.LeaseUntil,
		})
	}
	return writeJSON(w, http.StatusOK, out)
}

// listLimits shows how much of each window of each account is used and left.
func (s *Server) listLimits(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	states, err := s.store.LimitStates(r.Context())
	if err != nil {
		return err
	}
	out := api.List[api.WindowState]{Data: make([]api.WindowState, 0, len(states))}
	for _, st := range states {
		line := api.WindowState{
			Account: st.Account, Limit: limitView(st.Window), Used: st.Used, Free: max(st.Window.N-st.Used, 0),
		}
		if st.BlockedUntil.After(s.clock()) {
			line.BlockedUntil = optional(st.BlockedUntil)
		}
		out.Data = append(out.Data, line)
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) listAudit(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r, "actor", "action", "target", "since", "until", "limit", "cursor")
	if err != nil {
		return err
	}
	f := record.AuditFilter{
		Actor: q.text("actor"), Action: q.text("action"), Target: q.text("target"), Since: q.moment("since"), Until: q.moment("until"),
	}
	limit := q.limit()
	if err := q.err(); err != nil {
		return err
	}
	l := listing{name: "audit", filter: q.filter()}
	if f.Before, err = q.auditCursor(s.cursors, l); err != nil {
		return err
	}
	f.Limit = limit + 1
	rows, err := s.store.Audit(r.Context(), f)
	if err != nil {
		return err
	}
	rows, next := page(s.cursors, l, rows, limit, func(e *record.AuditEntry) string { return strconv.FormatInt(e.ID, 10) })
	out := api.AuditPage{Data: make([]api.AuditEntry, 0, len(rows)), NextCursor: next}
	for _, e := range rows {
		out.Data = append(out.Data, api.AuditEntry{
			ID: e.ID, At: e.At, Actor: e.Actor, ActorName: e.Name, Action: e.Action, Target: e.Target, Detail: e.Detail,
		})
	}
	return writeJSON(w, http.StatusOK, out)
}

func (q *query) auditCursor(c *cursors, l listing) (int64, error) {
	last, err := q.cursor(c, l)
	if err != nil || last == "" {
		return 0, err
	}
	before, err := strconv.ParseInt(last, 10, 64)
	if err != nil {
		return 0, errCursor()
	}
	return before, nil
}
