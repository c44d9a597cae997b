//go:build unix

package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const trap = "SENDGATE_URL=http://127.0.0.1:1\nSENDGATE_ADMIN_KEY=theirs\nSENDGATE_DATABASE_URL=postgres://trap\n"

// A file that somebody else could have written is refused: no key of the environment goes to its address, and the command
// does not run.
func TestFileOfAnotherUserLeadsNowhere(t *testing.T) {
	t.Parallel()
	const other = 54321
	chown := func(t *testing.T, path string) {
		t.Helper()
		if os.Geteuid() != 0 {
			t.Skip("only root can make files of another user")
		}
		if err := os.Lchown(path, other, other); err != nil {
			t.Fatal(err)
		}
	}
	chmod := func(t *testing.T, path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		lay  func(t *testing.T, dir, file string)
		says string // "" for taken
	}{
		"ours":                        {func(*testing.T, string, string) {}, ""},
		"ours, that others may read":  {func(t *testing.T, _, file string) { chmod(t, file, 0o644) }, ""},
		"of another user":             {func(t *testing.T, _, file string) { chown(t, file) }, "belongs to user 54321"},
		"in a folder of another user": {func(t *testing.T, dir, _ string) { chown(t, dir) }, "belongs to user 54321"},
		"that a group may write":      {func(t *testing.T, _, file string) { chmod(t, file, 0o620) }, "chmod go-w"},
		"that others may write":       {func(t *testing.T, _, file string) { chmod(t, file, 0o602) }, "chmod go-w"},
		"in a folder that a group may write": {
			func(t *testing.T, dir, _ string) { chmod(t, dir, 0o770) }, "chmod go-w",
		},
		"in a folder such as /tmp": {func(t *testing.T, dir, _ string) { chmod(t, dir, 0o777|os.ModeSticky) }, "chmod go-w"},
		"by a link of another user": {func(t *testing.T, dir, _ string) {
			if err := os.Rename(dir, dir+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir+".real", dir); err != nil {
				t.Fatal(err)
			}
			chown(t, dir)
		}, "belongs to user 54321"},
		"by a link of ours": {func(t *testing.T, dir, _ string) {
			if err := os.Rename(dir, dir+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir+".real", dir); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"by a link of ours to a folder of another user": {func(t *testing.T, dir, _ string) {
			if err := os.Rename(dir, dir+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir+".real", dir); err != nil {
				t.Fatal(err)
			}
			chown(t, dir+".real")
		}, "belongs to user 54321"},
		"that is a link out of the folder": {func(t *testing.T, dir, file string) {
			if err := os.Rename(file, dir+".env"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir+".env", file); err != nil {
				t.Fatal(err)
			}
		}, "dev.env"},
		"that is no file": {func(t *testing.T, _, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(file, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{t: t, dir: t.TempDir()}
			writeDevEnv(t, w.dir, trap)
			c.lay(t, filepath.Join(w.dir, ".sendgate"), filepath.Join(w.dir, devEnv))
			s := &Streams{Dir: w.dir}
			_, err := s.target()
			dsn, dsnErr := s.databaseURL()
			_, docErr := s.doctorEnv()
			for what, err := range map[string]error{"target": err, "database": dsnErr, "doctor": docErr} {
				if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, want %q", what, err, c.says)
				}
			}
			if c.says != "" && dsn != "" {
				t.Errorf("database of the file = %s", dsn)
			}
		})
	}
}

// Address and key come from one source.
func TestKeysAndAddressesAreNotMixed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env, says string
	}{
		{"SENDGATE_ADMIN_KEY=mine", "SENDGATE_ADMIN_KEY is set and SENDGATE_URL is not"},
		{"SENDGATE_API_KEY=mine", "SENDGATE_API_KEY is set and SENDGATE_URL is not"},
		{"SENDGATE_URL=https://m.example", "no admin key"},
		{"SENDGATE_ADMIN_URL=https://m.example", "no admin key"},
	} {
		w := &world{t: t, dir: t.TempDir(), env: []string{c.env}}
		writeDevEnv(t, w.dir, trap)
		w.run("queue").want(t, 1, "", c.says)
	}
	w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_ADMIN_URL=https://m.example", "SENDGATE_API_KEY=k"}}
	w.run("messages", "list").want(t, 1, "", "set SENDGATE_URL as well")
}

// A key goes by http only to this machine, and the error never repeats an address that may contain a password.
func TestKeysGoInClearToThisMachineOnly(t *testing.T) {
	t.Parallel()
	for raw, says := range map[string]string{
		"http://127.0.0.1:8025":                 "",
		"http://127.9.9.9":                      "",
		"HTTP://LOCALHOST:8025":                 "",
		"http://[::1]:8025":                     "",
		"http://[::ffff:127.0.0.1]:8025":        "",
		"https://send.example.com/base":         "",
		"http://send.example.com":               "without TLS",
		"http://10.0.0.1":                       "without TLS",
		"http://0.0.0.0:8025":                   "without TLS",
		"http://[::]:8025":                      "without TLS",
		"http://localhost.evil.example":         "without TLS",
		"http://127.0.0.1.evil.example":         "without TLS",
		"http://2130706433":                     "without TLS",
		"http://127.1":                          "without TLS",
		"http://localhost:hunter2@evil.example": "no user",
		"https://me:hunter2@send.example.com":   "no user",
		"https://send.example.com/?hunter2":     "no user, query",
		"https://send.example.com?":             "no user, query",
		"https://send.example.com/#":            "no user, query",
		"ftp://hunter2.example":                 "must be http(s)",
		"hunter2":                               "must be http(s)",
		`http://127.0.0.1\@evil.example`:        "must be http(s)",
	} {
		for _, name := range []string{"SENDGATE_URL", "SENDGATE_ADMIN_URL"} {
			s := &Streams{Env: []string{name + "=" + raw}}
			_, err := s.target()
			if (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("%s=%s: %v, want %q", name, raw, err, says)
			}
			s.Env = append(s.Env, "SENDGATE_ALLOW_HTTP=true")
			if _, err := s.target(); says == "without TLS" && err != nil {
				t.Errorf("%s=%s, allowed: %v", name, raw, err)
			}
		}
	}
	s := &Streams{Env: []string{"SENDGATE_URL=http://10.0.0.1", "SENDGATE_ALLOW_HTTP=perhaps"}}
	if _, err := s.target(); err == nil || !strings.Contains(err.Error(), "SENDGATE_ALLOW_HTTP") {
		t.Errorf("SENDGATE_ALLOW_HTTP=perhaps: %v", err)
	}
}

// Neither a redirect nor a proxy gets the key. Not parallel: it sets the environment of the process.
func TestKeysTravelNoFurther(t *testing.T) {
	var stolen atomic.Int64
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			stolen.Add(1)
		}
	}))
	defer thief.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	t.Setenv("HTTP_PROXY", thief.URL)
	t.Setenv("http_proxy", thief.URL)
	for _, at := range []string{server.URL, "http://sendgate.invalid"} {
		w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_URL=" + at, "SENDGATE_ADMIN_KEY=k", "SENDGATE_ALLOW_HTTP=1"}}
		w.run("queue").want(t, 1, "", "")
	}
	if n := stolen.Load(); n > 0 {
		t.Errorf("the key went to another server %d times", n)
	}
}
