package ses

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/jail"
)

// These addresses, or similar ones, were used to attack other verifiers. No call may be made for any of them.
func TestCertificateAddressesThatAreNeverCalled(t *testing.T) {
	t.Parallel()
	const host = "https://sns.eu-west-1.amazonaws.com"
	b := newBed(t, func(c *Config) { c.SNSBaseURL, c.SNSCAPEM = "", "" })
	refuse := roundTripper(func(r *http.Request) (*http.Response, error) {
		t.Errorf("a call was made to %s", r.URL)
		return nil, errors.New("no calls")
	})
	b.sns = &http.Client{Transport: refuse}
	b.certs.http = b.sns
	for _, address := range []string{
		"https://sns.s3-us-west-2.amazonaws.com/x.pem",
		"https://sns.s3-us-west-2.amazonaws.com" + certFile,
		"https://sns.us-east-1.amazonaws.com" + certFile, // another region than the topic's
		"http://sns.eu-west-1.amazonaws.com" + certFile,
		"HTTPS://sns.eu-west-1.amazonaws.com" + certFile,
		"https://SNS.eu-west-1.amazonaws.com" + certFile,
		"https://sns.eu-west-1.amazonaws.com.evil.tld" + certFile,
		"https://sns.us-east-1.amazonaws.com.evil.tld" + certFile,
		"https://sns.eu-west-1.amazonaws.com.cn" + certFile,
		"https://sns.eu-west-1.amazonaws.com.:443" + certFile,
		"https://sns.eu-west-1.amazonaws.com:443" + certFile,
		"https://sns.eu-west-1.amazonaws.com:8443" + certFile,
		"https://user@sns.eu-west-1.amazonaws.com" + certFile,
		"https://user:pw@sns.eu-west-1.amazonaws.com" + certFile,
		"https://sns.eu-west-1.amazonaws.com@169.254.169.254" + certFile,
		"https://sns.eu-west-1.amazonaws.com\\@evil.tld" + certFile,
		"https://sns.eu-west-1.amazonaws.com%2eevil.tld" + certFile,
		"https://169.254.169.254" + certFile,
		"http://169.254.169.254/latest/meta-data/",
		"https://[::1]" + certFile,
		"//sns.eu-west-1.amazonaws.com" + certFile,
		"file:///etc/passwd",
		host + certFile + "?x=1",
		host + certFile + "#x",
		host + certFile + "\n",
		host + certFile + "/../x",
		host + "/a" + certFile,
		host + "/x.pem",
		host + "/SimpleNotificationService-0123456789ABCDEF0123456789ABCDEF.pem",
		host + "/SimpleNotificationService-0123456789abcdef0123456789abcde.pem",
		host + "/SimpleNotificationService-0123456789abcdef0123456789abcdef0.pem",
		host + "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem.exe",
		host + "//SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
		host,
		b.base + certFile, // the stand-in, which this account knows nothing of
		"",
	} {
		_, err := b.Receive(t.Context(), hook(b.note(sendRecord).with("SigningCertURL", address).signedBy(t, rsaKey())))
		wantRefused(t, err, http.StatusForbidden, "certificate")
	}
	if n := b.fetches.Load(); n != 0 {
		t.Errorf("fetches = %d, want 0", n)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCertificatesThatAreRefused(t *testing.T) {
	t.Parallel()
	template := func(change func(*x509.Certificate)) func(*testing.T, *bed) []byte {
		return func(t *testing.T, b *bed) []byte {
			t.Helper()
			c := signerTemplate()
			change(c)
			return toPEM(create(t, c, b.ca, &rsaKey().PublicKey))
		}
	}
	for name, file := range map[string]func(*testing.T, *bed) []byte{
		"expired":       template(func(c *x509.Certificate) { c.NotAfter = noon().Add(-time.Second) }),
		"not yet valid": template(func(c *x509.Certificate) { c.NotBefore = noon().Add(time.Second) }),
		"another name": template(func(c *x509.Certificate) {
			c.DNSNames, c.Subject = []string{"shop.example.com"}, pkix.Name{CommonName: "shop.example.com"}
		}),
		"another service": template(func(c *x509.Certificate) {
			c.DNSNames, c.Subject = []string{"s3.amazonaws.com"}, pkix.Name{CommonName: "s3.amazonaws.com"}
		}),
		"another region": template(func(c *x509.Certificate) {
			c.DNSNames, c.Subject = []string{"sns.us-east-1.amazonaws.com"}, pkix.Name{}
		}),
		"a wildcard": template(func(c *x509.Certificate) {
			c.DNSNames, c.Subject = []string{"*.amazonaws.com"}, pkix.Name{CommonName: "*.amazonaws.com"}
		}),
		"another authority": func(t *testing.T, _ *bed) []byte {
			t.Helper()
			return toPEM(create(t, signerTemplate(), newAuthority(t, nil), &rsaKey().PublicKey))
		},
		"signed by itself": func(t *testing.T, b *bed) []byte {
			t.Helper()
			self := &authority{cert: signerTemplate(), key: b.ca.key}
			return toPEM(create(t, signerTemplate(), self, &b.ca.key.PublicKey))
		},
		"no PEM":  func(*testing.T, *bed) []byte { return []byte("<html>hello</html>") },
		"nothing": func(*testing.T, *bed) []byte { return nil },
		"a key": func(*testing.T, *bed) []byte {
			return []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
		},
		"bad PEM": func(*testing.T, *bed) []byte {
			return []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		},
		"cut off":  func(_ *testing.T, b *bed) []byte { return (*b.file.Load())[:200] },
		"too long": func(_ *testing.T, b *bed) []byte { return append(make([]byte, maxCertificate), *b.file.Load()...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, nil)
			b.serve(file(t, b))
			_, err := b.Receive(t.Context(), hook(b.note(sendRecord).signedBy(t, rsaKey())))
			wantRefused(t, err, http.StatusForbidden, "certificate")
		})
	}
}

// A key of another kind than documented is not tried.
func TestCertificateOfAnotherKindOfKey(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	b.serve(toPEM(create(t, signerTemplate(), b.ca, &b.ca.key.PublicKey)))
	_, err := b.Receive(t.Context(), hook(b.note(sendRecord).signedBy(t, rsaKey())))
	wantRefused(t, err, http.StatusForbidden, "signature")
}

func TestNamesOfTheSigner(t *testing.T) {
	t.Parallel()
	for arn, names := range map[string]string{
		testTopic:                                         "sns.amazonaws.com sns.eu-west-1.amazonaws.com",
		"arn:aws:sns:af-south-1:123456789012:t":           "sns-signing.af-south-1.amazonaws.com sns.af-south-1.amazonaws.com",
		"arn:aws-cn:sns:cn-north-1:123456789012:t":        "sns-cn-north-1.amazonaws.com.cn",
		"arn:aws-us-gov:sns:us-gov-east-1:123456789012:t": "sns-us-gov-west-1.amazonaws.com",
		"arn:aws-eusc:sns:eusc-de-east-1:123456789012:t":  "sns-signing.eusc-de-east-1.amazonaws.eu",
	} {
		b := newBed(t, func(c *Config) { c.SNSTopicARNs = []string{arn} })
		for name := range strings.FieldsSeq(names) {
			for field, template := range map[string]*x509.Certificate{"dns name": signerTemplate(), "common name": signerTemplate()} {
				template.DNSNames, template.Subject = []string{name}, pkix.Name{}
				if field == "common name" {
					template.DNSNames, template.Subject = nil, pkix.Name{CommonName: name}
				}
				address := fmt.Sprintf("%s/SimpleNotificationService-%032x.pem", b.base, b.fetches.Load())
				b.serve(toPEM(create(t, template, b.ca, &rsaKey().PublicKey)))
				f := b.note("{}").with("TopicArn", arn, "SigningCertURL", address)
				if _, err := b.Receive(t.Context(), hook(f.signedBy(t, rsaKey()))); err != nil {
					t.Errorf("%s with %s %s: %v", arn, field, name, err)
				}
			}
		}
	}
}

func TestCertificateIsFetchedOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	body := b.note(sendRecord).signedBy(t, rsaKey())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := b.Receive(t.Context(), hook(body)); err != nil {
				t.Errorf("Receive: %v", err)
			}
		})
	}
	wg.Wait()
	if n := b.fetches.Load(); n != 1 {
		t.Errorf("fetches = %d, want 1", n)
	}
}

