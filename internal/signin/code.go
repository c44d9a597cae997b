package signin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/boombuler/barcode/qr"
	"github.com/pquerna/otp/hotp"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// Codes of an authenticator are those of RFC 6238 with what all apps take: SHA-1, six digits, a new code each stepTime.
const (
	stepTime = 30 * time.Second
	stepsOff = 1 // a code of so many steps before or after the present one counts: clocks differ, and typing takes time
	digits   = 6
)

// stepOf returns the step of a code, or 0 if it is none that counts now. Codes of the step after and older ones were used already.
func stepOf(secret seal.Secret, code string, now time.Time, after int64) int64 {
	present := now.Unix() / int64(stepTime/time.Second)
	found := int64(0)
	for step := present - stepsOff; step <= present+stepsOff; step++ { // all of them, so that each code takes as long
		if hotp.Validate(code, uint64(step), secret.Reveal()) && step > after { //nolint:gosec // times are after 1970
			found = step
		}
	}
	return found
}

// isCode reports whether a text has the form of a code of an authenticator. Others are taken for recovery codes.
func isCode(text string) bool {
	return len(text) == digits && strings.Trim(text, "0123456789") == ""
}

// plain removes what people type to make a code readable.
func plain(text string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(text))
}

// recoveryCodes is how many a person gets.
const recoveryCodes = 10

// newRecoveryCodes makes codes of 80 bits, as they are shown, and the hashes under which they are stored. That is too much for any
// search, so no slow hash is needed.
func newRecoveryCodes() (shown []string, hashes [][]byte) {
	for range recoveryCodes {
		code := rand.Text()[:16]
		shown = append(shown, code[:4]+"-"+code[4:8]+"-"+code[8:12]+"-"+code[12:])
		hashes = append(hashes, record.HashToken(code))
	}
	return shown, hashes
}

// secretOf derives the secret of a new authenticator from a link, so that it needs no place in the store before the person has
// proved to have it, and the page can be loaded again. Who finds the link later can't derive it without the key.
func secretOf(key []byte, link string) seal.Secret {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("authenticator " + link))
	return seal.NewSecret(base32.StdEncoding.EncodeToString(mac.Sum(nil)[:20])) // RFC 4226 section 4: 160 bits
}

// picture is a QR code as the path of an SVG, and the width of its square.
type picture struct {
	Size int
	Path string
}

// pictureOf draws what authenticator apps scan (Key Uri Format of Google Authenticator).
func pictureOf(user string, secret seal.Secret) (picture, error) {
	uri := "otpauth://totp/" + url.PathEscape("sendgate:"+user) + "?" + url.Values{"secret": {secret.Reveal()}, "issuer": {"sendgate"}}.Encode()
	code, err := qr.Encode(uri, qr.M, qr.Auto)
	if err != nil {
		return picture{}, fmt.Errorf("draw QR code: %w", err)
	}
	const quiet = 4 // modules around it, ISO/IEC 18004
	var path strings.Builder
	b := code.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			if r, _, _, _ := code.At(x, y).RGBA(); r == 0 {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x-b.Min.X+quiet, y-b.Min.Y+quiet)
			}
		}
	}
	return picture{Size: b.Dx() + 2*quiet, Path: path.String()}, nil
}

// grouped sets a space after each fourth character.
func grouped(s string) string {
	var out strings.Builder
	for i, c := range s {
		if i > 0 && i%4 == 0 {
			out.WriteByte(' ')
		}
		out.WriteRune(c)
	}
	return out.String()
}
