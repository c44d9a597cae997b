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

// cursors makes and opens the cursors with which listings continue. A cursor holds the last key shown and a MAC over that key,
// the tenant, the listing and its filter. So it opens only the next page of the same query by the same tenant.
type cursors struct{ keys [][]byte } // the first makes cursors; all open them

// listing is a listing with its tenant and filter. The cursor of one does not open another.
type listing struct {
	name   string // "messages"
	tenant mail.TenantID
	filter string // canonical query without limit and cursor
}

const macLen = 16

// newCursors derives its own keys from the server's, so that a MAC made here is valid nowhere else.
func newCursors(secrets ...[]byte) *cursors {
	c := &cursors{}
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte("sendgate cursor v1"))
		c.keys = append(c.keys, mac.Sum(nil))
	}
	return c
}

func (c *cursors) seal(l listing, last string) string {
	return base64.RawURLEncoding.EncodeToString(append(mac(c.keys[0], l, last), last...))
}

// open returns the last key shown, or a 400.
func (c *cursors) open(l listing, token string) (string, error) {
	if len(token) > maxCursor || strings.ContainsAny(token, "\r\n") { // base64 would skip line ends, even in strict mode
		return "", errCursor()
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) <= macLen {
		return "", errCursor()
	}
	last := string(raw[macLen:])
	for _, key := range c.keys {
		if hmac.Equal(raw[:macLen], mac(key, l, last)) {
			return last, nil
		}
	}
	return "", errCursor()
}

// cursorAt opens a cursor of the listing and reads the position in it. No cursor stands for the first page: the zero position.
func cursorAt[T any](c *cursors, l listing, token string, parse func(string) (T, error)) (at T, err error) {
	if token == "" {
		return at, nil
	}
	last, err := c.open(l, token)
	if err != nil {
		return at, err
	}
	if at, err = parse(last); err != nil {
		return at, errCursor()
	}
	return at, nil
}

func errCursor() error {
	return refuse(http.StatusBadRequest, "invalid_cursor",
		"The cursor does not belong to this listing. Repeat the query it came from, with the same filter.")
}

// mac covers each part with its length, so that no two lists of parts give the same input.
func mac(key []byte, l listing, last string) []byte {
	h := hmac.New(sha256.New, key)
	for _, part := range []string{l.name, strconv.Itoa(int(l.tenant)), l.filter, last} {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return h.Sum(nil)[:macLen]
}
