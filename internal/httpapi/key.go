package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
)

// An API key is sg_<id>_<secret><check>: 8 hex characters that are public, 32 of base62 (190 bits) that are secret, and 6 of
// base62 with the CRC-32 of everything before them. By the check, we and secret scanners recognise a key without a look-up.
const (
	keyPrefix = "sg_"
	keyIDLen  = 8
	secretLen = 32
	checkLen  = 6
	keyLen    = len(keyPrefix) + keyIDLen + 1 + secretLen + checkLen

	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

var errKeyForm = errors.New("not an api key")

// NewKey makes a key. Store only the hash, which is SHA-256 of the secret part. The secret has too much entropy for any
// search, so no slow hash is needed.
func NewKey() (id, full string, hash []byte) {
	var b [keyIDLen / 2]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	id = hex.EncodeToString(b[:])
	secret := randomBase62(secretLen)
	body := keyPrefix + id + "_" + secret
	sum := sha256.Sum256([]byte(secret))
	return id, body + checkOf(body), sum[:]
}

// ParseKey splits a key and checks its form, not its validity. The error never contains the key.
func ParseKey(full string) (id string, hash []byte, err error) {
	if len(full) != keyLen || !strings.HasPrefix(full, keyPrefix) {
		return "", nil, errKeyForm
	}
	body, check := full[:keyLen-checkLen], full[keyLen-checkLen:]
	id, secret := body[len(keyPrefix):len(keyPrefix)+keyIDLen], body[len(keyPrefix)+keyIDLen+1:]
	if body[len(keyPrefix)+keyIDLen] != '_' || !only(id, "0123456789abcdef") || !only(secret, base62) {
		return "", nil, errKeyForm
	}
	if check != checkOf(body) {
		return "", nil, errKeyForm
	}
	sum := sha256.Sum256([]byte(secret))
	return id, sum[:], nil
}

// only reports whether s has no character outside of alphabet.
func only(s, alphabet string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }) < 0
}

// checkOf encodes the CRC-32 (IEEE) in base62, most significant digit first.
func checkOf(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	out := make([]byte, checkLen)
	for i := checkLen - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return string(out)
}

// randomBase62 draws n characters without bias: it discards bytes of 248 and more, which would favour the first 8 characters.
func randomBase62(n int) string {
	out := make([]byte, 0, n)
	var b [64]byte
	for {
		_, _ = rand.Read(b[:])
		for _, c := range b {
			if c >= 248 {
				continue
			}
			if out = append(out, base62[c%62]); len(out) == n {
				return string(out)
			}
		}
	}
}
