package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// shownEvent reads the columns of an event as the API shows it, without its payload. The tags are those of its message, as
// long as the message is kept.
const shownEvent = shownColumnsOfEvent + `
FROM event e` + accountOfEvent

const shownColumnsOfEvent = `
SELECT e.xid::text, e.id, e.origin, e.part, e.tenant_id, coalesce(a.name, ''), coalesce(a.kind, ''), e.message_id, coalesce(e.n, -1), e.stream,
       e.type, e.name, e.recipient, e.at, e.source, e.provider_message_id, e.bounce, e.machine, e.url,
       (SELECT m.tags FROM message m WHERE m.id = e.message_id)`

const accountOfEvent = ` LEFT JOIN account a ON a.id = e.account_id`

func scanEvent(row pgx.CollectableRow) (mail.Event, error) {
	var e mail.Event
	var xid string
	err := row.Scan(&xid, intoID(&e.ID), intoID(&e.Origin), &e.Part, &e.Tenant, &e.Account, &e.Provider, orNoID(&e.MessageID), &e.N,
		&e.Stream, &e.Type, &e.Name, &e.Recipient, &e.At, &e.Source, &e.ProviderMessageID, &e.Bounce, &e.Machine, &e.URL, &e.Tags)
	e.Position = position{xid, e.ID}.String()
	return e, err
}

// Events lists events of one tenant by the time of their receipt, newest first.
func (db *DB) Events(ctx context.Context, f record.EventFilter) ([]mail.Event, error) {
	q, args := listEventsSQL(f)
	return collect("list events", query(ctx, db.api, q, args...), scanEvent)
}

// listEventsSQL selects by the filter; takes is the same check in memory.
func listEventsSQL(f record.EventFilter) (string, []any) {
	l := listing{shownEvent + ` WHERE e.tenant_id = $1`, []any{f.Tenant}}
	if f.Recipient != "" {
		l = listing{shownColumnsOfEvent + aboutSQL + accountOfEvent + ` WHERE true`, []any{f.Tenant, mail.FoldAddress(f.Recipient)}}
	}
	l.and(len(f.Types) > 0, "e.type = ANY ($?)", eventTypes(f.Types))
	l.and(!f.MessageID.IsZero(), "e.message_id = $?", [16]byte(f.MessageID))
	l.and(f.Account != "", "a.name = $?", f.Account)
	l.and(f.Stream != "", "e.stream = $?", f.Stream)
	return l.newest("e.id", f.Since, f.Until, f.Before, f.Limit)
}

func eventTypes(types []mail.EventType) []string {
	out := make([]string, len(types))
	for i, t := range types {
		out[i] = string(t)
	}
	return out
}

// aboutSQL selects the events of tenant $1 about the folded address $2. Those of messages to it are found by the indexes of
// recipients, since the index of all events has no address. Those about an address that is not a recipient of its message are
// found by their address.
var aboutSQL = `
FROM (
    SELECT * FROM event y WHERE y.tenant_id = $1 AND y.n IS NOT NULL AND y.recipient = $2 AND y.message_id IN (` + mailedSQL("$2") + `)
    UNION ALL SELECT * FROM event y WHERE y.tenant_id = $1 AND y.n IS NULL AND y.recipient = $2 AND y.recipient <> ''
) e`

// takes reports whether a stream with this filter shows the event.
func takes(f *record.EventFilter, e *mail.Event) bool {
	return (len(f.Types) == 0 || slices.Contains(f.Types, e.Type)) &&
		(f.MessageID.IsZero() || f.MessageID == e.MessageID) &&
		(f.Recipient == "" || mail.FoldAddress(f.Recipient) == mail.FoldAddress(e.Recipient)) &&
		(f.Account == "" || f.Account == e.Account) &&
		(f.Stream == "" || f.Stream == e.Stream)
}

// position is a place in the order of a stream: the transaction that wrote an event, then the event. A place without an
// event is before everything that its transaction wrote; its id then holds only the time at which that place was the newest.
//
// Ids alone would lose events. They are made before their transaction commits, so one may become visible after a
// greater one was read. Transaction ids have the same problem, but we can wait for transactions: all those below
// pg_snapshot_xmin(pg_current_snapshot()), the oldest transaction that is still open, have ended, and nothing can be added
// there any more. So a stream reads up to there and no further. The price: a transaction that writes for a minute holds up
// all streams for that minute.
type position struct {
	xid string // of the whole database cluster, 64 bits: it never wraps around
	id  mail.ID
}

// adoption is how long after its receipt an event may still enter the stream. Orphans are matched for a day.
const adoption = 48 * time.Hour

func (p position) String() string { return p.xid + "-" + p.id.String() }

// hasEvent reports whether the id is that of an event, a UUID of version 7, and not one that only holds a time.
func (p position) hasEvent() bool { return p.id != mail.IDAt(p.id.Time()) }

