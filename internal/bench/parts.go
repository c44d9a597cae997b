package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/app"
	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
)

// play runs a part until it is told to end.
func play(role string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch role {
	case "instant":
		return playInstant(ctx)
	case "emulator":
		return playEmulator(ctx)
	case "bare":
		return playBare(ctx, os.Getenv("SENDGATE_BENCH_DATABASE"))
	default:
		return errors.New("no such part")
	}
}

// providers is what a part that plays the providers says when it is ready.
type providers struct {
	URL      string
	Accounts []api.AccountRequest
}

// playEmulator runs the emulators without limits. They report events to the URL in the environment.
func playEmulator(ctx context.Context) error {
	opt := emulator.Options{Hooks: map[string]emulator.Hook{}, EventPace: 20 * time.Millisecond}
	if to := os.Getenv("SENDGATE_BENCH_HOOKS"); to != "" {
		for _, kind := range emulated.Kinds() {
			if kind.Name != "smtp" { // which reports by mail, to another port
				opt.Hooks[kind.Name] = emulator.Hook{"url": to + "/hooks/" + kind.Name}
			}
		}
	}
	emu, err := emulated.New(opt)
	if err != nil {
		return err
	}
	if err := emu.Start(ctx); err != nil {
		return err
	}
	all, err := accountsOf(emu)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(providers{emu.URL(), all}); err != nil {
		return err
	}
	<-ctx.Done()
	return emu.Stop(context.WithoutCancel(ctx))
}

// accountsOf are the accounts at the emulators, as the admin API takes them, without limits.
func accountsOf(emu *emulator.Emulator) ([]api.AccountRequest, error) {
	accounts, secrets, err := app.Emulated(emu, false)
	if err != nil {
		return nil, err
	}
	var all []api.AccountRequest
	for _, a := range accounts {
		revealed := map[string]string{}
		for field, s := range secrets[a.Name] {
			revealed[field] = s.Reveal()
		}
		all = append(all, api.AccountRequest{Name: a.Name, Kind: string(a.Kind), Settings: a.Settings, Secrets: revealed, Limits: &[]api.Limit{}})
	}
	return all, nil
}

// instant answers every call at once as each provider documents its acceptance, without looking at it. It counts messages and
// calls, and notes when the mail for "pickup-N@" came.
type instant struct {
	mails atomic.Int64
	calls atomic.Int64
	mu    sync.Mutex
	seen  map[string]time.Time
}

// taken is what the providers have had.
type taken struct{ Mails, Calls int64 }

func (t taken) since(before taken) taken {
	return taken{t.Mails - before.Mails, t.Calls - before.Calls}
}

var pickupMark = regexp.MustCompile(`pickup-\d+`)

// look notes a call that brings n messages, and returns an id for the first.
func (i *instant) look(body []byte, n int, at time.Time) (first int64) {
	i.calls.Add(1)
	first = i.mails.Add(int64(n)) - int64(n) + 1
	if m := pickupMark.Find(body); m != nil {
		i.mu.Lock()
		i.seen[string(m)] = at
		i.mu.Unlock()
	}
	return first
}

