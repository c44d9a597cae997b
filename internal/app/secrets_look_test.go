//go:build drill

package app

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/postgres"
)

// lookAround reads everything that an operator can read.
func (g *guarded) lookAround(t *testing.T) {
	t.Helper()
	paths := []string{
		"accounts", "accounts/ses", "accounts/smtp/limits", "pools", "rules", "keys", "tenants", "queue", "limits", "audit?limit=200",
	}
	for _, kind := range hookKinds() {
		paths = append(paths, "accounts/"+kind+"/webhooks")
	}
	for _, what := range paths {
		if status := g.call(t, http.MethodGet, "/admin/v1/"+what, g.keys.admin, "", ""); status != http.StatusOK {
			t.Errorf("GET %s = %d, want 200", what, status)
		}
	}
	page, err := g.api.Messages(t.Context(), api.MessageQuery{Limit: 200})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Data {
		message(t, g.api, m.ID)
	}
}

func (g *guarded) get(t *testing.T, from string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// doctor collects what the checks say when all is well, when the secret key is another one and when the database is not
// there.
func (g *guarded) doctor(t *testing.T) string {
	t.Helper()
	var said strings.Builder
	for _, extra := range []string{
		"SENDGATE_DATABASE_URL=" + withPassword(t, g.dsn), "SENDGATE_SECRET_KEY=" + hex.EncodeToString([]byte("another key of thirty-two bytes!")),
		"SENDGATE_DATABASE_URL=postgres://u:" + dbPassword + "@127.0.0.1:1/none",
		"SENDGATE_DATABASE_URL=host=127.0.0.1 port=1 user=u dbname=none password=" + dbPassword,
	} {
		checks, err := json.Marshal(Doctor(t.Context(), g.config(t, extra)))
		if err != nil {
			t.Fatal(err)
		}
		said.Write(checks)
	}
	for _, dsn := range []string{"postgres://u:" + dbPassword + "@[::1", "postgres://u:" + dbPassword + "@h:port/d?sslmode=x", "host=h password='" + dbPassword} {
		fmt.Fprint(&said, postgres.SafeURL(dsn), postgres.Migrate(t.Context(), dsn, &said))
	}
	return said.String()
}

// table gives all rows of a table as text.
func (g *guarded) table(t *testing.T, name string) string {
	t.Helper()
	var all *string
	if err := g.rows.QueryRow(t.Context(), `SELECT string_agg(x::text, E'\n') FROM `+name+` x`).Scan(&all); err != nil {
		t.Fatal(err)
	}
	if all == nil {
		return ""
	}
	return *all
}

// noneStored looks for the secrets in every row of every table, also as bytes.
func (g *guarded) noneStored(t *testing.T, secrets []string) {
	t.Helper()
	words := slices.Clone(secrets)
	for _, s := range secrets {
		words = append(words, hex.EncodeToString([]byte(s)))
	}
	rows, err := g.rows.Query(t.Context(), `SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if len(tables) < 10 {
		t.Errorf("tables = %v, want all", tables)
	}
	for _, name := range tables {
		loose(t, "table "+name, g.table(t, name), words)
	}
}