// after is the id after which to read on, among those of one transaction.
func (p position) after() mail.ID {
	if p.hasEvent() {
		return p.id
	}
	return mail.ID{}
}

// floor is below the ids of all events that may still come, so that the partitions of days long past are not read.
func (p position) floor() mail.ID {
	if at := p.id.Time().Add(-adoption); at.Unix() > 0 {
		return mail.IDAt(at)
	}
	return mail.ID{}
}

// less compares two positions. Transaction ids are in decimal.
func (p position) less(q position) bool {
	switch {
	case len(p.xid) != len(q.xid):
		return len(p.xid) < len(q.xid)
	case p.xid != q.xid:
		return p.xid < q.xid
	}
	a, b := p.after(), q.after()
	return bytes.Compare(a[:], b[:]) < 0
}

// parsePosition reads a position, or returns record.ErrNotFound.
func parsePosition(s string) (position, error) {
	xid, rest, _ := strings.Cut(s, "-")
	if n, err := strconv.ParseUint(xid, 10, 64); err != nil || strconv.FormatUint(n, 10) != xid {
		return position{}, fmt.Errorf("position in the stream of events: %w", record.ErrNotFound)
	}
	id, err := mail.ParseID(rest)
	if err != nil {
		return position{}, fmt.Errorf("position in the stream of events: %w", record.ErrNotFound)
	}
	return position{xid, id}, nil
}

const headSQL = `SELECT pg_snapshot_xmin(pg_current_snapshot())::text, clock_timestamp()`

// scanHead reads headSQL as a position without an event.
func scanHead(row pgx.Row) (position, error) {
	var p position
	var at time.Time
	err := row.Scan(&p.xid, &at)
	p.id = mail.IDAt(at)
	return p, err
}

// EventHead returns the position after all events that a stream can read now.
func (db *DB) EventHead(ctx context.Context) (string, error) {
	head, err := scanHead(db.api.QueryRow(ctx, headSQL))
	if err != nil {
		return "", fmt.Errorf("read the head of the events: %w", unavailable(err))
	}
	return head.String(), nil
}

// afterSQL reads on in the order of the stream.
const afterSQL = shownEvent + `
WHERE e.tenant_id = $1 AND (e.xid, e.id) > ($2::xid8, $3) AND e.id >= $4 AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY e.xid, e.id
LIMIT $5`

// maxSlices bounds how many slices one call reads while the filter leaves out all of their events.
const maxSlices = 10

// EventsAfter reads on in the stream of one tenant's events. It returns up to limit events after the position that pass the
// filter, and the position from which to go on. It may return none although there are more, when it skipped many that the
// filter leaves out; the position has moved on then. Since, Until, Before and Limit of the filter are ignored. It returns
// record.ErrNotFound for a position that is malformed or ahead of this database.
func (db *DB) EventsAfter(ctx context.Context, f record.EventFilter, after string, limit int) ([]mail.Event, string, error) {
	p, err := parsePosition(after)
	if err != nil {
		return nil, "", err
	}
	for range maxSlices {
		head, slice, err := db.readAfter(ctx, f.Tenant, p, limit)
		if err != nil {
			return nil, "", fmt.Errorf("read events after %s: %w", after, unavailable(err))
		}
		if head.less(p) && head.xid != p.xid {
			return nil, "", fmt.Errorf("position %s is ahead of %s: %w", p, head, record.ErrNotFound)
		}
		full := len(slice) == limit
		p = advance(p, head, slice, full)
		taken := slices.DeleteFunc(slice, func(e mail.Event) bool { return !takes(&f, &e) })
		if len(taken) > 0 || !full {
			return taken, p.String(), nil
		}
	}
	return nil, p.String(), nil
}

// advance gives the position from which to go on. If the slice is not full, that is the head or the last event, whichever is
// later. The head was read before the events: all events below it were read, and some may be above it.
func advance(p, head position, slice []mail.Event, full bool) position {
	if len(slice) > 0 {
		xid, _, _ := strings.Cut(slice[len(slice)-1].Position, "-")
		p = position{xid, slice[len(slice)-1].ID}
	}
	if !full && p.less(head) {
		return head
	}
	return p
}

// readAfter reads the head, and then a slice of the stream.
func (db *DB) readAfter(ctx context.Context, t mail.TenantID, p position, limit int) (head position, slice []mail.Event, err error) {
	b := &pgx.Batch{}
	b.Queue(headSQL).QueryRow(func(row pgx.Row) error {
		head, err = scanHead(row)
		return err
	})
	b.Queue(afterSQL, t, p.xid, [16]byte(p.after()), [16]byte(p.floor()), limit).Query(func(rows pgx.Rows) error {
		slice, err = pgx.CollectRows(rows, scanEvent)
		return err
	})
	return head, slice, db.api.SendBatch(ctx, b).Close()
}
