package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeDevEnv(t *testing.T, dir, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, ".sendgate"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, devEnv), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ownDir is a directory that only we may write to, whatever the umask.
func ownDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "own")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTargetComesFromEnvironmentElseFromDevEnv(t *testing.T) {
	t.Parallel()
	const file = "SENDGATE_URL=http://127.0.0.1:8025/\nSENDGATE_API_KEY=file-api\nSENDGATE_ADMIN_KEY=file-admin\n"
	for _, c := range []struct {
		name, file     string
		env            []string
		url, api, admn string
	}{
		{"file", file, nil, "http://127.0.0.1:8025", "file-api", "file-admin"},
		{"key of the file in the environment", file, []string{"SENDGATE_API_KEY=file-api"}, "http://127.0.0.1:8025", "file-api", "file-admin"},
		{"environment", "", []string{"SENDGATE_URL=https://m.example", "SENDGATE_API_KEY=k"}, "https://m.example", "k", ""},
		{"keys of the file do not travel to another server", file, []string{"SENDGATE_URL=https://m.example"}, "https://m.example", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := Streams{Env: c.env, Dir: t.TempDir()}
			if c.file != "" {
				writeDevEnv(t, s.Dir, c.file)
			}
			got, err := s.target()
			if err != nil {
				t.Fatal(err)
			}
			if got.url != c.url || got.apiKey.Reveal() != c.api || got.adminKey.Reveal() != c.admn {
				t.Errorf("target = %s %s %s, want %s %s %s", got.url, got.apiKey.Reveal(), got.adminKey.Reveal(), c.url, c.api, c.admn)
			}
		})
	}
}

func TestMissingTargetNamesBothWays(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	o := w.run("queue")
	o.want(t, 1, "", "SENDGATE_URL")
	o.want(t, 1, "", "./.sendgate/dev.env")
	w.env = []string{"SENDGATE_URL=http://127.0.0.1:1"}
	w.run("queue").want(t, 1, "", "SENDGATE_ADMIN_KEY")
	w.run("messages", "list").want(t, 1, "", "SENDGATE_API_KEY")
}

func TestEnvFileForms(t *testing.T) {
	t.Parallel()
	path := filepath.Join(ownDir(t), "env")
	content := "# comment\n\n A = 1 \nexport B=\"two words\"\nC='x=y'\nD=\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readEnvFile(path)
	if diff := cmp.Diff(map[string]string{"A": "1", "B": "two words", "C": "x=y", "D": ""}, got); diff != "" || err != nil {
		t.Errorf("readEnvFile: %v (-want +got)\n%s", err, diff)
	}
	if err := os.WriteFile(path, []byte("A=1\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readEnvFile(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("readEnvFile(nonsense) = %v, want the line", err)
	}
}

func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\n# x\nexport B='2'\n")
	f.Add("A=\"\n")
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(ownDir(t), "env")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		vars, err := readEnvFile(path)
		for name, value := range vars {
			if strings.ContainsAny(name+value, "\n") || err != nil {
				t.Errorf("readEnvFile gave %q=%q, %v", name, value, err)
			}
		}
	})
}

func TestKeysComeFromFilesToo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(ownDir(t), "key")
	if err := os.WriteFile(file, []byte("k\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := Streams{Dir: t.TempDir(), Env: []string{"SENDGATE_URL=https://m.example", "SENDGATE_API_KEY_FILE=" + file, "SENDGATE_ADMIN_KEY_FILE=" + file}}
	if got, err := s.target(); err != nil || got.apiKey.Reveal() != "k" || got.adminKey.Reveal() != "k" {
		t.Errorf("target = %v, %v; want the keys of the file", got, err)
	}
	s.Env = append(s.Env, "SENDGATE_API_KEY=other")
	if _, err := s.target(); err == nil || !strings.Contains(err.Error(), "SENDGATE_API_KEY_FILE") {
		t.Errorf("target with a key and a file = %v, want an error", err)
	}
	writeDevEnv(t, s.Dir, "SENDGATE_URL=http://127.0.0.1:8025/\nSENDGATE_API_KEY=file-api\n")
	s.Env = []string{"SENDGATE_API_KEY_FILE=" + file}
	if _, err := s.target(); err == nil || !strings.Contains(err.Error(), "SENDGATE_URL is not") {
		t.Errorf("target with a key of a file and no address = %v, want an error", err)
	}
}

func TestTheDatabaseOfMigrateComesFromAFileToo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(ownDir(t), "url")
	if err := os.WriteFile(file, []byte("postgres://owner@db/sendgate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := Streams{Dir: t.TempDir(), Env: []string{"SENDGATE_DATABASE_URL_FILE=" + file}}
	if dsn, err := s.databaseURL(); err != nil || dsn != "postgres://owner@db/sendgate" {
		t.Errorf("databaseURL = %q, %v", dsn, err)
	}
	if environ, err := s.doctorEnv(); err != nil || len(environ) != 1 {
		t.Errorf("doctorEnv = %v, %v; want nothing of a dev.env", environ, err)
	}
}
