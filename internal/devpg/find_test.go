//go:build linux || darwin || freebsd

package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakePrograms writes programs into dir that claim to be of a version.
func fakePrograms(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s'\n", version)
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// offline is a download that does not work.
func offline(context.Context, int) (string, error) { return "", errors.New("no network") }

func TestFindPrefersPathThenTheNewest(t *testing.T) {
	t.Parallel()
	root := openDir(t)
	old := fakePrograms(t, filepath.Join(root, "old"), "14.9")
	fakePrograms(t, filepath.Join(root, "lib", "9.6", "bin"), "9.6.24")
	in15 := fakePrograms(t, filepath.Join(root, "lib", "15", "bin"), "15.18 (Debian 15.18-0+deb12u1)")
	in16 := fakePrograms(t, filepath.Join(root, "lib", "16", "bin"), "16beta1")
	in17 := fakePrograms(t, filepath.Join(root, "path"), "17.5")
	linked := filepath.Join(root, "linked")
	if err := errors.Join(os.Mkdir(linked, 0o755), os.Symlink(filepath.Join(in15, "postgres"), filepath.Join(linked, "postgres"))); err != nil {
		t.Fatal(err)
	}
	lonely := filepath.Join(root, "lonely")
	if err := errors.Join(os.Rename(fakePrograms(t, lonely+"2", "18.1"), lonely), os.Remove(filepath.Join(lonely, "initdb"))); err != nil {
		t.Fatal(err)
	}
	globs := []string{filepath.Join(root, "lib", "*", "bin")}
	for _, c := range []struct {
		name  string
		path  []string
		major int
		want  string
	}{
		{"PATH first", []string{in17}, 0, in17},
		{"through a symbolic link", []string{linked}, 0, in15},
		{"PATH too old", []string{old}, 0, in16},
		{"PATH without initdb", []string{lonely}, 0, in16},
		{"relative PATH", []string{"", "."}, 0, in16},
		{"version of the data", []string{in17}, 15, in15},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := search{path: c.path, globs: globs, fetch: offline}
			got, err := s.find(t.Context(), c.major, nil)
			if err != nil || got.bin != c.want {
				t.Errorf("find = %v, %v; want %s", got.bin, err, c.want)
			}
		})
	}
}

func TestFindFetchesAsALastResort(t *testing.T) {
	t.Parallel()
	root := openDir(t)
	old := fakePrograms(t, filepath.Join(root, "old"), "14.9")
	downloaded := fakePrograms(t, filepath.Join(root, "new"), "17.5")
	s := search{path: []string{old}, fetch: func(context.Context, int) (string, error) { return downloaded, nil }}
	got, err := s.find(t.Context(), 0, nil)
	if want := (programs{bin: downloaded, major: 17}); err != nil || got != want {
		t.Errorf("find = %v, %v; want %v", got, err, want)
	}
}

func TestNoProgramsListsTheWaysOut(t *testing.T) {
	t.Parallel()
	root := openDir(t)
	old := fakePrograms(t, filepath.Join(root, "old"), "14.9")
	s := newStarter(Options{Dir: filepath.Join(root, "pg")}, "")
	s.search = search{path: []string{old, filepath.Join(root, "nothing")}, fetch: offline}
	_, err := s.start(t.Context())
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("start = %v, want ErrNoPostgres", err)
	}
	for _, want := range []string{
		old + ": is version 14, older than 15", "download: no network", "apt-get install postgresql", "brew install",
		"SENDGATE_DATABASE_URL", "SENDGATE_TEST_DATABASE_URL", "docker compose up",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestDataOfAnotherVersionSaysSo(t *testing.T) {
	t.Parallel()
	s := search{path: []string{fakePrograms(t, openDir(t), "17.5")}, fetch: offline}
	_, err := s.find(t.Context(), 16, nil)
	if !errors.Is(err, ErrNoPostgres) || !strings.Contains(err.Error(), "version 16") {
		t.Errorf("find = %v, want it to say that version 16 wrote the data", err)
	}
}
