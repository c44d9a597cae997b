package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
)

// cursors makes and opens the marks with which listings go on. A cursor holds the last key that was shown and a MAC
// over that key, the tenant, the listing and its filter, so that it opens nothing but the next page of the same
// question asked by the same tenant.
type cursors struct{ key []byte }

// listing names a listing and what it was asked: the cursor of one is no good for another.
type listing struct {
	name   string // "messages"
	tenant mail.TenantID
	filter string // canonical query without limit and cursor
}

const macLen = 16

// newCursors derives a key of its own from the server's, so that no MAC made here means anything elsewhere.
func newCursors(secret []byte) *cursors {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("sendgate cursor v1"))
	return &cursors{key: mac.Sum(nil)}
}

func (c *cursors) seal(l listing, last string) string {
	return base64.RawURLEncoding.EncodeToString(append(c.mac(l, last), last...))
}

// open returns the last key shown, or a 400.
func (c *cursors) open(l listing, token string) (string, error) {
	if strings.ContainsAny(token, "\r\n") { // which base64 would pass over, strict as it is
		return "", errCursor()
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) <= macLen {
		return "", errCursor()
	}
	last := string(raw[macLen:])
	if !hmac.Equal(raw[:macLen], c.mac(l, last)) {
		return "", errCursor()
	}
	return last, nil
}

func errCursor() error {
	return refuse(http.StatusBadRequest, "invalid_cursor",
		"The cursor does not belong to this listing. Repeat the query it came from, with the same filter.")
}

// mac covers the parts with their lengths, so that no two different lists of parts look the same to it.
func (c *cursors) mac(l listing, last string) []byte {
	h := hmac.New(sha256.New, c.key)
	for _, part := range []string{l.name, strconv.Itoa(int(l.tenant)), l.filter, last} {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return h.Sum(nil)[:macLen]
}
