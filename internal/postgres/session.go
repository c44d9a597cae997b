package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrPooled says that a pooler may give each transaction another session of the server.
var ErrPooled = errors.New("a pooler in transaction or statement mode is in between: " +
	"use pool_mode = session there for this database, or name PostgreSQL itself; sendgate's settings, prepared statements and locks belong to a session")

// sessionWait is how long a new connection waits for its session, unless the URL says otherwise.
const sessionWait = 15 * time.Second

// inSession gives each new connection the parameters of the URL, overridden by ours. A statement sets them, because PgBouncer
// refuses a startup message with parameters that it does not know. PgBouncer clears the session when the connection ends.
func inSession(cfg *pgx.ConnConfig, ours map[string]string) {
	params, rest := spread(cfg.RuntimeParams)
	name := cmp.Or(params[appName], "sendgate")
	delete(params, appName)
	maps.Copy(params, ours)
	cfg.RuntimeParams = rest
	rest[appName] = name // every pooler accepts it, and so the server's log has it from the start
	if len(params) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(params))
	values := make([]string, len(names))
	for i, n := range names {
		values[i] = params[n]
	}
	wait := cmp.Or(cfg.ConnectTimeout, sessionWait)
	cfg.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		err := setParams(ctx, c, names, values)
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("no session within %s: the server stands still, or the pool of a pooler in between is used up: %w", wait, err)
		}
		return err
	}
}

const appName = "application_name"

// setParams sets all parameters in one round trip.
func setParams(ctx context.Context, c *pgconn.PgConn, names, values []string) error {
	var q strings.Builder
	args := make([][]byte, 0, 2*len(names))
	for i := range names {
		fmt.Fprintf(&q, "%s set_config($%d, $%d, false)", []string{"SELECT", ","}[min(i, 1)], 2*i+1, 2*i+2)
		args = append(args, []byte(names[i]), []byte(values[i]))
	}
	_, err := c.ExecParams(ctx, q.String(), args, nil, nil, nil).Close()
	if err != nil {
		return fmt.Errorf("set the parameters of the session: %w", err)
	}
	return nil
}

// spread splits startup parameters, "options" included, into those that a statement can set, by their names in small letters,
// and the rest, which only a startup message can set.
func spread(startup map[string]string) (params, rest map[string]string) {
	params, rest = map[string]string{}, map[string]string{}
	for name, value := range startup {
		if name = strings.ToLower(name); name != "options" {
			params[name] = value
		}
	}
	for name, value := range startup {
		if strings.ToLower(name) != "options" {
			continue
		}
		options, ok := parseOptions(value)
		if !ok {
			rest[name] = value
			continue
		}
		for n, v := range options {
			if _, own := params[n]; !own { // as in the server, a parameter overrides the options
				params[n] = v
			}
		}
	}
	return params, rest
}

// parseOptions reads "-c name=value", "-cname=value" and "--name=value", as the server does. For anything else ok is false.
func parseOptions(s string) (params map[string]string, ok bool) {
	params = map[string]string{}
	words := splitOptions(s)
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch {
		case word == "-c" && len(words) > 0:
			word, words = words[0], words[1:]
		case strings.HasPrefix(word, "--"):
			word = word[2:]
		case strings.HasPrefix(word, "-c"):
			word = word[2:]
		default:
			return nil, false
		}
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, false
		}
		params[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = value
	}
	return params, true
}

// splitOptions splits at white space. A backslash escapes the character after it.
func splitOptions(s string) []string {
	var words []string
	var word strings.Builder
	inside, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			inside, escaped = true, true
		case strings.ContainsRune(" \t\n\v\f\r", r):
			if inside {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if inside {
		words = append(words, word.String())
	}
	return words
}

// CheckSessions returns ErrPooled when transactions of one connection run in several sessions, and reports whether there is a
// pooler at all. It uses no prepared statement and sets nothing, so it works in any mode and leaves nothing behind.
func CheckSessions(ctx context.Context, dsn string) (pooler bool, err error) {
	cfg, err := parseURL(dsn)
	if err != nil {
		return false, err
	}
	pooler, err = lookForPooler(ctx, cfg.ConnConfig)
	if err != nil {
		return pooler, fmt.Errorf("database %s: %w", SafeURL(dsn), unavailable(err))
	}
	return pooler, nil
}

// lookForPooler opens two connections and checks their sessions.
func lookForPooler(ctx context.Context, cfg *pgx.ConnConfig) (pooler bool, err error) {
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, sessionWait)
	_, cfg.RuntimeParams = spread(cfg.RuntimeParams)
	cfg.RuntimeParams[appName] = "sendgate"
	var conns [2]*pgconn.PgConn
	for i := range conns {
		if conns[i], err = pgconn.ConnectConfig(ctx, &cfg.Config); err != nil {
			return false, fmt.Errorf("connect: %w", err)
		}
		defer conns[i].Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only used to ask
	}
	return checkSessions(ctx, conns)
}

// sessionRounds is how often both connections are asked for their session. An idle pooler is found in the first round, because
// it gives both the same session. A busy one gives any, and a connection rarely gets the same one so often.
const sessionRounds = 8

// checkSessions asks each connection twice before it asks the other: otherwise a pooler that gives its sessions in turn would
// always give each of the two the same one.
func checkSessions(ctx context.Context, conns [2]*pgconn.PgConn) (pooler bool, err error) {
	var have [2]backend
	for range sessionRounds {
		for _, i := range []int{0, 0, 1, 1} {
			got, err := askBackend(ctx, conns[i])
			if err != nil {
				return pooler, err
			}
			// Without a pooler, two open connections never share a session, and a connection never changes its session.
			if got == have[1-i] || have[i] != (backend{}) && got != have[i] {
				return true, ErrPooled
			}
			have[i] = got
			pooler = pooler || got.pid != fmt.Sprint(conns[i].PID()) // a pooler reports process ids of its own
		}
	}
	return pooler, nil
}

// backend identifies a server process: its id, and when its server was started.
type backend struct{ pid, since string }

func askBackend(ctx context.Context, c *pgconn.PgConn) (backend, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionWait)
	defer cancel()
	results, err := c.Exec(ctx, `SELECT pg_backend_pid(), pg_postmaster_start_time()`).ReadAll()
	if err != nil {
		return backend{}, err
	}
	row := results[0].Rows[0]
	return backend{pid: string(row[0]), since: string(row[1])}, nil
}