// ServeHTTP answers below /KIND/ as that provider does.
func (i *instant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	switch r.URL.Path {
	case "/_taken":
		_ = json.NewEncoder(w).Encode(taken{i.mails.Load(), i.calls.Load()})
		return
	case "/_seen":
		i.mu.Lock()
		defer i.mu.Unlock()
		_ = json.NewEncoder(w).Encode(i.seen)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	kind, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	n, together := 1, strings.HasSuffix(path, "/batch")
	var mails []json.RawMessage
	switch {
	case together && json.Unmarshal(body, &mails) == nil:
		n = len(mails)
	case kind == "sendgrid":
		n = max(1, bytes.Count(body, []byte(`{"to":`))) // its personalizations
	}
	first := i.look(body, n, at)
	w.Header().Set("Content-Type", "application/json")
	switch kind {
	case "sendgrid":
		w.Header().Del("Content-Type")
		w.Header().Set("X-Message-Id", fmt.Sprintf("bench%x", first))
		w.WriteHeader(http.StatusAccepted)
	case "mailgun":
		_, _ = fmt.Fprintf(w, `{"id":"<bench%x@mg.example.com>","message":"Queued. Thank you."}`, first)
	case "postmark":
		at := at.UTC().Format(time.RFC3339)
		_, _ = io.WriteString(w, answers(first, n, together, func(id int64) string {
			return fmt.Sprintf(`{"To":"x@example.org","SubmittedAt":%q,"MessageID":"00000000-0000-4000-8000-%012x","ErrorCode":0,"Message":"OK"}`, at, id)
		}))
	case "ses":
		_, _ = fmt.Fprintf(w, `{"MessageId":"bench%x"}`, first)
	case "resend":
		text := answers(first, n, together, func(id int64) string { return fmt.Sprintf(`{"id":"00000000-0000-4000-8000-%012x"}`, id) })
		if together {
			text = `{"data":` + text + `}`
		}
		_, _ = io.WriteString(w, text)
	default:
		http.NotFound(w, r)
	}
}

// answers are those to n messages: an array if they came together.
func answers(first int64, n int, together bool, one func(id int64) string) string {
	if !together {
		return one(first)
	}
	all := make([]string, n)
	for k := range all {
		all[k] = one(first + int64(k))
	}
	return "[" + strings.Join(all, ",") + "]"
}

// playInstant runs the providers that answer at once.
func playInstant(ctx context.Context) error {
	i := &instant{seen: map[string]time.Time{}}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web := &http.Server{Handler: i, ReadHeaderTimeout: time.Minute}
	go func() { _ = web.Serve(l) }()
	relay := smtp.NewServer(i)
	relay.Domain, relay.AllowInsecureAuth, relay.EnableSMTPUTF8 = "relay.example.com", true, true
	port, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = relay.Serve(port) }()
	all, err := i.accounts(ctx, "http://"+l.Addr().String(), port.Addr())
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(providers{"http://" + l.Addr().String(), all}); err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(web.Close(), relay.Close())
}

// accounts are those of the emulators, at our own addresses.
func (i *instant) accounts(ctx context.Context, url string, relay net.Addr) ([]api.AccountRequest, error) {
	emu, err := emulated.New(emulator.Options{})
	if err != nil {
		return nil, err
	}
	if err := emu.Start(ctx); err != nil {
		return nil, err
	}
	all, err := accountsOf(emu)
	theirs := emu.URL()
	if err = errors.Join(err, emu.Stop(ctx)); err != nil {
		return nil, err
	}
	for n := range all {
		a := &all[n]
		a.Settings = bytes.ReplaceAll(a.Settings, []byte(theirs), []byte(url))
		if a.Kind != "smtp" {
			continue
		}
		settings := map[string]any{}
		if err := json.Unmarshal(a.Settings, &settings); err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(relay.String())
		if err != nil {
			return nil, err
		}
		if settings["port"], err = strconv.Atoi(port); err != nil {
			return nil, err
		}
		if a.Settings, err = json.Marshal(settings); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// NewSession implements smtp.Backend.
func (i *instant) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{i}, nil }

// session takes every mail of every sender.
type session struct{ to *instant }

func (*session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (*session) Auth(string) (sasl.Server, error) { //nolint:unparam // of smtp.AuthSession
	return sasl.NewPlainServer(func(string, string, string) error { return nil }), nil
}
func (*session) Mail(string, *smtp.MailOptions) error { return nil }
func (*session) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*session) Reset()                               {}
func (*session) Logout() error                        { return nil }

func (s *session) Data(r io.Reader) error {
	at := time.Now()
	body, err := io.ReadAll(r)
	if err == nil {
		s.to.look(body, 1, at)
	}
	return err
}
