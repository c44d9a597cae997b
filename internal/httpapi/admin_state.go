package httpapi

import (
	"context"
	"encoding/hex"
	"fmt"
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
	// AuditChain reads the links of the audit behind a place.
	AuditChain(ctx context.Context, after record.AuditPlace, limit int) (record.AuditChain, error)
	// Note adds an entry to the audit about something that changes nothing.
	Note(ctx context.Context, actor, action, target string, detail any) error
}

func (s *Server) getQueue(r *http.Request) (api.Queue, error) {
	q, err := s.store.Queue(r.Context())
	out := api.Queue{
		Ready: q.Ready, Scheduled: q.Scheduled, Inflight: q.Inflight, Unknown: q.Unknown, OldestDue: optional(q.OldestDue), Webhooks: q.Webhooks,
	}
	for _, f := range []struct {
		name string
		n    int64
	}{{"ready", q.Ready}, {"scheduled", q.Scheduled}, {"unknown", q.Unknown}, {"webhooks", q.Webhooks}} {
		if f.n >= record.MaxCounted {
			out.AtLeast = append(out.AtLeast, f.name)
		}
	}
	for _, t := range q.Tenants {
		out.Tenants = append(out.Tenants, api.TenantRow{Tenant: t.Tenant, Ready: t.Ready, More: t.More})
	}
	for _, rep := range q.Replicas {
		out.Replicas = append(out.Replicas, replicaView(&rep))
	}
	return out, err
}

func replicaView(r *record.Replica) api.Replica {
	out := api.Replica{ID: r.ID, Host: r.Host, StartedAt: r.StartedAt, LeaseUntil: r.LeaseUntil}
	if r.Report == nil {
		return out
	}
	out.AcceptedPerSecond = r.Report.Accepted
	for _, a := range r.Report.Accounts {
		out.Accounts = append(out.Accounts, api.ReplicaAccount{Account: a.Account, SentPerSecond: a.Sent, Breaker: a.Breaker})
	}
	return out
}

// listLimits shows how much of each window of each account is used and left.
func (s *Server) listLimits(r *http.Request) (api.List[api.WindowState], error) {
	states, err := s.store.LimitStates(r.Context())
	return listView(states, func(st *limit.State) api.WindowState {
		out := api.WindowState{
			Account: st.Account, Limit: limitView(&st.Window), Used: st.Used, Free: max(st.Window.N-st.Used, 0),
		}
		if st.BlockedUntil.After(s.clock()) {
			out.BlockedUntil = optional(st.BlockedUntil)
		}
		return out
	}), err
}

func (s *Server) listAudit(r *http.Request) (out api.AuditPage, err error) {
	q := readQuery(r, "actor", "action", "target", "since", "until", "limit", "cursor")
	f := record.AuditFilter{
		Actor: q.text("actor"), Action: q.text("action"), Target: q.text("target"), Since: q.moment("since"), Until: q.moment("until"),
		Limit: q.limit() + 1,
	}
	l := listing{name: "audit", filter: q.filter()}
	f.Before = position(q, s.cursors, l, func(id string) (int64, error) { return strconv.ParseInt(id, 10, 64) })
	if err := q.err(); err != nil {
		return out, err
	}
	rows, err := s.store.Audit(r.Context(), f)
	return pageOf(s.cursors, l, rows, f.Limit, func(e *record.AuditEntry) string { return strconv.FormatInt(e.ID, 10) }, auditView), err
}

func auditView(e *record.AuditEntry) api.AuditEntry {
	return api.AuditEntry{
		ID: e.ID, At: e.At, Actor: e.Actor, ActorName: e.Name, Address: e.Address, RequestID: e.RequestID, Action: e.Action, Target: e.Target,
		Detail: e.Detail, Before: e.Before, After: e.After,
	}
}

// chainPage is how many links of the audit one answer has.
const chainPage = 1000

// listAuditChain shows the links of the audit and what their hashes are made of, so that the client verifies them by itself.
func (s *Server) listAuditChain(r *http.Request) (out api.AuditChainPage, err error) {
	q := readQuery(r, "cursor")
	l := listing{name: "audit chain"}
	after := position(q, s.cursors, l, func(at string) (p record.AuditPlace, err error) {
		_, err = fmt.Sscanf(at, "%d.%d", &p.N, &p.ID)
		return p, err
	})
	if err := q.err(); err != nil {
		return out, err
	}
	c, err := s.store.AuditChain(r.Context(), after, chainPage)
	out.Unlinked = c.Unlinked
	out.Data = views(c.Links, func(l *record.AuditLink) api.AuditLink {
		return api.AuditLink{N: l.N, ID: l.ID, Hash: hex.EncodeToString(l.Hash), Content: l.Content}
	})
	if c.More {
		out.NextCursor = s.cursors.seal(l, fmt.Sprintf("%d.%d", c.Next.N, c.Next.ID))
	}
	return out, err
}
