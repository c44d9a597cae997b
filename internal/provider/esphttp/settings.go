package esphttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/sendgate/sendgate/internal/seal"
)

// DecodeSettings reads an account's settings strictly: an unknown field, a value of another type or anything after the
// object is an error. Nothing at all, or null, leaves the settings as they are.
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

// CheckCredential returns an error unless the secret is set and can stand in a header: no spaces, no control
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

// CheckBaseURL returns an error unless s is an absolute http or https URL without user, query and fragment. Plain http
// is for emulators.
func CheckBaseURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("base_url is not an absolute http or https URL")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return errors.New("base_url holds a user, a query or a fragment")
	}
	return nil
}
