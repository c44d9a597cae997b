package ses

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxCertificate  = 64 << 10         // bytes of one download of certificates
	maxCertificates = 10               // that are kept, by URL
	maxDoubtful     = 16               // addresses that are being fetched or failed recently; more are not fetched
	doubtfulFor     = 10 * time.Second // how long a failed address is not fetched again
)

// certificates fetches and keeps the certificates that SNS signs with. It is safe for concurrent use.
//
// Anyone who knows a topic's ARN can invent addresses of the right form, one per request. So a failure is remembered for
// doubtfulFor, and there is room for maxDoubtful such addresses: a flood causes at most that many calls in that time.
// Certificates in use are counted separately.
type certificates struct {
	http    *http.Client
	roots   *x509.CertPool // nil is the system's
	issuers bool           // a missing issuer may be fetched from the address in the certificate

	mu    sync.Mutex
	byURL map[string]*certificate
}

// certificate is the result for one address. Its fields are set when done is closed, and change later only under the mutex.
type certificate struct {
	done  chan struct{}
	leaf  *x509.Certificate
	above *x509.CertPool // the certificates between leaf and root
	err   error          // why the address can't be used
	until time.Time      // how long err is kept
	used  time.Time
}

// find returns the certificate at an address that admit has checked, if it belongs to SNS of the topic's region and is valid now.
// Several callers share one fetch. The end of the first caller's context does not stop it.
func (c *certificates) find(ctx context.Context, address string, at topic, now time.Time) (*x509.Certificate, error) {
	e, mine := c.claim(address, now)
	if e == nil {
		return nil, unavailable("certificate_unavailable", errors.New("too many addresses of certificates failed of late"))
	}
	if mine {
		c.fill(context.WithoutCancel(ctx), e, address, at, now)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, unavailable("certificate_unavailable", ctx.Err())
	}
	return c.check(e, at, now)
}

// claim returns the entry of an address, and whether the caller has to fill it. It returns nil if there is no room.
func (c *certificates) claim(address string, now time.Time) (e *certificate, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	doubtful := 0
	for key, old := range c.byURL {
		if old.err != nil && !now.Before(old.until) {
			delete(c.byURL, key)
		} else if old.leaf == nil || old.err != nil {
			doubtful++
		}
	}
	if e = c.byURL[address]; e != nil {
		e.used = now
		return e, false
	}
	if doubtful >= maxDoubtful {
		return nil, false
	}
	if c.byURL == nil {
		c.byURL = map[string]*certificate{}
	}
	e = &certificate{done: make(chan struct{}), used: now}
	c.byURL[address] = e
	return e, true
}

// fill fetches the content of an entry.
func (c *certificates) fill(ctx context.Context, e *certificate, address string, at topic, now time.Time) {
	defer close(e.done)
	leaf, above, err := c.fetch(ctx, address, at, now)
	c.mu.Lock()
	defer c.mu.Unlock()
	e.leaf, e.above = leaf, above
	if err != nil {
		e.err, e.until = err, now.Add(doubtfulFor)
		return
	}
	c.evict()
}

// evict drops the least recently used certificate if there are too many.
func (c *certificates) evict() {
	oldest, good := "", 0
	for key, e := range c.byURL {
		if e.leaf == nil || e.err != nil {
			continue
		}
		if good++; oldest == "" || e.used.Before(c.byURL[oldest].used) {
			oldest = key
		}
	}
	if good > maxCertificates {
		delete(c.byURL, oldest)
	}
}

