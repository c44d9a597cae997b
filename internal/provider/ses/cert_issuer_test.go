package ses

import (
	"crypto/x509/pkix"
	"net/http"
	"testing"
)

// SNS serves its certificate without the issuer's.
func TestIssuerIsFetchedFromWhereTheCertificateSays(t *testing.T) {
	t.Parallel()
	a := newAmazon(t, signerTemplate())
	body := a.note(sendRecord).signedBy(t, rsaKey())
	for range 3 {
		if _, err := a.Receive(t.Context(), hook(body)); err != nil {
			t.Fatalf("Receive: %v", err)
		}
	}
	if a.fetches.Load() != 1 || a.issuers.Load() != 1 {
		t.Errorf("fetches = %d of the certificate, %d of its issuer; want 1 each", a.fetches.Load(), a.issuers.Load())
	}
}

func TestIssuerThatDoesNotHelp(t *testing.T) {
	t.Parallel()
	a := newAmazon(t, signerTemplate())
	a.issuer.Store(&newAuthority(t, nil).cert.Raw)
	_, err := a.Receive(t.Context(), hook(a.note(sendRecord).signedBy(t, rsaKey())))
	wantRefused(t, err, http.StatusForbidden, "certificate")

	stranger := signerTemplate()
	stranger.DNSNames, stranger.Subject = []string{"evil.test"}, pkix.Name{}
	a = newAmazon(t, stranger)
	_, err = a.Receive(t.Context(), hook(a.note(sendRecord).signedBy(t, rsaKey())))
	wantRefused(t, err, http.StatusForbidden, "certificate")
	if n := a.issuers.Load(); n != 0 {
		t.Errorf("the issuer of a stranger was fetched %d times", n)
	}
}

func TestIssuerThatCanNotBeAsked(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusInternalServerError, 0} {
		a := newAmazon(t, signerTemplate())
		a.issuerStatus.Store(int64(status))
		if status == 0 {
			a.crt.Close()
		}
		_, err := a.Receive(t.Context(), hook(a.note(sendRecord).signedBy(t, rsaKey())))
		wantRefused(t, err, http.StatusServiceUnavailable, "certificate_unavailable")
	}
}

func TestIssuerInTheSameFile(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	between := newAuthority(t, b.ca)
	template := signerTemplate()
	template.IssuingCertificateURL = []string{b.srv.URL + "/issuer.pem"}
	leaf := create(t, template, between, &rsaKey().PublicKey)
	b.serve(toPEM(leaf, between.cert))
	if _, err := b.Receive(t.Context(), hook(b.note(sendRecord).signedBy(t, rsaKey()))); err != nil {
		t.Errorf("Receive: %v", err)
	}
	before := b.fetches.Load()
	b.serve(toPEM(leaf)) // only Amazon is asked for issuers
	other := b.note(sendRecord).with("SigningCertURL", b.base+"/SimpleNotificationService-ffffffffffffffffffffffffffffffff.pem")
	_, err := b.Receive(t.Context(), hook(other.signedBy(t, rsaKey())))
	wantRefused(t, err, http.StatusForbidden, "certificate")
	if n := b.fetches.Load() - before; n != 1 {
		t.Errorf("fetches = %d, want 1: that of the certificate", n)
	}
}
