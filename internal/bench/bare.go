package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/api"
)

// bare is the ceiling of the API: it decodes the same JSON and stores it in one row, by group commit, and does nothing else.
type bare struct {
	pool *pgxpool.Pool
	work chan waiting
}

// waiting is a request whose row is not stored yet.
type waiting struct {
	body []byte
	done chan error
}

// Writers and rows of a commit, as in package postgres.
const (
	bareWriters = 4
	bareRows    = 128
)

// playBare serves POST /bare, and POST /empty, which only reads the request.
func playBare(ctx context.Context, dsn string) error {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS bare (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), at timestamptz DEFAULT now(), body bytea)`); err != nil {
		return err
	}
	b := &bare{pool: pool, work: make(chan waiting, 4096)}
	for range bareWriters {
		go b.write(ctx)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /bare", b.accept)
	mux.HandleFunc("POST /empty", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = web.Serve(l) }()
	if err := json.NewEncoder(os.Stdout).Encode("http://" + l.Addr().String()); err != nil {
		return err
	}
	<-ctx.Done()
	return web.Close()
}

func (b *bare) accept(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var m api.SendRequest
	if err = errors.Join(err, json.Unmarshal(body, &m)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	done := make(chan error, 1)
	b.work <- waiting{body, done}
	if err := <-done; err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprint(w, `{"id":"x"}`)
}

// write stores what waits, as much as one commit takes.
func (b *bare) write(ctx context.Context) {
	for first := range b.work {
		group := []waiting{first}
	gather:
		for len(group) < bareRows {
			select {
			case next := <-b.work:
				group = append(group, next)
			default:
				break gather
			}
		}
		rows := make([][]byte, len(group))
		for i := range group {
			rows[i] = group[i].body
		}
		_, err := b.pool.Exec(ctx, `INSERT INTO bare (body) SELECT unnest($1::bytea[])`, rows)
		for _, w := range group {
			w.done <- err
		}
	}
}
