package smtp

import (
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
)

// An account whose host is where clouds keep the credentials of their machines is not called, however its address is written. It
// is parked with the reason, and not tried again as if the relay were down.
func TestLinkLocalHostsAreNotCalled(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	for _, host := range []string{
		"169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "fe80::1", "febf::1",
	} {
		cfg := r.config(nil, nil)
		cfg.Host, cfg.AllowPlaintext = host, true
		_, perr := sendTo(t, r.clientWith(cfg), "ann@example.org")
		wantClass(t, host, perr, provider.Misconfigured)
		if perr != nil && perr.Detail != "connect: "+errLinkLocal.Error() {
			t.Errorf("%s: %q, want that it is link-local", host, perr.Detail)
		}
	}
	if _, perr := sendTo(t, r.client(nil), "ann@example.org"); perr != nil {
		t.Errorf("a relay of this machine: %v", perr)
	}
}