func TestKeptCertificateExpires(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	if _, err := b.Receive(t.Context(), hook(b.note(sendRecord).signedBy(t, rsaKey()))); err != nil {
		t.Fatalf("Receive: %v", err)
	}
	later := noon().Add(13 * time.Hour)
	h := hook(b.note(sendRecord).with("Timestamp", later.Format(time.RFC3339)).signedBy(t, rsaKey()))
	h.Now = later
	for range 3 {
		_, err := b.Receive(t.Context(), h)
		wantRefused(t, err, http.StatusForbidden, "certificate")
	}
	if n := b.fetches.Load(); n != 1 {
		t.Errorf("fetches = %d, want 1", n)
	}
	renewed := signerTemplate()
	renewed.NotAfter = later.Add(time.Hour)
	b.serve(toPEM(create(t, renewed, b.ca, &rsaKey().PublicKey)))
	h.Now = later.Add(doubtfulFor)
	if _, err := b.Receive(t.Context(), h); err != nil {
		t.Errorf("Receive after the certificate was renewed: %v", err)
	}
}

func TestHostOfCertificatesThatFails(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{
		500: 503, 502: 503, 503: 503, 429: 503, 408: 503,
		400: 403, 403: 403, 404: 403, 410: 403, 301: 403, 302: 403, 204: 403,
	} {
		reason := map[int]string{503: "certificate_unavailable", 403: "certificate"}[want]
		b := newBed(t, nil)
		b.status.Store(int64(status))
		body := b.note(sendRecord).signedBy(t, rsaKey())
		for range 5 {
			_, err := b.Receive(t.Context(), hook(body))
			wantRefused(t, err, want, reason)
		}
		if n := b.fetches.Load(); n != 1 {
			t.Errorf("fetches while it answers %d = %d, want 1", status, n)
		}
		b.status.Store(0)
		h := hook(body)
		h.Now = noon().Add(doubtfulFor)
		if _, err := b.Receive(t.Context(), h); err != nil {
			t.Errorf("Receive after the host recovered from %d: %v", status, err)
		}
	}
	b := newBed(t, nil)
	b.srv.Close()
	_, err := b.Receive(t.Context(), hook(b.note(sendRecord).signedBy(t, rsaKey())))
	wantRefused(t, err, http.StatusServiceUnavailable, "certificate_unavailable")
}

