package httpapi

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestSuppressionsOfStreamsAndForAWhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.write)
	soon := r.clock.now().Add(time.Hour)
	if _, err := c.Suppress(t.Context(), api.SuppressionRequest{Email: "ann@example.org", Stream: "news", Reason: "soft_bounce", Detail: "by hand", ExpiresAt: &soon}); err != nil {
		t.Fatal(err)
	}
	kept, err := c.Suppress(t.Context(), api.SuppressionRequest{Email: "Ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Suppress(t.Context(), api.SuppressionRequest{Email: "ann@example.org", Reason: "complaint", ExpiresAt: &soon})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, again); diff != "" || again.ExpiresAt != nil {
		t.Errorf("the answer does not show what holds (-first +second):\n%s", diff)
	}
	reader := r.client(r.read)
	for _, tc := range []struct {
		q    api.SuppressionQuery
		want int
	}{
		{api.SuppressionQuery{}, 2},
		{api.SuppressionQuery{Stream: "news"}, 1},
		{api.SuppressionQuery{Reason: "manual"}, 1},
		{api.SuppressionQuery{Reason: "manual", Stream: "news"}, 0},
		{api.SuppressionQuery{Email: "ann@example.org"}, 2},
	} {
		page, err := reader.FindSuppressions(t.Context(), tc.q)
		if err != nil || len(page.Data) != tc.want {
			t.Errorf("%+v finds %v, %v, want %d", tc.q, page, err, tc.want)
		}
	}
	checked := func(stream string) int {
		t.Helper()
		found, err := reader.Suppressed(t.Context(), "ann@example.org", stream)
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if checked("") != 2 || checked("news") != 2 || checked("offers") != 1 {
		t.Error("the check does not tell what applies to a stream")
	}
	if err := c.UnsuppressStream(t.Context(), "ann@example.org", ""); err != nil {
		t.Fatal(err)
	}
	if checked("offers") != 0 || checked("news") != 1 {
		t.Error("lifting the suppression of all streams did not leave that of one")
	}
	if err := c.UnsuppressStream(t.Context(), "ann@example.org", "offers"); code(err) != "404 not_found" {
		t.Errorf("lifting what is not there = %v", err)
	}
	if err := c.Unsuppress(t.Context(), "ann@example.org"); err != nil || checked("") != 0 {
		t.Errorf("lifting all = %v", err)
	}
}

func TestSuppressionRefusesBadFields(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, field := range map[string]string{
		`{"email":"a@example.org","stream":"Not A Name"}`:                               "stream",
		`{"email":"a@example.org","detail":"` + strings.Repeat("x", 201) + `"}`:         "detail",
		`{"email":"a@example.org","expires_at":"2026-01-31T08:30:00Z"}`:                 "expires_at",
		`{"email":"a@example.org","expires_at":"9999-01-31T08:30:00Z"}`:                 "expires_at",
		`{"email":"a@example.org","expires_at":"tomorrow"}`:                             "expires_at",
		`{"email":"a@example.org","stream":"` + strings.Repeat("x", 64) + `"}`:          "stream",
		`{"email":"a@example.org","reason":"` + strings.Repeat("unsubscribe", 2) + `"}`: "reason",
	} {
		a := r.do("POST", "/v1/suppressions", r.send, body)
		r.want(a, 422, "invalid")
		if a.problem.Errors[0].Field != field {
			t.Errorf("%s: complains about %q, want %q", body, a.problem.Errors[0].Field, field)
		}
	}
	r.want(r.do("GET", "/v1/suppressions?reason=spite", r.read, ""), 422, "invalid")
}

// importCSV posts a file.
func (r *rig) importCSV(body string, headers ...string) answer {
	r.t.Helper()
	return r.do("POST", "/v1/suppressions/import", r.send, body, append([]string{"Content-Type", "text/csv"}, headers...)...)
}

func TestImportReadsByColumnNames(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	file := "\ufeffReason,ignored, EMAIL ,stream,expires_at,created_at,detail\n" +
		"complaint,x,ann@example.org,,,2025-06-01T00:00:00Z,\"a, \"\"quoted\"\" one\"\n" +
		",x,Bob@example.org,news,2027-01-01T00:00:00Z,,\n" +
		"spite,x,cy@example.org,,,,\n" +
		"manual,x,not an address,,,,\n" +
		"manual,x,dee@example.org,,yesterday,,\n" +
		"manual,x,\"dee@example.org\"x,,,,\n" +
		"manual\n" +
		"manual,x,'+eve@example.org,,,,\n" +
		"hard_bounce,x,ann@example.org,,,,\n"
	a := r.importCSV(file)
	r.want(a, 200, "")
	want := api.SuppressionImportResult{Added: 3, Present: 1, Invalid: 5, Errors: []api.SuppressionCSVRow{
		{Line: 4, Message: "reason: must be manual, hard_bounce, soft_bounce, complaint, unsubscribe"},
		{Line: 5, Message: "email: must be one email address"},
		{Line: 6, Message: "expires_at: must be RFC 3339, such as 2026-01-31T12:00:00Z"},
		{Line: 7, Message: "is not well-formed CSV"},
		{Line: 8, Message: "email: must be one email address"},
	}}
	if diff := cmp.Diff(want, decoded[api.SuppressionImportResult](t, a)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	ann := record.Suppression{
		Tenant: 1, Email: "ann@example.org", Reason: "complaint", Origin: "import", Detail: `a, "quoted" one`,
		CreatedAt: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC),
	}
	bob := record.Suppression{
		Tenant: 1, Email: "bob@example.org", Stream: "news", Reason: "manual", Origin: "import", CreatedAt: r.clock.now(),
		ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	eve := record.Suppression{Tenant: 1, Email: "+eve@example.org", Reason: "manual", Origin: "import", CreatedAt: r.clock.now()}
	stored := map[suppressionKey]record.Suppression{
		{1, ann.Email, ""}: ann, {1, bob.Email, "news"}: bob, {1, eve.Email, ""}: eve,
	}
	if diff := cmp.Diff(stored, r.store.suppressions); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

func TestImportIsStoredInBatches(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	file := &strings.Builder{}
	file.WriteString("email\n")
	for i := range 2*suppressionBatch + 1 {
		fmt.Fprintf(file, "a%d@example.org\n", i)
	}
	got, err := r.client(r.send).ImportSuppressions(t.Context(), strings.NewReader(file.String()), "")
	if err != nil || got.Added != 2*suppressionBatch+1 || r.store.count("ImportSuppressions") != 3 {
		t.Errorf("import = %+v, %v in %d statements, want %d in 3", got, err, r.store.count("ImportSuppressions"), 2*suppressionBatch+1)
	}
	bad := "email\n" + strings.Repeat("x\n", maxImportErrors+50)
	if got := decoded[api.SuppressionImportResult](t, r.importCSV(bad)); got.Invalid != maxImportErrors+50 || len(got.Errors) != maxImportErrors {
		t.Errorf("bad rows = %d, told %d, want %d told", got.Invalid, len(got.Errors), maxImportErrors)
	}
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, tc := range map[string]struct {
		body, kind string
		status     int
		code       string
	}{
		"empty":         {"\n", "text/csv", 400, "empty_body"},
		"no email":      {"mail\nann@example.org\n", "text/csv", 422, "invalid"},
		"email twice":   {"email,EMAIL\na@example.org,b@example.org\n", "text/csv", 422, "invalid"},
		"broken header": {"em\"ail\n", "text/csv", 422, "invalid"},
		"JSON":          {"{}", "application/json", 415, "unsupported_media_type"},
		"latin-1":       {"email\n", "text/csv; charset=latin1", 415, "unsupported_media_type"},
		"long row":      {"email\n\"" + strings.Repeat("x", 2*maxImportRow) + "\"\n", "text/csv", 422, "invalid"},
	} {
		a := r.importCSV(tc.body, "Content-Type", tc.kind)
		if a.status != tc.status || a.problem.Code != tc.code {
			t.Errorf("%s: %d %s, want %d %s", name, a.status, a.body, tc.status, tc.code)
		}
	}
	r.want(r.importCSV("email\n", "Content-Encoding", "gzip"), 415, "unsupported_media_type")
	if len(r.store.suppressions) != 0 {
		t.Error("something was stored")
	}
	r.store.failWith(nil)
	own := r.server.imports.take(holder{tenant: mail.DefaultTenant}, 1, nil)
	r.want(r.importCSV("email\n"), 503, "unavailable") // one at a time
	own.release()
	for i := range importsAtOnce {
		defer r.server.imports.take(holder{tenant: mail.TenantID(i + 2)}, 1, nil).release()
	}
	r.want(r.importCSV("email\n"), 503, "unavailable") // and no more than there is room for
}

// Each export is as its maker's documentation, or its page of downloads, has it.
func TestExportsOfOthersAreImported(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, c := range map[string]struct {
		file, query string
		want        []string // address, reason, detail
		times       time.Time
		invalid     int64
	}{
		"SendGrid, bounces": {
			"status,reason,email,created\n5.1.1,\"550 5.1.1 The email account that you tried to reach does not exist, \"\"ann\"\"\",ann@example.org,1741064767\n" +
				"4.2.2,452 4.2.2 The email account that you tried to reach is over quota,bob@example.org,1741064767\n" +
				"550,unknown,cy@example.org,1741064767\n", "",
			[]string{`ann@example.org hard_bounce 550 5.1.1 The email account that you tried to reach does not exist, "ann"`},
			at, 2,
		},
		"SendGrid, spam reports":   {"ip,email,created\n192.0.2.1,ann@example.org,2025-03-04 05:06:07\n", "?reason=complaint", []string{"ann@example.org complaint "}, at, 0},
		"SendGrid, unsubscribes":   {"email,created\nann@example.org,1741064767\n", "?reason=unsubscribe", []string{"ann@example.org unsubscribe "}, at, 0},
		"Mailgun, bounces":         {"address,code,error,created_at\nann@example.org,550,No such mailbox,\"Tue, 04 Mar 2025 05:06:07 UTC\"\nbob@example.org,421,busy,\"Tue, 04 Mar 2025 05:06:07 UTC\"\n", "", []string{"ann@example.org hard_bounce No such mailbox"}, at, 1},
		"Mailgun, complaints":      {"address,created_at\nann@example.org,\"Tue, 04 Mar 2025 05:06:07 GMT\"\n", "?reason=complaint", []string{"ann@example.org complaint "}, at, 0},
		"Postmark":                 {"EmailAddress,SuppressionReason,Origin,CreatedAt\nann@example.org,HardBounce,Recipient,2025-03-04T00:06:07-05:00\nbob@example.org,SpamComplaint,Recipient,2025-03-04T00:06:07-05:00\ncy@example.org,ManualSuppression,Customer,2025-03-04T00:06:07-05:00\n", "", []string{"ann@example.org hard_bounce ", "bob@example.org complaint ", "cy@example.org manual "}, at, 0},
		"SES":                      {"EmailAddress,Reason,LastUpdateTime\nann@example.org,BOUNCE,2025-03-04T05:06:07Z\nbob@example.org,COMPLAINT,2025-03-04T05:06:07Z\n", "", []string{"ann@example.org hard_bounce ", "bob@example.org complaint "}, at, 0},
		"semicolons":               {"email;reason;created_at\r\nann@example.org;complaint;2025-03-04T05:06:07Z\r\n", "", []string{"ann@example.org complaint "}, at, 0},
		"tabs":                     {"Email Address\tcreated\nann@example.org\t2025-03-04T05:06:07\n", "", []string{"ann@example.org manual "}, at, 0},
		"a column of each":         {"address,email,created\nx,ann@example.org,2025-03-04T05:06:07\n", "", []string{"ann@example.org manual "}, at, 0},
		"a very long reply":        {"status,reason,email,created\n5.0.0,550 " + strings.Repeat("é", 300) + ",ann@example.org,1741064767\n", "", []string{"ann@example.org hard_bounce 550 " + strings.Repeat("é", 196)}, at, 0},
		"a reply of several lines": {"status,reason,email,created\n5.0.0,\"550 one\ntwo\",ann@example.org,1741064767\n", "", []string{"ann@example.org hard_bounce 550 one two"}, at, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.do("POST", "/v1/suppressions/import"+c.query, r.send, c.file, "Content-Type", "text/csv")
			r.want(a, 200, "")
			var got []string
			for _, x := range r.store.suppressions {
				got = append(got, x.Email+" "+x.Reason+" "+x.Detail)
				if !x.CreatedAt.Equal(c.times) {
					t.Errorf("%s: created at %s, want %s", x.Email, x.CreatedAt, c.times)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("stored (-want +got):\n%s", diff)
			}
			if n := decoded[api.SuppressionImportResult](t, a).Invalid; n != c.invalid {
				t.Errorf("%d rows skipped, want %d: %s", n, c.invalid, a.body)
			}
		})
	}
	r := newRig(t)
	r.want(r.do("POST", "/v1/suppressions/import?reason=spite", r.send, "email\n", "Content-Type", "text/csv"), 422, "invalid")
}

// A broken row costs itself and no other, wherever its quote would have ended.
func TestBrokenRowCostsNoOther(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		broken string // a line of three, or lines
		lost   int
	}{
		"a quote that is not closed":   {`"bob@example.org,complaint`, 1},
		"in the middle of a cell":      {`bob@exam"ple.org,complaint`, 1},
		"closed in another row":        {"\"bob@example.org,complaint\n\"cy@example.org,complaint", 2},
		"closed so that it looks well": {"\"bob@example.org,complaint\ncy@example.org,complaint\"", 2},
		"text behind a quote":          {`"bob@example.org"x,complaint`, 1},
		"quotes that stand alone":      {"\"\n\"\n\"", 3},
	} {
		r := newRig(t)
		file := "email,reason\nann@example.org,complaint\n" + c.broken + "\n" + strings.Repeat("\n", 3)
		for i := range 200 {
			file += fmt.Sprintf("u%d@example.org,complaint\n", i)
		}
		a := r.importCSV(file)
		r.want(a, 200, "")
		result := decoded[api.SuppressionImportResult](t, a)
		if result.Added < 201 || result.Invalid == 0 || int(result.Added-201+result.Invalid) > c.lost {
			t.Errorf("%s: %+v, want 201 added and up to %d told", name, result, c.lost)
		}
		if result.Errors[0].Line != 3 {
			t.Errorf("%s: the first complaint is about line %d, want 3", name, result.Errors[0].Line)
		}
	}
}

func TestImportIsCapped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/suppressions/import", strings.NewReader("email\n"))
	req.Header.Set("Authorization", "Bearer "+r.send)
	req.Header.Set("Content-Type", "text/csv")
	req.ContentLength = maxImport + 1
	rec := httptest.NewRecorder()
	r.server.Handler().ServeHTTP(rec, req)
	if rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("announced over the cap = %d, want 413", rec.Code)
	}
	in := newCSVImport(http.MaxBytesReader(rec, io.NopCloser(strings.NewReader("email\n"+strings.Repeat("a@example.org\n", 100))), 100), "", r.clock.now())
	if err := in.header(); err != nil {
		t.Fatal(err)
	}
	batch, err := in.batch()
	var tooLarge *http.MaxBytesError
	if !errors.As(readProblem(rec, err), &tooLarge) || len(batch) == 0 {
		t.Errorf("over the cap on the way = %d rows and %v, want a 413", len(batch), err)
	}
}

