// Package eventjson holds what the events of all providers that come as JSON have in common.
//
// It decides how an address, a link and an unreadable event are stored. The meaning of every field is left to the adapter of
// the provider that wrote it.
package eventjson

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// Unreadable is the name of an event that is authentic but cannot be read.
const Unreadable = "unreadable"

// maxLink caps the address of a click, in bytes.
const maxLink = 2000

// Address is the canonical form of an address. If the text is not an address, it is the text itself, shortened: some events name
// nobody, or use another form.
func Address(s string) string {
	if a, err := mail.ParseAddress(s); err == nil {
		return a.Email
	}
	return provider.Cut(s)
}

// Link caps a URL and removes characters that no URL has, so that it can be stored and shown.
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

// Digest distinguishes events that have no other distinguishing value.
func Digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
