package emulator

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ourIDKey is the name under which a sender gives its own message id: in custom_args, v:, Metadata and EmailTags.
const ourIDKey = "gw_msg"

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// sendGridID looks like LRzX_m_ARxSv1T0xL2u1yQ: 22 characters of URL-safe base64.
func sendGridID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// mailgunID looks like 20260101072501.d5a9eaf68dd1c0c4@mg.example.com, without angle brackets.
func mailgunID(now time.Time, domain string) string {
	return now.UTC().Format("20060102150405") + "." + randomHex(8) + "@" + domain
}

// postmarkID is a lower-case UUID.
func postmarkID() string { return uuid.NewString() }

// sesID looks like 0100019a1b2c3d4e-3b5bf3b6-58b7-4d2c-a9e3-5f0d8a1b2c3d-000000: region, milliseconds, UUID.
func sesID(now time.Time) string {
	return fmt.Sprintf("0100%012x-%s-000000", now.UnixMilli(), uuid.NewString())
}

// queueID looks like Postfix's short queue ids: 4A1B2C3D4E5.
func queueID() string { return strings.ToUpper(randomHex(6))[:11] }
