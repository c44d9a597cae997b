package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/seal"
)

// devEnv is where "sendgate dev" leaves its address and keys.
const devEnv = ".sendgate/dev.env"

// clientKeys are the variables with the keys of client commands. Each may be set by a file, as the secrets of serve.
var clientKeys = []string{"SENDGATE_API_KEY", "SENDGATE_ADMIN_KEY"}

// target is the installation that a client command talks to.
type target struct {
	url, adminURL    string // adminURL is url if the admin API has no address of its own
	apiKey, adminKey seal.Secret
}

// target reads addresses and keys from one source: from the environment if it names a server, else from the file that
// "sendgate dev" left. A key from one source must not be sent to an address from the other.
func (s *Streams) target() (target, error) {
	environ, err := config.WithSecrets(s.Env, clientKeys...)
	if err != nil {
		return target{}, err
	}
	own := Streams{Env: environ, Dir: s.Dir}
	get := own.getenv
	if s.getenv("SENDGATE_URL")+s.getenv("SENDGATE_ADMIN_URL") == "" {
		vars, err := own.devTarget()
		if err != nil {
			return target{}, err
		}
		get = func(name string) string { return vars[name] }
	}
	t := target{
		url:      strings.TrimRight(get("SENDGATE_URL"), "/"),
		adminURL: strings.TrimRight(cmp.Or(get("SENDGATE_ADMIN_URL"), get("SENDGATE_URL")), "/"),
		apiKey:   seal.NewSecret(get("SENDGATE_API_KEY")),
		adminKey: seal.NewSecret(get("SENDGATE_ADMIN_KEY")),
	}
	plain, err := s.allowsHTTP()
	if err != nil {
		return target{}, err
	}
	for name, raw := range map[string]string{"SENDGATE_URL": get("SENDGATE_URL"), "SENDGATE_ADMIN_URL": get("SENDGATE_ADMIN_URL")} {
		if err := checkURL(name, raw, plain); raw != "" && err != nil {
			return target{}, err
		}
	}
	return t, nil
}

// devTarget reads the file that "sendgate dev" left.
func (s *Streams) devTarget() (map[string]string, error) {
	vars, err := readEnvFile(s.path(devEnv))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoServer
	case err != nil:
		return nil, err
	case vars["SENDGATE_URL"] == "":
		return nil, fmt.Errorf("./%s has no SENDGATE_URL: set it there or in the environment", devEnv)
	}
	for _, name := range clientKeys {
		if v := s.getenv(name); v != "" && v != vars[name] {
			return nil, fmt.Errorf("%s is set and SENDGATE_URL is not: the key would go to the address in ./%s. Set SENDGATE_URL as well, or unset %[1]s", name, devEnv)
		}
	}
	return vars, nil
}

func (s *Streams) allowsHTTP() (bool, error) {
	v := s.getenv("SENDGATE_ALLOW_HTTP")
	if v == "" {
		return false, nil
	}
	allows, err := strconv.ParseBool(v)
	if err != nil {
		return false, errors.New("SENDGATE_ALLOW_HTTP must be true or false")
	}
	return allows, nil
}

// checkURL refuses a URL to which a key can't be sent safely, and one that misleads about where the key goes. The error does not
// repeat the whole URL, which may contain a password.
func checkURL(name, raw string, plain bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%s must be http(s)://host[:port][/path]", name)
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return fmt.Errorf("%s must have no user, query or fragment", name)
	case u.Scheme == "http" && !plain && !loopback(u.Hostname()):
		return fmt.Errorf("%s leads to %q without TLS, so everybody on the way could read the key: use https://, "+
			"or set SENDGATE_ALLOW_HTTP=true if you trust the network in between", name, u.Host)
	}
	return nil
}

// loopback reports whether a host is this machine. A name that only begins with a loopback name is not.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// readEnvFile reads KEY=VALUE lines. It skips blank lines and lines that begin with #, and removes "export " before the name and
// one pair of quotes around the value. It expands nothing. It refuses a file that another user could have written, since the
// file decides where keys are sent.
func readEnvFile(path string) (map[string]string, error) {
	f, err := config.OpenOwned(path)
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
