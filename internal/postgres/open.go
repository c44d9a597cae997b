package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/limit"
)

// openSQL counts the open calls of each account from a ticket on. The row of account 0 has the last ticket that was drawn.
const openSQL = `
SELECT account_id, count(*), coalesce(sum(recipients), 0), min(ticket) FROM inflight WHERE ticket >= $1 GROUP BY account_id
UNION ALL
SELECT 0, 0, 0, last_value FROM inflight_ticket`

// openMark is the least ticket that was open at a time, or that will be: no row below it is there, or will come. Tickets are
// drawn while all accounts are locked, and so was the reading.
//
// It holds for sessions that were there at that time, and still are. A crash of the server, which can set a sequence back, or
// a failover ends all of them.
type openMark struct {
	ticket int64
	at     time.Time // local, before the reading
}

// sinceKey is where a connection keeps when it was made.
const sinceKey = "sendgate.since"

// dated notes when each connection of a pool was made.
func dated(cfg *pgxpool.Config) {
	cfg.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		c.PgConn().CustomData()[sinceKey] = time.Now()
		return nil
	}
}

// openFrom is the ticket to count open calls from, over a connection.
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
	_, err := pgx.ForEachRow(rows, []any{&id, &open.Calls, &open.Recipients, &ticket}, func() error {
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
