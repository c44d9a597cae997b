package smtp

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/sendgate/sendgate/internal/seal"
)

// ParseURL turns SMTP_RELAY_URL, such as smtp://user:pass@mail.example.com:587?tls=starttls, into the input of ParseConfig.
// The scheme smtps means implicit TLS. The query may set tls, auth, helo, envelope_from, bounce_domain, server_name,
// allow_plaintext and smtputf8; anything else in it is an error. With bounce_domain it makes a random verp_key, which only the
// account has to know. No error quotes the URL, which may hold a password.
func ParseURL(raw string) ([]byte, map[string]seal.Secret, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, errors.New("smtp relay url: not a url")
	}
	if u.Scheme != "smtp" && u.Scheme != "smtps" {
		return nil, nil, errors.New("smtp relay url: want the scheme smtp or smtps")
	}
	if u.Hostname() == "" || (u.Path != "" && u.Path != "/") || u.Fragment != "" || u.Opaque != "" {
		return nil, nil, errors.New("smtp relay url: want smtp://user:password@host:port?tls=starttls")
	}
	s := settings{Host: u.Hostname(), Username: u.User.Username()}
	if u.Scheme == "smtps" {
		s.TLS = Implicit
	}
	if p := u.Port(); p != "" {
		if s.Port, err = strconv.Atoi(p); err != nil {
			return nil, nil, errors.New("smtp relay url: port is not a number")
		}
	}
	if err := s.fromQuery(u.RawQuery); err != nil {
		return nil, nil, err
	}
	secrets := map[string]seal.Secret{}
	if password, ok := u.User.Password(); ok {
		secrets[passwordName] = seal.NewSecret(password)
	}
	if s.BounceDomain != "" {
		secrets[verpKeyName] = seal.NewSecret(rand.Text() + rand.Text()) // 52 characters
	}
	out, err := json.Marshal(&s)
	if err != nil {
		return nil, nil, fmt.Errorf("smtp relay url: %w", err)
	}
	_, err = ParseConfig(out, secrets)
	return out, secrets, err
}

// fromQuery reads the parameters of the query. Each may occur once.
func (s *settings) fromQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return errors.New("smtp relay url: malformed query")
	}
	texts := map[string]*string{
		"auth": &s.Auth, "helo": &s.Helo, "envelope_from": &s.EnvelopeFrom, "bounce_domain": &s.BounceDomain, "server_name": &s.ServerName, "tls": (*string)(&s.TLS),
	}
	flags := map[string]*bool{"allow_plaintext": &s.AllowPlaintext, "smtputf8": &s.SMTPUTF8}
	for name, values := range query {
		if len(values) != 1 {
			return fmt.Errorf("smtp relay url: %q stands more than once", name)
		}
		if field, ok := texts[name]; ok {
			*field = values[0]
			continue
		}
		flag, ok := flags[name]
		if !ok {
			return fmt.Errorf("smtp relay url: unknown parameter %q", name)
		}
		if *flag, err = strconv.ParseBool(values[0]); err != nil {
			return fmt.Errorf("smtp relay url: %s: want true or false", name)
		}
	}
	return nil
}
