package esphttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/seal"
)

// DecodeSettings reads an account's settings strictly: an unknown field, a value of another type or anything after the object is
// an error. An empty text or null leaves the settings unchanged.
func DecodeSettings(settings []byte, into any) error {
	if len(bytes.TrimSpace(settings)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(settings))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("settings: more than one JSON value")
	}
	return nil
}

// OnlySecrets returns an error that names a secret not among known, or nil.
func OnlySecrets(secrets map[string]seal.Secret, known ...string) error {
	for name := range secrets {
		found := false
		for _, k := range known {
			found = found || k == name
		}
		if !found {
			return fmt.Errorf("settings: unknown secret %q", name)
		}
	}
	return nil
}

// CheckCredential returns an error unless the secret is set and is valid in a header: no spaces, no control
// characters. The error names the setting and never holds the value.
func CheckCredential(name string, s seal.Secret) error {
	if s.IsZero() {
		return fmt.Errorf("%s is missing", name)
	}
	if strings.ContainsFunc(s.Reveal(), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("%s holds a space or a character that is not printable ASCII", name)
	}
	return nil
}

// Settings declares provider.Spec.Settings for an adapter that calls one API. base_url, the settings that widen it, and the
// directing ones decide where the secrets go; the others do not.
func Settings(secrets, directing []string, others ...string) map[string][]string {
	all := map[string][]string{}
	for _, name := range append(directing, "base_url", "allow_plaintext", "allow_private") {
		all[name] = secrets
	}
	for _, name := range others {
		all[name] = nil
	}
	return all
}

// Reach widens the set of addresses that the base_url of an account may lead to. Adapters embed it in their Config.
type Reach struct {
	AllowPlaintext bool `json:"allow_plaintext,omitempty"` // http: everybody on the way can read credentials and mail
	AllowPrivate   bool `json:"allow_private,omitempty"`   // addresses that are not on the public internet
}

// CheckBaseURL returns an error unless s is an absolute https URL of a public host, without user, query and fragment. Plain http
// is for emulators on this machine. For other hosts, and for addresses that are not public, Reach must allow it. The addresses
// of a name are checked when it is called (Options.BaseURL).
func (r Reach) CheckBaseURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("base_url is not an absolute http or https URL")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return errors.New("base_url holds a user, a query or a fragment")
	}
	bars, err := r.bars(u)
	switch {
	case err != nil:
		return errors.New("base_url has no valid port")
	case jail.IsLoopback(u.Hostname()):
		return nil
	case u.Scheme == "http" && !r.AllowPlaintext:
		return errors.New("base_url begins with http://: use https://, or set allow_plaintext if credentials and mail may be read on the way")
	case bars == nil:
		return nil
	}
	if err := jail.CheckURL(s, *bars); err != nil {
		return fmt.Errorf("base_url: %w; set allow_private if a private network is meant", err)
	}
	return nil
}

// bars are the restrictions on the addresses of a base URL; nil means none.
func (r Reach) bars(base *url.URL) (*jail.Options, error) {
	text := base.Port()
	if text == "" {
		text = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	port, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err != nil || port == 0:
		return nil, errors.New("no port")
	case jail.IsLoopback(base.Hostname()):
		return &jail.Options{Allow: jail.Loopback(uint16(port))}, nil
	case r.AllowPrivate:
		return nil, nil //nolint:nilnil // no bars
	}
	return &jail.Options{Ports: []uint16{uint16(port)}}, nil
}
