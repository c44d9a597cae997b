package postgres

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/limit"
)

// openSQL counts the open calls of each account, from a ticket on. The row of account 0 has the last ticket that was drawn.
const openSQL = `
SELECT account_id, count(*) FILTER (WHERE NOT joined), count(*), coalesce(sum(recipients), 0), min(ticket) FROM inflight WHERE ticket >= $1 GROUP BY account_id
UNION ALL
SELECT 0, 0, 0, 0, last_value FROM inflight_ticket`

// openMark is a lower bound for the tickets of open calls: no row below it exists, and none will be added. Tickets are drawn
// while all accounts are locked, and it was read under these locks.
//
// It is valid for sessions that existed at that time and still do. A failover ends all of them, and so does a crash of the
// server, which can set a sequence back.
type openMark struct {
	ticket int64
	at     time.Time // local, before the reading
}

// sinceKey is where a connection keeps when it was made.
const sinceKey = "sendgate.since"

// dated notes when each connection of a pool was made, and where it is said whether it may use the tables of days.
func dated(cfg *pgxpool.Config, days *atomic.Bool) {
	cfg.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		c.PgConn().CustomData()[sinceKey], c.PgConn().CustomData()[daysKey] = time.Now(), days
		return nil
	}
}

// openFrom is the ticket from which a connection has to count open calls: the mark, or 0 if that is not valid for it.
func (db *DB) openFrom(c *pgx.Conn) int64 {
	m := db.mark.Load()
	since, ok := c.PgConn().CustomData()[sinceKey].(time.Time)
	if m == nil || !ok || !m.at.After(since) {
		return 0
	}
	return m.ticket
}

// scanOpen adds the open calls to their accounts and returns the least ticket.
func scanOpen(rows pgx.Rows, accounts map[int32]*limit.Account) (int64, error) {
	var id int32
	var open limit.Open
	var least, ticket int64
	_, err := pgx.ForEachRow(rows, []any{&id, &open.Calls, &open.Messages, &open.Recipients, &ticket}, func() error {
		if least == 0 || ticket < least {
			least = ticket
		}
		if acc := accounts[id]; acc != nil {
			acc.Open = open
		}
		return nil
	})
	return least, err
}