// Forged requests, each with its own address, cause only a few fetches, and known certificates keep working.
func TestFloodOfAddressesMakesFewFetches(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	good := b.note(sendRecord).signedBy(t, rsaKey())
	if _, err := b.Receive(t.Context(), hook(good)); err != nil {
		t.Fatalf("Receive: %v", err)
	}
	b.status.Store(http.StatusNotFound)
	forged := func(i int) []byte {
		address := fmt.Sprintf("%s/SimpleNotificationService-%032x.pem", b.base, i)
		return b.note(sendRecord).with("SigningCertURL", address, "Signature", "AAAA").body(t)
	}
	for i := range 200 {
		_, err := b.Receive(t.Context(), hook(forged(i)))
		if i < maxDoubtful {
			wantRefused(t, err, http.StatusForbidden, "certificate")
		} else {
			wantRefused(t, err, http.StatusServiceUnavailable, "certificate_unavailable")
		}
	}
	if n := b.fetches.Load(); n != 1+maxDoubtful {
		t.Errorf("fetches = %d, want 1 and %d", n, maxDoubtful)
	}
	if _, err := b.Receive(t.Context(), hook(good)); err != nil {
		t.Errorf("Receive during the flood: %v", err)
	}
	h := hook(forged(1000))
	h.Now = noon().Add(doubtfulFor)
	_, err := b.Receive(t.Context(), h)
	wantRefused(t, err, http.StatusForbidden, "certificate")
	if n := len(b.certs.byURL); n != 2 {
		t.Errorf("addresses kept after the flood = %d, want 2", n)
	}
}

func TestTenCertificatesAreKept(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	receive := func(i int, now time.Time) {
		t.Helper()
		address := fmt.Sprintf("%s/SimpleNotificationService-%032x.pem", b.base, i)
		h := hook(b.note(sendRecord).with("SigningCertURL", address).signedBy(t, rsaKey()))
		h.Now = now
		if _, err := b.Receive(t.Context(), h); err != nil {
			t.Fatalf("Receive: %v", err)
		}
	}
	for i := range 15 {
		receive(i, noon().Add(time.Duration(2*i)*time.Second))
		receive(0, noon().Add(time.Duration(2*i+1)*time.Second)) // used all the time
	}
	if n := len(b.certs.byURL); n != maxCertificates {
		t.Errorf("certificates kept = %d, want %d", n, maxCertificates)
	}
	if n := b.fetches.Load(); n != 15 {
		t.Errorf("fetches = %d, want 15", n)
	}
	receive(14, noon().Add(time.Minute))
	if n := b.fetches.Load(); n != 15 {
		t.Errorf("fetches after the latest = %d, want 15", n)
	}
	receive(1, noon().Add(time.Minute))
	if n := b.fetches.Load(); n != 16 {
		t.Errorf("fetches after the latest and the oldest = %d, want 16", n)
	}
}

