package pgtest

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// session is one connection to the server that is kept for the life of the process: a new one for each CREATE and DROP
// DATABASE would cost more than the database. It is safe for concurrent use: its users take turns. An idle connection has no
// goroutine, so a test's check for leaks finds nothing.
type session struct {
	url  string
	mu   sync.Mutex
	conn *pgx.Conn // nil before the first use
}

// exec runs one statement.
func (s *session) exec(ctx context.Context, statement string) error {
	return s.do(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
		return nil
	})
}

// do calls use with the connection. If the kept connection turns out to be broken, for example after a restart of the server,
// do replaces it and calls use again.
func (s *session) do(ctx context.Context, use func(*pgx.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && !s.conn.IsClosed() {
		err := use(s.conn)
		if err == nil || !s.conn.IsClosed() || ctx.Err() != nil {
			return err
		}
	}
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return fmt.Errorf("connect to test server: %w", err)
	}
	s.conn = conn
	return use(conn)
}
