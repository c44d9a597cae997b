//go:build drill

package drill

import (
	"context"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// wire is a network between one replica and the database that can be broken.
type wire struct {
	proxy *toxiproxy.Proxy
	dsn   string // by way of it
}

// newWire makes a way to a database that listens on a Unix socket or on loopback.
func newWire(t *testing.T, dsn string) *wire {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	to := bridge(t, config)
	w := &wire{proxy: toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "postgres", "127.0.0.1:0", to)}
	if err := w.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.proxy.Stop)
	u := url.URL{Scheme: "postgres", User: url.UserPassword(config.User, config.Password), Host: w.proxy.Listen, Path: "/" + config.Database, RawQuery: "sslmode=disable"}
	w.dsn = u.String()
	return w
}

// bridge is the address of a server over TCP. One on a socket, which toxiproxy can't dial, gets a listener before it.
func bridge(t *testing.T, config *pgx.ConnConfig) string {
	t.Helper()
	if config.Host != "" && config.Host[0] != '/' {
		return config.Host + ":" + strconv.Itoa(int(config.Port))
	}
	return startFront(t, filepath.Join(config.Host, ".s.PGSQL."+strconv.Itoa(int(config.Port)))).addr
}

// cut drops requests, answers, or both; connections stay open, as over a network that drops packets.
func (w *wire) cut(t *testing.T, there, back bool) {
	t.Helper()
	for stream, lost := range map[string]bool{"upstream": there, "downstream": back} {
		if !lost {
			continue
		}
		toxic := strings.NewReader(`{"type": "timeout", "stream": "` + stream + `", "attributes": {"timeout": 0}}`)
		if _, err := w.proxy.Toxics.AddToxicJson(toxic); err != nil {
			t.Fatal(err)
		}
	}
}

// end closes all connections and takes no more. A server that is stopped waits a minute for what a new connection over a
// wire that is cut has to say.
func (w *wire) end() { w.proxy.Stop() }

// connect opens a session and returns what ends it.
func connect(ctx context.Context, dsn string) (end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	return func() { _ = c.Close(context.Background()) }, nil
}
