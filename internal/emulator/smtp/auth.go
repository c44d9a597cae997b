package smtp

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 (RFC 2195) is made of it
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string {
	if s.host.Credential("username") == "" {
		return nil
	}
	return []string{sasl.Plain, sasl.Login, "CRAM-MD5"}
}

// Auth implements smtp.AuthSession.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, user, password string) error { return s.letIn(user, password) }), nil
	case sasl.Login:
		return &login{done: s.letIn}, nil
	case "CRAM-MD5":
		return &cramMD5{s: s}, nil
	}
	return nil, reply(535, 5, 7, 8, "Error: authentication failed: Invalid authentication mechanism")
}

func (s *session) letIn(user, password string) error {
	if !emulator.Same(user, s.host.Credential("username")) || !emulator.Same(password, s.host.Credential("password")) {
		return reply(535, 5, 7, 8, "Error: authentication failed: authentication failure")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authed = true
	return nil
}

// login is LOGIN in the form of Cyrus SASL: it accepts the user name with the command, or asks for it.
type login struct {
	user  *string
	asked bool
	done  func(user, password string) error
}

// Next implements sasl.Server.
func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case l.user == nil && response == nil && !l.asked:
		l.asked = true
		return []byte("Username:"), false, nil
	case l.user == nil:
		user := string(response)
		l.user = &user
		return []byte("Password:"), false, nil
	}
	return nil, true, l.done(*l.user, string(response))
}

// cramMD5 is CRAM-MD5 (RFC 2195).
type cramMD5 struct {
	s         *session
	challenge string
}

// Next implements sasl.Server.
func (c *cramMD5) Next(response []byte) (challenge []byte, done bool, err error) {
	if c.challenge == "" {
		c.challenge = fmt.Sprintf("<%s@%s>", uuid.NewString(), relayName)
		return []byte(c.challenge), false, nil
	}
	user, digest, _ := strings.Cut(string(response), " ")
	password := c.s.host.Credential("password")
	mac := hmac.New(md5.New, []byte(password))
	mac.Write([]byte(c.challenge))
	if !emulator.Same(digest, hex.EncodeToString(mac.Sum(nil))) {
		password = "" // no login succeeds with this
	}
	return nil, true, c.s.letIn(user, password)
}