// check returns the certificate of a filled entry, if it is still valid.
func (c *certificates) check(e *certificate, at topic, now time.Time) (*x509.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.err == nil {
		if err := c.verify(e.leaf, e.above, at, now); err != nil {
			e.err, e.until = err, now.Add(doubtfulFor)
		}
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.leaf, nil
}

// fetch gets the certificate at an address and the certificates between it and a root. SNS serves only the certificate itself,
// and crypto/x509 does not fetch issuers. So the issuer is fetched from the address in the certificate (RFC 5280 section
// 4.2.2.1). That address can be trusted as Amazon's: the certificate came over TLS from Amazon's own host.
func (c *certificates) fetch(ctx context.Context, address string, at topic, now time.Time) (*x509.Certificate, *x509.CertPool, error) {
	list, err := c.download(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	leaf, above := list[0], x509.NewCertPool()
	for _, more := range list[1:] {
		above.AddCert(more)
	}
	err = c.verify(leaf, above, at, now)
	if !errors.As(err, &x509.UnknownAuthorityError{}) || !c.issuers || len(leaf.IssuingCertificateURL) == 0 {
		return leaf, above, err
	}
	issuers, err := c.download(ctx, leaf.IssuingCertificateURL[0])
	if err != nil {
		return nil, nil, err
	}
	for _, issuer := range issuers {
		above.AddCert(issuer)
	}
	return leaf, above, c.verify(leaf, above, at, now)
}

// download gets the certificates at an address, at least one. It refuses an address that has none, or something else. If the
// address can't be reached, SNS should retry.
func (c *certificates) download(ctx context.Context, address string) ([]*x509.Certificate, error) {
	status, body, err := get(ctx, c.http, address)
	switch {
	case err != nil:
		return nil, unavailable("certificate_unavailable", err)
	case transient(status):
		return nil, unavailable("certificate_unavailable", fmt.Errorf("the certificate's host answered with status %d", status))
	case status != http.StatusOK:
		return nil, forbid("certificate", fmt.Errorf("the certificate's host answered with status %d", status))
	}
	list, err := parseCertificates(body)
	if err != nil {
		return nil, forbid("certificate", err)
	}
	return list, nil
}

// parseCertificates reads PEM, or DER, the form in which issuers are served. It returns at least one certificate or an error.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for block, after := pem.Decode(data); block != nil; block, after = pem.Decode(after) {
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("the certificate's file holds something else")
		}
		one, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		list = append(list, one)
	}
	if len(list) > 0 {
		return list, nil
	}
	one, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return []*x509.Certificate{one}, nil
}

// verify checks that a certificate is that of SNS, by name, chain and time.
func (c *certificates) verify(leaf *x509.Certificate, above *x509.CertPool, at topic, now time.Time) error {
	names := append(slices.Clone(leaf.DNSNames), leaf.Subject.CommonName)
	if !slices.ContainsFunc(signers(at), func(name string) bool { return slices.Contains(names, name) }) {
		return forbid("certificate", errors.New("the certificate is not of SNS of the topic's region"))
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: above, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	switch {
	case errors.As(err, &x509.SystemRootsError{}):
		return unavailable("certificate_unavailable", err) // our own problem to fix
	case err != nil:
		return forbid("certificate", err)
	}
	return nil
}

// signers lists the names that the certificate may have. AWS documents only "issued by Amazon SNS". The names are those of
// SnsHostProvider in its SDK for Java v2: sns.amazonaws.com in the older regions, sns-signing.REGION in opt-in regions (besides
// sns.REGION), sns-REGION in China, and one for both regions of GovCloud.
func signers(at topic) []string {
	names := []string{
		"sns." + at.suffix, "sns." + at.region + "." + at.suffix,
		"sns-signing." + at.region + "." + at.suffix, "sns-" + at.region + "." + at.suffix,
	}
	if strings.HasPrefix(at.region, "us-gov-") {
		names = append(names, "sns-us-gov-west-1."+at.suffix)
	}
	return names
}

// get makes one GET. Its errors leave out the address, which holds data from the request.
func get(ctx context.Context, client *http.Client, address string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, snsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, nil, errors.New("an address is not valid")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, withoutURL(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read, or is given up
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxCertificate))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return resp.StatusCode, body, nil
}

func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
