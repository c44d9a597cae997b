package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

func TestFailureTellsTheCauseAndNoAddress(t *testing.T) {
	t.Parallel()
	to := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 443}
	wrap := func(err error) error {
		return &url.Error{Op: "Post", URL: "https://hooks.example.com/secret", Err: err}
	}
	tests := map[string]error{
		"the host name does not exist":         wrap(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "a", Server: "10.0.0.2:53", IsNotFound: true}}),
		"the host name could not be looked up": wrap(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: "a", Server: "10.0.0.2:53", IsTimeout: true}}),
		"no answer in time":                    wrap(context.DeadlineExceeded),
		"dial: connect: connection refused":    wrap(&net.OpError{Op: "dial", Addr: to, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}),
		"dial: address not allowed":            wrap(&net.OpError{Op: "dial", Addr: to, Err: errors.New("address not allowed")}),
		"address not allowed: port 25":         wrap(errors.New("address not allowed: port 25")),
		"the certificate is not trusted: x509: certificate signed by unknown authority": wrap(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}),
		"EOF": wrap(errors.New("EOF")),
		"the secrets of the endpoint can't be opened: rotate its secret, and set its headers again": errSealed,
	}
	for want, err := range tests {
		if got := failure(err); got != want {
			t.Errorf("failure(%v) = %q, want %q", err, got, want)
		}
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	id, err := mail.ParseID("0197a1b2-0000-7000-8000-000000000001")
	must(t, err)
	full := mail.Event{
		ID: id, Type: mail.EventBounced, Name: "Bounce/HardBounce", At: at, MessageID: id, Recipient: "ann@example.org", Account: "relay",
		Provider: "smtp", ProviderMessageID: "pm-1", Stream: "bulk", Tags: []string{"order"}, Source: mail.FromWebhook,
		Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1", Text: "<no> such user"},
		URL:    "https://example.org/?a=1&b=2", Machine: true,
		UniqueID: "hidden", Detail: "hidden", Raw: []byte("hidden"), Tenant: 7, N: 3,
	}
	tests := map[string]mail.Event{
		`{"type":"message.bounced","timestamp":"2026-03-01T11:00:00.123Z","data":{"id":"0197a1b2-0000-7000-8000-000000000001","type":"bounced",` +
			`"provider_type":"Bounce/HardBounce","at":"2026-03-01T11:00:00.123Z","received_at":"2025-06-24T11:28:06.656Z",` +
			`"message_id":"0197a1b2-0000-7000-8000-000000000001","recipient":"ann@example.org","account":"relay","provider":"smtp",` +
			`"provider_message_id":"pm-1","stream":"bulk","tags":["order"],"source":"webhook","bounce":{"class":"hard","reason":"invalid_address",` +
			`"code":"550","enhanced":"5.1.1","text":"\u003cno\u003e such user"},"url":"https://example.org/?a=1\u0026b=2","machine":true}}`: full,
		`{"type":"endpoint.disabled","timestamp":"2026-03-01T11:00:00.123Z","data":{"id":"0197a1b2-0000-7000-8000-000000000001",` +
			`"type":"endpoint_disabled","at":"2026-03-01T11:00:00.123Z","received_at":"2025-06-24T11:28:06.656Z","source":"system"}}`: {
			ID: id, Type: mail.EventEndpointDisabled, At: at, Source: mail.FromSystem,
		},
	}
	for want, e := range tests {
		got, err := Body(&e)
		must(t, err)
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", e.Type, diff)
		}
		if !json.Valid(got) {
			t.Errorf("%s is no JSON", got)
		}
	}
}

func TestTypeOfEvent(t *testing.T) {
	t.Parallel()
	for _, kind := range mail.EventTypes() {
		want := fmt.Sprintf("message.%s", kind)
		if kind == mail.EventEndpointDisabled {
			want = "endpoint.disabled"
		}
		if got := TypeOf(kind); got != want {
			t.Errorf("TypeOf(%q) = %q, want %q", kind, got, want)
		}
	}
}
