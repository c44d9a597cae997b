package sendgrid

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/sendgate/sendgate/internal/emulator"
)

// keys sign the events. Here all webhooks share one key; at SendGrid each has its own.
type keys struct {
	private *ecdsa.PrivateKey
	public  string // base64 of an SPKI
}

func (k *keys) make() (err error) {
	if k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fmt.Errorf("make hook key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
	if err != nil {
		return fmt.Errorf("make hook key: %w", err)
	}
	k.public = base64.StdEncoding.EncodeToString(spki)
	return nil
}

func (a *api) Keys() map[string]string {
	return map[string]string{"sendgrid_public_key": a.keys.public}
}

// CompleteHook has nothing to add: every hook is signed with the one key.
func (*api) CompleteHook(emulator.Hook) error { return nil }
