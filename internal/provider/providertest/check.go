package providertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/provider"
)

// callTimeout bounds one Send of the suite. It ends a hung test; no test should reach it.
const callTimeout = 30 * time.Second

// AsError returns the provider.Error in err, or fails the test. Every adapter's error is one.
func AsError(t *testing.T, err error) *provider.Error {
	t.Helper()
	var perr *provider.Error
	if !errors.As(err, &perr) {
		t.Fatalf("Send error = %T (%v), want *provider.Error", err, err)
	}
	return perr
}

// CheckClass fails the test unless err has the class; nil counts as Accepted.
func CheckClass(t *testing.T, err error, want provider.Class) {
	t.Helper()
	got := provider.Accepted
	if err != nil {
		got = AsError(t, err).Class
	}
	if got != want {
		t.Errorf("Send class = %s (%v), want %s", got, err, want)
	}
}

// CheckError compares err with want except for Err. It skips Detail, Status and RetryAfter if want leaves them zero. It also
// fails if Detail is over provider.MaxDetail.
func CheckError(t *testing.T, err error, want provider.Error) {
	t.Helper()
	got := *AsError(t, err)
	checkDetail(t, got.Detail)
	ignore := []string{"Err"}
	if want.Detail == "" {
		ignore = append(ignore, "Detail")
	}
	if want.Status == 0 {
		ignore = append(ignore, "Status")
	}
	if want.RetryAfter == 0 {
		ignore = append(ignore, "RetryAfter")
	}
	opts := cmp.Options{cmpopts.IgnoreFields(provider.Error{}, ignore...), cmpopts.EquateEmpty(), refusals(want.Refused)}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("Send error (-want +got):\n%s", diff)
	}
}

// CheckReceipt compares receipts. It skips Detail if want leaves it empty.
func CheckReceipt(t *testing.T, got, want provider.Receipt) {
	t.Helper()
	checkDetail(t, got.Detail)
	opts := cmp.Options{cmpopts.EquateEmpty(), refusals(want.Refused)}
	if want.Detail == "" {
		opts = append(opts, cmpopts.IgnoreFields(provider.Receipt{}, "Detail"))
	}
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("receipt (-want +got):\n%s", diff)
	}
}

// refusals compares the Detail of refusals only if one of the wanted refusals has any.
func refusals(want []provider.Refusal) cmp.Option {
	for _, r := range want {
		if r.Detail != "" {
			return cmpopts.IgnoreFields(provider.Refusal{}, "Reason")
		}
	}
	return cmpopts.IgnoreFields(provider.Refusal{}, "Detail", "Reason")
}

func checkDetail(t *testing.T, detail string) {
	t.Helper()
	if len(detail) > provider.MaxDetail {
		t.Errorf("detail has %d bytes, want at most %d", len(detail), provider.MaxDetail)
	}
}

// CheckNoSecret fails the test when err, printed in any usual way, holds one of the secrets.
func CheckNoSecret(t *testing.T, err error, secrets []string) {
	t.Helper()
	if err == nil {
		return
	}
	texts := []string{err.Error(), fmt.Sprintf("%+v", err)}
	var perr *provider.Error
	if errors.As(err, &perr) {
		texts = append(texts, fmt.Sprintf("%+v", *perr), perr.Code, perr.Detail, fmt.Sprintf("%#v", perr.Refused))
	}
	for _, secret := range secrets {
		for _, text := range texts {
			if secret != "" && strings.Contains(text, secret) {
				t.Errorf("error holds a secret: %s", strings.ReplaceAll(text, secret, "<<SECRET>>"))
			}
		}
	}
}

// Parallel sends Numbered 0..n-1 at once and fails the test on any error.
func Parallel(t *testing.T, p provider.Provider, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*callTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := p.Send(ctx, Numbered(i)); err != nil {
				t.Errorf("Send %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// CheckUnmixed takes the searchable body of each received message by its id. It fails the test unless the Numbered sends 0..n-1
// all arrived, each with its own marker and no other.
func CheckUnmixed(t *testing.T, received map[string]string, n int) {
	t.Helper()
	if len(received) != n {
		t.Errorf("received %d distinct messages, want %d", len(received), n)
	}
	for i := range n {
		id := Numbered(i).Message.ID.String()
		body, ok := received[id]
		if !ok {
			t.Errorf("message %d did not arrive", i)
			continue
		}
		common := Marker(id)[:len("marker")]
		own, all := strings.Count(body, Marker(id)), strings.Count(body, common)
		if own == 0 || own != all {
			t.Errorf("message %d: %d markers of its own among %d", i, own, all)
		}
	}
}
