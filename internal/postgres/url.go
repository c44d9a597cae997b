package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// parseURL reads a URL or DSN. The driver's own error could repeat a part that is a password, so it is not shown, except for a
// file that can't be read.
func parseURL(dsn string) (*pgxpool.Config, error) {
	if garbled(dsn) {
		return nil, errors.New("database URL: / ? # and @ in its user or password have to be written as %2F %3F %23 and %40")
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("database URL %s: %w", SafeURL(dsn), file)
	}
	if err != nil {
		return nil, fmt.Errorf("database URL %s: not a valid postgres:// URL or DSN", SafeURL(dsn))
	}
	return cfg, nil
}

// SafeURL says where a URL or DSN leads, for errors and logs: servers, database and user, and nothing else. So it never shows a
// password, wherever that stands. If the URL can't be parsed, it shows nothing of it.
func SafeURL(dsn string) string {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil || garbled(dsn) {
		return "(not readable)"
	}
	u := url.URL{Scheme: "postgres", Path: "/" + cfg.Database}
	if cfg.User != "" {
		u.User = url.User(cfg.User)
	}
	hosts := hostsOf(cfg)
	if strings.HasPrefix(hosts[0], "/") { // the folder of a socket can't be the host of a URL
		u.RawQuery = "host=" + strings.Join(hosts, ",")
		return u.String()
	}
	u.Host = strings.Join(hosts, ",")
	return u.String()
}

// hostsOf lists the servers of a configuration, as host:port or the path of a socket.
func hostsOf(cfg *pgconn.Config) []string {
	var hosts []string
	add := func(host string, port uint16) { // the same server may come twice, with and without TLS
		at := net.JoinHostPort(host, strconv.Itoa(int(port)))
		if strings.HasPrefix(host, "/") {
			at = path.Join(host, ".s.PGSQL."+strconv.Itoa(int(port)))
		}
		if !slices.Contains(hosts, at) {
			hosts = append(hosts, at)
		}
	}
	add(cfg.Host, cfg.Port)
	for _, f := range cfg.Fallbacks {
		add(f.Host, f.Port)
	}
	return hosts
}

// garbled reports whether a URL is parsed otherwise than it was meant: a / ? # or @ in the password that is not
// percent-encoded ends or begins the server's name within the password. Its signs are a second @, an @ after the server, or a #.
func garbled(dsn string) bool {
	scheme, rest, ok := strings.Cut(dsn, "://")
	if !ok || scheme != "postgres" && scheme != "postgresql" {
		return false
	}
	server, behind := rest, ""
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		server, behind = rest[:end], rest[end:]
	}
	database, query, _ := strings.Cut(behind, "?")
	for parameter := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(parameter, "=") // a value may contain an @
		database += key
	}
	return strings.Count(server, "@") > 1 || strings.ContainsAny(database, "@#") || strings.Contains(query, "#")
}
