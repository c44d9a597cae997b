package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// Templated mail is stored in half of its length or less, several messages to a page, on days that are made now and later.
func TestBodiesAreCompressed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var html strings.Builder
	for i := range 14 {
		fmt.Fprintf(&html, `<tr><td style="font-family:Helvetica,Arial;font-size:14px;padding:8px">Item %d of your order, number %x</td><td align="right">%d EUR</td></tr>`,
			i, i*7919, 10+i*3)
	}
	s := with(func(s *record.Submission) { s.Message.HTML = html.String() })
	id := b.accept(t, s)[0]
	b.exec(t, `SELECT ensure_partitions(current_date + 100, current_date + 100)`)
	for _, day := range list[string](t, b, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'body'::regclass`) {
		if got := get[string](t, b, `SELECT attstorage::text || ' ' || attcompression::text FROM pg_attribute WHERE attrelid = $1::regclass AND attname = 'payload'`, day); got != "m l" {
			t.Errorf("storage and compression of %s = %s, want main and lz4", day, got)
		}
	}
	if stored, whole := get[int](t, b, `SELECT pg_column_size(payload) FROM body`), get[int](t, b, `SELECT length(payload) FROM body`); stored > whole/2 || whole < 2000 {
		t.Errorf("%d bytes are stored in %d", whole, stored)
	}
	v, err := b.db.Message(t.Context(), mail.DefaultTenant, id)
	must(t, err)
	if diff := cmp.Diff(s.Message.HTML, v.Message.HTML); diff != "" {
		t.Errorf("what is read (-want +got):\n%s", diff)
	}
}

// A day of many bodies takes the pages that they need compressed, and nothing of it is in the TOAST table.
func TestCompressedBodiesShareAPage(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t) // others may have left pages in the tables of a shared database
	b.exec(t, `INSERT INTO body SELECT uuid_floor(now() + n * interval '1 ms'), convert_to('{"html": "' || repeat('<td style="padding:8px">item ' || n || '</td>', 120) || '"}', 'UTF8') FROM generate_series(1, 64) n`)
	if pages := get[int](t, b, `SELECT count(DISTINCT tableoid::text || (ctid::text::point)[0]) FROM body`); pages > 16 {
		t.Errorf("64 bodies of 4 kB take %d pages, want several to a page", pages)
	}
	if n := get[int](t, b, `SELECT sum(pg_relation_size(reltoastrelid))::int FROM pg_class WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'body'::regclass)`); n != 0 {
		t.Errorf("%d bytes are in TOAST tables", n)
	}
}