func TestExportComesBackByImport(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	expires := r.clock.now().Add(time.Hour)
	for i := range suppressionBatch + 5 {
		x := record.Suppression{Tenant: 1, Email: fmt.Sprintf("a%04d@example.org", i), Reason: "manual", Origin: "api", CreatedAt: r.clock.now()}
		r.store.suppressions[suppressionKey{1, x.Email, ""}] = x
	}
	for _, local := range []string{"=a", "+a", "-a", "'=a", "''+a", "'a", "＝a", "'＠a"} {
		x := record.Suppression{Tenant: 1, Email: local + "@example.org", Stream: "news", Reason: "complaint", Origin: "webhook", CreatedAt: r.clock.now(), ExpiresAt: expires}
		r.store.suppressions[suppressionKey{1, x.Email, x.Stream}] = x
	}
	r.store.suppressions[suppressionKey{2, "other@example.org", ""}] = record.Suppression{Tenant: 2, Email: "other@example.org"}
	var file bytes.Buffer
	if err := r.client(r.read).ExportSuppressions(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(file.Bytes())).ReadAll()
	if err != nil || len(rows) != suppressionBatch+5+8+1 {
		t.Fatalf("export has %d rows, %v", len(rows), err)
	}
	if diff := cmp.Diff(exportColumns, rows[0]); diff != "" {
		t.Errorf("first line (-want +got):\n%s", diff)
	}
	for _, row := range rows {
		if first, _ := utf8.DecodeRuneInString(row[0]); strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) {
			t.Errorf("a spreadsheet takes %q for a formula", row[0])
		}
	}
	before := r.store.suppressions
	r.store.suppressions = map[suppressionKey]record.Suppression{}
	result, err := r.client(r.send).ImportSuppressions(t.Context(), &file, "")
	if err != nil || result.Invalid != 0 || result.Added != int64(len(rows)-1) {
		t.Fatalf("import = %+v, %v", result, err)
	}
	delete(before, suppressionKey{2, "other@example.org", ""})
	for key, x := range before {
		x.Origin = "import"
		before[key] = x
	}
	if diff := cmp.Diff(before, r.store.suppressions); diff != "" {
		t.Errorf("what came back (-exported +imported):\n%s", diff)
	}
	one := r.do("GET", "/v1/suppressions/export?stream=news&reason=complaint", r.read, "")
	if got := strings.Count(string(one.body), "\r\n"); got != 0 && got != 9 {
		t.Errorf("filtered export has %d lines, want 9", got)
	}
}

func TestExportThatFailsDoesNotLookWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range suppressionBatch {
		email := fmt.Sprintf("a%04d@example.org", i)
		r.store.suppressions[suppressionKey{1, email, ""}] = record.Suppression{Tenant: 1, Email: email, CreatedAt: r.clock.now()}
	}
	ts := httptest.NewServer(r.server.Handler())
	t.Cleanup(ts.Close)
	r.store.failFrom("FindSuppressions", 2, errors.New("gone"))
	var file bytes.Buffer
	if err := api.NewWith(ts.URL, r.read, &http.Client{}).ExportSuppressions(t.Context(), &file); err == nil {
		t.Errorf("an export that broke after %d bytes looks whole", file.Len())
	}
	r.store.failWith(&record.Unavailable{Reason: "database"})
	err := api.NewWith(ts.URL, r.read, &http.Client{}).ExportSuppressions(t.Context(), &file)
	if code(err) != "503 database" {
		t.Errorf("an export that could not begin = %v", err)
	}
}

func FuzzImport(f *testing.F) {
	f.Add("email,stream\nann@example.org,news\n")
	f.Add("email\n\"a\n")
	f.Add("\ufeffemail,expires_at\n'=a@b.co,2030-01-01T00:00:00Z\n\x00\n")
	f.Fuzz(func(t *testing.T, file string) {
		in := newCSVImport(strings.NewReader(file), "", time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
		if in.header() != nil {
			return
		}
		for {
			batch, err := in.batch()
			for _, x := range batch {
				if a, err := mail.ParseAddress(x.Email); err != nil || a.Email != x.Email || x.Origin != "import" {
					t.Errorf("%q gives %+v", file, x)
				}
				row := csvRow(&x)
				if uncell(row[0]) != x.Email || uncell(row[1]) != x.Stream {
					t.Errorf("%+v is exported as %q", x, row)
				}
			}
			if err != nil {
				return
			}
		}
	})
}
