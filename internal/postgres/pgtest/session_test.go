package pgtest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"
)

// backend returns the server process of the session's connection.
func (s *session) backend(t *testing.T) (pid uint32) {
	t.Helper()
	err := s.do(t.Context(), func(conn *pgx.Conn) error {
		pid = conn.PgConn().PID()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestSessionIsOneConnectionAndSurvivesItsEnd(t *testing.T) {
	t.Parallel()
	h, err := server()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{url: h.admin}
	t.Cleanup(func() { _ = s.conn.Close(context.Background()) })
	first := s.backend(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.exec(t.Context(), "SELECT pg_sleep(0.001)"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := s.backend(t); got != first {
		t.Errorf("the connection is %d after some use, want it to stay %d", got, first)
	}

	var pgErr *pgconn.PgError
	if err := s.exec(t.Context(), "SELECT 1/0"); !errors.As(err, &pgErr) || pgErr.Code != "22012" {
		t.Errorf("a refused statement = %v, want the server's reason", err)
	}
	if got := s.backend(t); got != first {
		t.Error("a refused statement cost the connection")
	}

	err = h.session.do(t.Context(), func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), "SELECT pg_terminate_backend($1, 10000)", first)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.exec(t.Context(), "SELECT"); err != nil {
		t.Errorf("first statement after the server went away: %v", err)
	}
	if got := s.backend(t); got == first {
		t.Error("the connection is still the one that ended")
	}
}

func TestIdleSessionHasNoGoroutine(t *testing.T) { //nolint:paralleltest // it counts goroutines
	h, err := server()
	if err != nil {
		t.Fatal(err)
	}
	before := goleak.IgnoreCurrent()
	s := &session{url: h.admin}
	s.backend(t)
	goleak.VerifyNone(t, before)
	if err := s.conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
