package emulator_test

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// cramMD5 is the client's side of CRAM-MD5.
type cramMD5 struct{ user, password string }

func (cramMD5) Start() (string, []byte, error) { return "CRAM-MD5", nil, nil }

func (c cramMD5) Next(challenge []byte) ([]byte, error) {
	mac := hmac.New(md5.New, []byte(c.password))
	mac.Write(challenge)
	return []byte(c.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}

// bareLogin is LOGIN without the user name in the command.
type bareLogin struct{ sasl.Client }

func (bareLogin) Start() (string, []byte, error) { return "LOGIN", nil, nil }

func (l bareLogin) Next(challenge []byte) ([]byte, error) {
	if string(challenge) == "Username:" {
		_, user, err := l.Client.Start()
		return user, err
	}
	return l.Client.Next(challenge)
}

func TestSMTPTakesSeveralMechanisms(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	for name, by := range map[string]func(password string) sasl.Client{
		"PLAIN": func(password string) sasl.Client { return sasl.NewPlainClient("", key("smtp", "username"), password) },
		"LOGIN": func(password string) sasl.Client { return sasl.NewLoginClient(key("smtp", "username"), password) },
		"LOGIN, in turn": func(password string) sasl.Client {
			return bareLogin{sasl.NewLoginClient(key("smtp", "username"), password)}
		},
		"CRAM-MD5": func(password string) sasl.Client { return cramMD5{key("smtp", "username"), password} },
	} {
		wantReply(t, b.dial(t).Auth(by("wrong")), 535, smtp.EnhancedCode{5, 7, 8}, "authentication failed")
		c := b.dial(t)
		if err := c.Auth(by(key("smtp", "password"))); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := deliver(c, mimeMessage, "ann@example.org"); err != nil {
			t.Errorf("%s: deliver: %v", name, err)
		}
	}
}
