package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

// asker lets those through whose header names the password.
type asker struct{ fakeParser }

func (*asker) CheckHeader(h http.Header, _ time.Time) error {
	if h.Get("Password") != "right" {
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "credentials", Guess: true}
	}
	return nil
}

func openParser() *fakeParser {
	return &fakeParser{receive: func(*provider.Hook) (provider.Batch, error) { return provider.Batch{}, nil }}
}

// 256 bodies that do not come hang on /hooks, of an account where nothing can be told by the header. An event from elsewhere is
// taken, and so is one that comes for another account.
func TestSlowBodiesOfOneAddressLeaveHooksOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"open": openParser(), "asks": &asker{*openParser()}}}))
	addr := r.outside(t, MaxConns)
	post := func(account, password string, length int) string {
		return fmt.Sprintf("POST /hooks/%s HTTP/1.1\r\nHost: x\r\nPassword: %s\r\nContent-Length: %d\r\n\r\nx", account, password, length)
	}
	for range hookReads {
		_, _ = io.WriteString(call(t, "127.0.0.1", addr), post("open", "", 1000))
	}
	for range 2000 { // ms
		if r.server.hookReads.takenNow() == hookReads/2 {
			break
		}
		<-time.After(time.Millisecond)
	}
	if got := r.server.hookReads.takenNow(); got != hookReads/2 {
		t.Errorf("places of one address = %d, want half", got)
	}
	for _, source := range []string{"127.0.0.2", "127.0.0.3"} {
		for _, account := range []string{"open", "asks"} {
			if got := asks(call(t, source, addr), post(account, "right", 1)); got != 200 {
				t.Errorf("event for %s from %s = %d, want 200", account, source, got)
			}
		}
	}
}

// Whoever can be refused by his header gets no place to read a body in.
func TestWrongHeaderGetsNoPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"asks": &asker{*openParser()}}}))
	body := &stalled{end: make(chan struct{})}
	defer close(body.end)
	req := httptest.NewRequest(http.MethodPost, "/hooks/asks", io.NopCloser(body))
	req.ContentLength = -1
	rec := httptest.NewRecorder()
	defer r.server.hookReads.take(holder{}, hookReads, nil).release()
	r.server.Handler().ServeHTTP(rec, req) // and does not hang
	if rec.Code != http.StatusUnauthorized {
		t.Errorf("answer = %d, want 401", rec.Code)
	}
}

func TestGuessingPasswordsEndsForTheGuesserOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"asks": &asker{*openParser()}}}))
	at := func(ip, password string) int {
		req := httptest.NewRequest(http.MethodPost, "/hooks/asks", strings.NewReader("x"))
		req.RemoteAddr = ip + ":1"
		req.Header.Set("Password", password)
		return r.exchange(req).status
	}
	got := map[int]int{}
	for range 100 {
		got[at("192.0.2.1", "guess")]++
	}
	if got[401] != badPasswordsPerMinute || got[429] != 100-badPasswordsPerMinute {
		t.Errorf("answers to 100 guesses = %v, want %d times 401, then 429", got, badPasswordsPerMinute)
	}
	if guesser, owner := at("192.0.2.1", "right"), at("192.0.2.2", "right"); guesser != 429 || owner != 200 {
		t.Errorf("the right password of the guesser = %d, of another address = %d, want 429 and 200", guesser, owner)
	}
	r.clock.move(time.Minute)
	if got := at("192.0.2.1", "right"); got != 200 {
		t.Errorf("the right password a minute later = %d, want 200", got)
	}
}

// numbered gives each account an id of its own.
type numbered map[string]int32

func (n numbered) Hook(account string) (int32, provider.EventParser, bool) {
	id, known := n[account]
	return id, &asker{*openParser()}, known
}

func (numbered) Current(context.Context) bool { return true }

// Clients behind a proxy may all be one address: guesses at one account close no other one.
func TestGuessesAtOneAccountCloseNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Hooks = numbered{"one": 7, "two": 8} })
	post := func(account, password string) int {
		return r.do("POST", "/hooks/"+account, "", "x", "Password", password).status
	}
	for range 2 * badPasswordsPerMinute {
		post("one", "guess")
	}
	if one, two := post("one", "right"), post("two", "right"); one != 429 || two != 200 {
		t.Errorf("the right password of the account that was guessed at = %d, of another account = %d, want 429 and 200", one, two)
	}
	if f := r.server.FailedLogins(true); len(f) != 1 || f[0].Passwords != 2*badPasswordsPerMinute+1 {
		t.Errorf("failed logins = %+v, want %d passwords of one address", f, 2*badPasswordsPerMinute+1)
	}
}
