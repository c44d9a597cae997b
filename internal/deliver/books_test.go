package deliver

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// bookStore answers a check of the books.
type bookStore struct {
	Store
	answer func() (queue.Accounting, bool, error)
	noted  []queue.Accounting
}

func (s *bookStore) NoteBooks(_ context.Context, a *queue.Accounting) error {
	s.noted = append(s.noted, *a)
	return nil
}

func (s *bookStore) AccountingAlone(context.Context) (queue.Accounting, bool, error) {
	return s.answer()
}

// gauges reads the metrics of a name that have a value other than 0, by label.
func gauges(t *testing.T, reg prometheus.Gatherer, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			label := ""
			for _, l := range m.GetLabel() {
				label += l.GetValue()
			}
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); f.GetName() == "sendgate_"+name && v != 0 {
				got[label] = v
			}
		}
	}
	return got
}

func TestContradictionsRaiseAnAlarmUntilTheyAreGone(t *testing.T) {
	t.Parallel()
	ids := []mail.ID{mail.NewID(), mail.NewID()}
	answer := queue.Accounting{
		Books:      []queue.Book{{Tenant: "default", Ready: 5, Unstarted: 2, Started: 3, Unknown: 1}, {Tenant: "shop", Ready: 4}},
		Violations: []queue.Violation{{Kind: queue.Lost, Tenant: "default", Count: 2, IDs: ids}, {Kind: queue.Lost, Tenant: "shop", Count: 7}},
		UnknownAge: 90 * time.Second,
	}
	done, failure := true, error(nil)
	reg, log := prometheus.NewRegistry(), &bytes.Buffer{}
	books := &bookStore{answer: func() (queue.Accounting, bool, error) { return answer, done, failure }}
	e := &Engine{Options: Options{
		Store: books,
		Log:   slog.New(slog.NewTextHandler(log, nil)), Metrics: telemetry.New(reg),
	}}
	check := func(what, metric string, want map[string]float64) {
		t.Helper()
		if diff := cmp.Diff(want, gauges(t, reg, metric)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", what, metric, diff)
		}
	}
	if err := e.checkBooks(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("alarm", "booked_messages", map[string]float64{"ready": 9, "unstarted": 2, "started": 3, "unknown": 1})
	check("alarm", "invariant_violations", map[string]float64{"lost": 9})
	check("alarm", "unknown_age_seconds", map[string]float64{"": 90})
	if len(gauges(t, reg, "books_checked_timestamp_seconds")) != 1 {
		t.Error("nothing tells when the books were checked")
	}
	for _, want := range []string{"level=ERROR", "kind=lost", "tenant=default count=2", ids[0].String(), ids[1].String(), "tenant=shop count=7"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, log)
		}
	}
	answer, done = queue.Accounting{}, false
	if err := e.checkBooks(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("another replica is at it", "invariant_violations", map[string]float64{"lost": 9})
	done, failure = true, errors.New("timeout")
	if err := e.checkBooks(t.Context()); err == nil {
		t.Error("a check that failed looks like one that found nothing")
	}
	check("a check that failed", "invariant_violations", map[string]float64{"lost": 9})
	failure = nil
	if err := e.checkBooks(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("mended", "invariant_violations", map[string]float64{})
	check("mended", "unknown_age_seconds", map[string]float64{})
	if len(books.noted) != 2 || books.noted[0].Count(queue.Lost) != 9 || books.noted[1].Count(queue.Lost) != 0 {
		t.Errorf("noted for the replica that tells people: %+v, want both checks that were made here", books.noted)
	}
}

// Every slot that was granted ends as used or dropped.
func TestEverySlotIsUsedOrDropped(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	store := &fakeStore{load: func(_ context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error) {
		all := map[mail.ID]queue.Loaded{}
		for _, id := range ids {
			m := &mail.Message{ID: id, From: mail.Address{Email: "a@example.com"}}
			all[id] = queue.Loaded{Message: m, Recipients: []mail.Recipient{{Status: mail.Queued, Kind: mail.To, Address: mail.Address{Email: "b@example.org"}}}}
		}
		return all, nil
	}}
	e := testEngine(t, store, func(context.Context) (provider.Receipt, error) {
		return provider.Receipt{}, &provider.Error{Class: provider.Uncertain, Err: context.DeadlineExceeded}
	})
	e.Metrics = telemetry.New(reg)
	loadConfig(t, e)
	intended := true
	e.Store = &intentStore{Store: store, ok: &intended}
	e.carryAll([]*item{testItem(e), testItem(e)})
	e.carried.Wait()
	intended = false
	e.carryAll([]*item{testItem(e)})
	e.carried.Wait()
	for name, want := range map[string]map[string]float64{
		"slots_used_total": {"ses-eu": 2}, "slots_dropped_total": {"ses-eu": 1}, "unknown_total": {"timeout": 2},
	} {
		if diff := cmp.Diff(want, gauges(t, reg, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

type intentStore struct {
	Store
	ok *bool
}

func (s *intentStore) Intend(context.Context, mail.ID, queue.Intent) (queue.Announced, error) {
	return queue.Announced{OK: *s.ok}, nil
}

func TestCauseOfACallWithoutAVerdict(t *testing.T) {
	t.Parallel()
	for want, failure := range map[string]*provider.Error{
		"answer":  {Class: provider.Uncertain, Status: 502, Err: context.DeadlineExceeded},
		"timeout": {Class: provider.Uncertain, Err: context.DeadlineExceeded},
		"broken":  {Class: provider.Uncertain, Err: errors.New("connection reset by peer")},
	} {
		if got := cause(failure); got != want {
			t.Errorf("cause = %s, want %s", got, want)
		}
	}
}