// amazon is Amazon's network on loopback: SNS over TLS, with a certificate of its host, and the issuer over HTTP.
type amazon struct {
	*bed
	crt          *httptest.Server
	issuer       atomic.Pointer[[]byte]
	issuers      atomic.Int64 // fetches of the issuer
	issuerStatus atomic.Int64 // of the answer, 0 for 200
}

func newAmazon(t *testing.T, leaf *x509.Certificate) *amazon {
	t.Helper()
	a := &amazon{bed: newBed(t, func(c *Config) { c.SNSBaseURL, c.SNSCAPEM = "", "" })}
	a.base = "https://sns.eu-west-1.amazonaws.com"
	between := newAuthority(t, a.ca)
	a.issuer.Store(&between.cert.Raw)
	leaf.IssuingCertificateURL = []string{"http://crt.r2m01.amazontrust.com/r2m01.cer"}
	a.serve(toPEM(create(t, leaf, between, &rsaKey().PublicKey)))

	sns := httptest.NewTLSServer(a.bed)
	t.Cleanup(sns.Close)
	a.crt = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a.issuers.Add(1)
		w.WriteHeader(cmp.Or(int(a.issuerStatus.Load()), http.StatusOK))
		_, _ = w.Write(*a.issuer.Load())
	}))
	t.Cleanup(a.crt.Close)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}, // of httptest
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			to, ok := map[string]string{
				"sns.eu-west-1.amazonaws.com:443": sns.Listener.Addr().String(),
				"crt.r2m01.amazontrust.com:80":    a.crt.Listener.Addr().String(),
			}[address]
			if !ok {
				t.Errorf("a call was made to %s", address)
				return nil, errors.New("no such host")
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
	}
	transport.TLSClientConfig.RootCAs.AddCert(sns.Certificate())
	t.Cleanup(transport.CloseIdleConnections)
	a.sns = &http.Client{Transport: transport}
	a.certs.http, a.certs.roots = a.sns, a.ca.pool()
	return a
}

// An account of Amazon's own calls from the jail.
func TestCallsToAmazonAreJailed(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(c *Config) { c.SNSBaseURL, c.SNSCAPEM = "", "" })
	for _, address := range []string{b.srv.URL, "http://127.0.0.1/", "https://169.254.169.254/", "https://[::1]/"} {
		_, _, err := get(t.Context(), b.certs.http, address)
		if !errors.Is(err, jail.ErrForbidden) {
			t.Errorf("call to %s = %v, want %v", address, err, jail.ErrForbidden)
		}
		if err != nil && strings.Contains(err.Error(), address) {
			t.Errorf("error names the address: %v", err)
		}
	}
	if err := jail.CheckURL("http://crt.r2m01.amazontrust.com/r2m01.cer", bars()); err != nil {
		t.Errorf("the address of an issuer is refused: %v", err)
	}
	if b.sns != b.certs.http || b.certs.roots != nil || !b.certs.issuers {
		t.Error("confirmations and certificates differ in their client, or roots are not the system's")
	}
}

func TestCallerWhoGoesAwayDoesNotStopTheFetch(t *testing.T) {
	t.Parallel()
	b := newBed(t, nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	body := b.note(sendRecord).signedBy(t, rsaKey())
	_, _ = b.Receive(gone, hook(body))
	if _, err := b.Receive(t.Context(), hook(body)); err != nil {
		t.Errorf("Receive: %v", err)
	}
	if n := b.fetches.Load(); n != 1 {
		t.Errorf("fetches = %d, want 1", n)
	}
}

func FuzzParseCertificates(f *testing.F) {
	ca := newAuthority(f, nil)
	f.Add(toPEM(ca.cert))
	f.Add(ca.cert.Raw)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if list, err := parseCertificates(data); (err == nil) != (len(list) > 0) {
			t.Errorf("parseCertificates = %d certificates, %v; want some or an error", len(list), err)
		}
	})
}
