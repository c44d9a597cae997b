package providertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update is a flag of the test binary, which is why it is a global.
var update = flag.Bool("update", false, "write the golden files in testdata instead of comparing with them")

// Golden compares got with testdata/name, or writes it when the test runs with -update.
func Golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read golden file (go test -update writes it): %v", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("request differs from %s (-want +got):\n%s", path, diff)
	}
}

// Render writes a request as text: method, path with query, the media type, and the body. JSON is indented. The fields of a
// form are decoded and listed in their order. Any other body is not changed. Other headers are left out, because they hold
// credentials.
func Render(t *testing.T, r *http.Request, body []byte) []byte {
	t.Helper()
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		t.Fatalf("Content-Type of the request: %v", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\nContent-Type: %s\n\n", r.Method, r.URL.RequestURI(), kind)
	switch kind {
	case "application/json":
		if err := json.Indent(&b, body, "", "  "); err != nil {
			t.Fatalf("body of the request: %v", err)
		}
	case "multipart/form-data":
		renderParts(t, &b, body, params["boundary"])
	case "application/x-www-form-urlencoded":
		renderForm(t, &b, body)
	default:
		b.Write(body)
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

func renderParts(t *testing.T, b *bytes.Buffer, body []byte, boundary string) {
	t.Helper()
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("multipart body of the request: %v", err)
		}
		value, err := io.ReadAll(part)
		if err != nil {
			t.Fatalf("multipart body of the request: %v", err)
		}
		fmt.Fprintf(b, "%s", part.FormName())
		if part.FileName() != "" {
			fmt.Fprintf(b, " [file %q, %s]", part.FileName(), part.Header.Get("Content-Type"))
		}
		fmt.Fprintf(b, " = %q\n", value)
	}
}

func renderForm(t *testing.T, b *bytes.Buffer, body []byte) {
	t.Helper()
	form, err := url.ParseQuery(string(body))
	if err != nil {
		t.Fatalf("form body of the request: %v", err)
	}
	keys := make([]string, 0, len(form))
	for k := range form {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(b, "%s = %q\n", k, strings.Join(form[k], " | "))
	}
}
