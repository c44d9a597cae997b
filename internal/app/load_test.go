//go:build drill

package app

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

func TestNewSettingsFailNoCall(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	b.concurrency(t, "ses", 10) // a backlog
	r := b.start(t)
	b.faults(t, map[string][]emulator.Fault{"ses": {{Mode: "latency", Latency: emulator.Duration(100 * time.Millisecond)}}})
	const n = 120 // more than a second
	only(t, r, "ses")
	submit(t, r.api, letters(n))
	secret := b.emu.Secret("ses", "secret_access_key")
	changes := 0
	for ; changes < 6 && b.count(t.Context(), openSQL) > 0; changes++ {
		if _, err := r.admin.PatchAccount(t.Context(), "ses", api.AccountRequest{Secrets: map[string]string{"secret_access_key": secret}}); err != nil {
			t.Fatal(err)
		}
		pause(t, 150*time.Millisecond)
	}
	if changes < 2 {
		t.Errorf("changes under load = %d: the test shows nothing", changes)
	}
	b.settle(t, time.Minute)
	if got := b.statuses(t); got["sent"] != n {
		t.Errorf("statuses = %v, want %d sent", got, n)
	}
	if bad := b.count(t.Context(), `SELECT count(*) FROM attempt WHERE class <> 'accepted'`); bad != 0 {
		t.Errorf("attempts that were not accepted = %d, want 0", bad)
	}
	b.checkOnce(t)
}

// The rule is "wait"; a drill shows it with "spill".
func TestABlackHoleDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	b.concurrency(t, "sendgrid", 5)
	r := b.start(t)
	setOverflow(t, r, "wait")
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "black_hole"}}})
	const n = 200
	ids := submit(t, r.api, letters(n))
	others := 0
	for _, h := range homes(t, ids, everyAccount(1.0)) {
		if h != "sendgrid" {
			others++
		}
	}
	start := time.Now()
	eventually(t, 25*time.Second, "what is not for the black hole is sent", func() bool { return len(b.ledger()) >= others })
	t.Logf("%d of %d sent in %s beside a black hole", len(b.ledger()), n, time.Since(start).Round(time.Millisecond))
	b.checkOnce(t)
	if err := b.emu.Stop(t.Context()); err != nil { // ends the calls, so that the drain is quick
		t.Error(err)
	}
}

// concurrency sets how many calls an account may have at a time, before a replica starts.
func (b *bench) concurrency(t *testing.T, account string, n int) {
	t.Helper()
	if _, err := b.rows.Exec(t.Context(), `UPDATE account SET concurrency = $2 WHERE name = $1`, account, n); err != nil {
		t.Fatal(err)
	}
}

// statuses counts messages by status.
func (b *bench) statuses(t *testing.T) map[string]int {
	t.Helper()
	rows, err := b.rows.Query(t.Context(), `SELECT status, count(*) FROM message GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]int{}
	for rows.Next() {
		var status string
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			t.Fatal(err)
		}
		all[status] = n
	}
	return all
}
