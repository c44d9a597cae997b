//go:build linux || darwin || freebsd

package devpg

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// archive returns a package as the repository has it: a zip file with a tar.xz file of programs.
func archive(t *testing.T) []byte {
	t.Helper()
	programs, err := os.ReadFile("testdata/programs.txz")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("postgres-linux-x86_64.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(programs); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFetchDownloadsOnce(t *testing.T) {
	t.Parallel()
	body := archive(t)
	var asked atomic.Int32
	repo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, ".jar") {
			http.NotFound(w, r)
			return
		}
		asked.Add(1)
		_, _ = w.Write(body)
	}))
	defer repo.Close()
	var said []string
	f := fetcher{cache: openDir(t), repo: repo.URL, logf: func(format string, _ ...any) { said = append(said, format) }}
	for range 2 {
		bin, err := f.fetch(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := probe(t.Context(), bin, nil)
		if err != nil || got.major != 17 {
			t.Errorf("probe of fetched programs = %v, %v; want version 17", got, err)
		}
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("downloads = %d, want 1", got)
	}
	if len(said) != 1 || !strings.Contains(said[0], "downloading") {
		t.Errorf("said %q, want one line about a download", said)
	}
	eventually(t, "the cache holds nothing but the programs", func() bool {
		left, err := filepath.Glob(filepath.Join(f.cache, "*"))
		return err == nil && len(left) == 1
	})
}

func TestFetchReportsWhyItFailed(t *testing.T) {
	t.Parallel()
	repo := httptest.NewServer(http.NotFoundHandler())
	defer repo.Close()
	f := fetcher{cache: openDir(t), repo: repo.URL, logf: t.Logf}
	if bin, err := f.fetch(t.Context(), 16); err == nil {
		t.Errorf("fetch from an empty repository = %s, want an error", bin)
	}
	if bin, err := f.fetch(t.Context(), 12); err == nil || !strings.Contains(err.Error(), "12") {
		t.Errorf("fetch(12) = %s, %v; want an error that names the version", bin, err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("changed my mind")
	release := make(chan struct{})
	repo := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		cancel(reason)
		<-release
	}))
	defer repo.Close()
	defer close(release)
	f := fetcher{cache: openDir(t), repo: repo.URL, logf: func(string, ...any) {}}
	if _, err := f.fetch(ctx, 0); !errors.Is(err, reason) {
		t.Errorf("fetch = %v, want %v", err, reason)
	}
}
