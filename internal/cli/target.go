package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/sendgate/sendgate/internal/seal"
)

// devEnv is where "sendgate dev" leaves its address and keys.
const devEnv = ".sendgate/dev.env"

// target is the installation that a client command talks to.
type target struct {
	url              string
	apiKey, adminKey seal.Secret
}

// target reads the address and the keys. A variable of the environment wins over the file, except that the file is not
// read at all when the environment names the server: its keys belong to its own server and must not travel to another.
func (s *Streams) target() (target, error) {
	vars := map[string]string{}
	if s.getenv("SENDGATE_URL") == "" {
		read, err := readEnvFile(s.path(devEnv))
		if errors.Is(err, fs.ErrNotExist) {
			return target{}, errors.New("no server to talk to: set SENDGATE_URL (and SENDGATE_API_KEY or SENDGATE_ADMIN_KEY), " +
				"or run this in the directory where \"sendgate dev\" runs, which leaves them in ./" + devEnv)
		}
		if err != nil {
			return target{}, err
		}
		vars = read
	}
	get := func(name string) string {
		if v := s.getenv(name); v != "" {
			return v
		}
		return vars[name]
	}
	t := target{
		url:      strings.TrimRight(get("SENDGATE_URL"), "/"),
		apiKey:   seal.NewSecret(get("SENDGATE_API_KEY")),
		adminKey: seal.NewSecret(get("SENDGATE_ADMIN_KEY")),
	}
	if t.url == "" {
		return target{}, fmt.Errorf("./%s has no SENDGATE_URL: set it there or in the environment", devEnv)
	}
	return t, nil
}

// readEnvFile reads KEY=VALUE lines. Blank lines and lines that begin with # are skipped; "export " before the name and
// one pair of quotes around the value are taken off. Nothing is expanded.
func readEnvFile(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	vars := map[string]string{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok {
			return nil, fmt.Errorf("read settings: %s line %d is not KEY=VALUE", path, n)
		}
		vars[strings.TrimSpace(name)] = unquote(strings.TrimSpace(value))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return vars, nil
}

func unquote(v string) string {
	if n := len(v); n >= 2 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
		return v[1 : n-1]
	}
	return v
}
