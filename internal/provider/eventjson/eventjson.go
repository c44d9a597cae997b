// Package eventjson holds what the events of all providers need alike that come as JSON.
//
// It decides in which form an address, a link and an event that nobody could read are kept. It leaves the meaning of every field
// to the adapter whose provider wrote it.
package eventjson

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// Unreadable is the name of an event that is authentic and cannot be read.
const Unreadable = "unreadable"

// maxLink caps the address of a click, in bytes.
const maxLink = 2000

// Address is the canonical form of an address, or the text itself, shortened, if it is none: some events name nobody, or
// somebody in another form.
func Address(s string) string {
	if a, err := mail.ParseAddress(s); err == nil {
		return a.Email
	}
	return provider.Cut(s)
}

// Link caps a URL and takes out what no URL holds, so that it can be stored and shown.
func Link(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > maxLink {
		s = strings.ToValidUTF8(s[:maxLink], "")
	}
	return s
}

// Digest tells events apart that have nothing else to tell them by.
func Digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
