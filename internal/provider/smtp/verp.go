package smtp

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/seal"
)

// The form of a bounce address: b+<message id, 32 hex>.<10 base32>@<bounce domain>. The local part has 45 of the 64
// characters that RFC 5321 section 4.5.3.1.1 allows. 50 bits of MAC can't be guessed by asking a server.
const (
	verpPrefix      = "b+"
	verpMAC         = 10
	verpLabel       = "sendgate bounce address\x00" // so that no other use of the key gives the same bytes
	minVERPKey      = 32
	maxBounceDomain = 200 // keeps the address under the 254 of RFC 5321 section 4.5.3.1.3

	// complaintBox is the local part at the bounce domain to which feedback loops send complaints.
	complaintBox = "fbl"
)

var (
	verpLocal    = regexp.MustCompile(`^b\+([0-9a-f]{32})\.([a-z2-7]{10})$`)
	verpAnywhere = regexp.MustCompile(`(?i)b\+[0-9a-f]{32}\.[a-z2-7]{10}@[0-9a-z._-]{1,253}`)
	verpEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)
)

// verp makes and verifies the bounce addresses of one account: variable envelope return paths, one per message.
//
// A recipient can read the address in Return-Path, and can write anything to it. A sole recipient could only forge a report about
// themselves. One of several could name the others, so a report of such a message is recorded, but suppresses nobody
// (mail.Event.ByMessage). An address for each recipient would need a transaction for each, and a message leaves in one. ENVID
// would not help: it reaches the server of each recipient, and so whoever runs one. ORCPT differs by recipient, but must be their
// address, which is no secret; a token in its place would show up on servers that deliver by it.
type verp struct {
	domain string // lower case
	key    seal.Secret
}

func newVERP(cfg Config) *verp {
	if cfg.BounceDomain == "" {
		return nil
	}
	return &verp{domain: strings.ToLower(cfg.BounceDomain), key: cfg.VERPKey}
}

// address returns the bounce address of a message.
func (v *verp) address(id mail.ID) string {
	return verpPrefix + hex.EncodeToString(id[:]) + "." + v.mac(id) + "@" + v.domain
}

func (v *verp) mac(id mail.ID) string {
	h := hmac.New(sha256.New, []byte(v.key.Reveal()))
	_, _ = h.Write([]byte(verpLabel))
	_, _ = h.Write(id[:])
	return strings.ToLower(verpEncoding.EncodeToString(h.Sum(nil)))[:verpMAC]
}

// open reads the message id from a bounce address, if we made it. Hosts on the way may have changed its case.
func (v *verp) open(addr string) (mail.ID, bool) {
	local, domain, ok := strings.Cut(strings.ToLower(addr), "@")
	if !ok || domain != v.domain {
		return mail.ID{}, false
	}
	id, mac, ok := splitVERP(local)
	return id, ok && hmac.Equal([]byte(mac), []byte(v.mac(id)))
}

// splitVERP reads the parts of a lower-case local part. It does not check the MAC.
func splitVERP(local string) (mail.ID, string, bool) {
	m := verpLocal.FindStringSubmatch(local)
	if m == nil {
		return mail.ID{}, "", false
	}
	var id mail.ID
	if _, err := hex.Decode(id[:], []byte(m[1])); err != nil {
		return mail.ID{}, "", false
	}
	return id, m[2], true
}

// isComplaintBox reports whether the address is the complaint box for feedback loops.
func (v *verp) isComplaintBox(addr string) bool {
	return strings.EqualFold(addr, complaintBox+"@"+v.domain)
}

// search finds the first of our bounce addresses in a text.
func (v *verp) search(text []byte) (string, mail.ID, bool) {
	for _, found := range verpAnywhere.FindAll(text, 100) {
		if id, ok := v.open(string(found)); ok {
			return string(found), id, true
		}
	}
	return "", mail.ID{}, false
}
