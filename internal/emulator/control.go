package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/hostcheck"
)

// control adds the calls of the control API. All of them begin with an underscore.
func (e *Emulator) control(mux *http.ServeMux) {
	mux.HandleFunc("GET /_ledger", e.getLedger)
	mux.HandleFunc("DELETE /_ledger", e.deleteLedger)
	mux.HandleFunc("GET /_ledger/{id}", e.getMails)
	mux.HandleFunc("GET /_ledger/{id}/html", e.showMail)
	mux.HandleFunc("GET /_faults", e.getFaults)
	mux.HandleFunc("PUT /_faults", e.putFaults)
	mux.HandleFunc("DELETE /_faults", e.deleteFaults)
	mux.HandleFunc("GET /_stats", func(w http.ResponseWriter, _ *http.Request) { writeControl(w, e.Stats()) })
	mux.HandleFunc("GET /_hooks", e.getHooks)
	mux.HandleFunc("PUT /_hooks", e.putHooks)
	mux.HandleFunc("DELETE /_hooks", e.deleteHooks)
	mux.HandleFunc("DELETE /_hooks/held", e.releaseHeld)
}

// handler is the whole HTTP side: the control API, and the calls that the providers have added.
func (e *Emulator) handler() http.Handler {
	rule := hostcheck.Rule{Inside: e.opt.AllowRemote, Names: e.opt.AllowHosts, Setting: "--allow-host"}
	return e.tracked(rule.Guard(e.mux))
}

// tracked lets Stop wait for the handlers, which http.Server.Close does not do.
func (e *Emulator) tracked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !e.gate.TryRLock() {
			panic(http.ErrAbortHandler) // Stop is closing the connections
		}
		defer e.gate.RUnlock()
		next.ServeHTTP(w, r)
	})
}

// hostsOf lists the provider in the parameter provider, or all if there is none.
func (e *Emulator) hostsOf(r *http.Request) ([]*Host, error) {
	kind := r.URL.Query().Get("provider")
	if kind == "" {
		return e.hosts, nil
	}
	h, err := e.host(kind)
	return []*Host{h}, err
}

// each calls do for the providers that a request is about.
func (e *Emulator) each(w http.ResponseWriter, r *http.Request, do func(*Host)) {
	hosts, err := e.hostsOf(r)
	if err != nil {
		controlError(w, err)
		return
	}
	for _, h := range hosts {
		do(h)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (e *Emulator) getLedger(w http.ResponseWriter, r *http.Request) {
	entries, err := e.queryLedger(r)
	if err != nil {
		controlError(w, err)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "application/x-ndjson") {
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := json.NewEncoder(w)
		for i := range entries {
			if enc.Encode(entries[i]) != nil {
				return
			}
		}
		return
	}
	writeControl(w, entries)
}

// queryLedger reads the parameters of a ledger request and returns the matching entries.
func (e *Emulator) queryLedger(r *http.Request) ([]Entry, error) {
	var since time.Time
	limit := -1
	q := r.URL.Query()
	for name := range q {
		var err error
		switch value := q.Get(name); name {
		case "provider":
			_, err = e.host(value)
		case "since":
			if since, err = time.Parse(time.RFC3339Nano, value); err != nil {
				err = fmt.Errorf("since %q is not an RFC 3339 time", value)
			}
		case "limit":
			if limit, err = strconv.Atoi(value); err != nil || limit < 1 {
				err = fmt.Errorf("limit %q is not a number from 1", value)
			}
		default:
			err = fmt.Errorf("parameter %q is not one of provider, since, limit", name)
		}
		if err != nil {
			return nil, err
		}
	}
	return filterLedger(e.ledger.snapshot(), q.Get("provider"), since, limit), nil
}

// filterLedger returns up to limit entries of a provider since a time; a limit of -1 means all.
func filterLedger(all []Entry, provider string, since time.Time, limit int) []Entry {
	found := []Entry{}
	for i := range all {
		if len(found) == limit {
			break
		}
		if (provider == "" || all[i].Provider == provider) && !all[i].At.Before(since) {
			found = append(found, all[i])
		}
	}
	return found
}

func (e *Emulator) deleteLedger(w http.ResponseWriter, _ *http.Request) {
	if err := e.ledger.clear(); err != nil {
		e.log.Error("ledger not cleared", "error", err)
		http.Error(w, "ledger not cleared", http.StatusInternalServerError)
		return
	}
	e.mails.clear()
	w.WriteHeader(http.StatusNoContent)
}

func (e *Emulator) getFaults(w http.ResponseWriter, _ *http.Request) {
	writeControl(w, e.faults.left(e.now()))
}

func (e *Emulator) putFaults(w http.ResponseWriter, r *http.Request) {
	all, err := decodeControl[map[string][]Fault](r.Body, `faults are {"<provider>": [{"mode": ...}]}`)
	if err == nil {
		err = e.SetFaults(all)
	}
	if err != nil {
		controlError(w, err)
		return
	}
	e.getFaults(w, r)
}

func (e *Emulator) deleteFaults(w http.ResponseWriter, r *http.Request) {
	e.each(w, r, func(h *Host) { e.faults.drop(h.kind.Name) })
	e.releaseUnheld()
}

// maxControlBody caps the body of a request to the control API, in bytes.
const maxControlBody = 1 << 20

// decodeControl reads JSON strictly. form describes the expected form.
func decodeControl[T any](r io.Reader, form string) (T, error) {
	var v T
	body, err := io.ReadAll(io.LimitReader(r, maxControlBody+1))
	if err != nil {
		return v, fmt.Errorf("read request: %w", err)
	}
	if len(body) > maxControlBody {
		return v, fmt.Errorf("the request is over %d bytes", maxControlBody)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, fmt.Errorf("%s: %w", form, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("the JSON is followed by more data")
	}
	return v, nil
}

func writeControl(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // if the client has left, nothing can be done
}

func controlError(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

// getMails shows the messages with an id, the sender's or the provider's, with their mails.
func (e *Emulator) getMails(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	found := e.mailsOf(r.PathValue("id"))
	if len(found) == 0 {
		w.WriteHeader(http.StatusNotFound)
	}
	writeControl(w, found)
}

// showMail shows the newest mail with an id as a browser would, but without scripts and without content from other hosts.
func (e *Emulator) showMail(w http.ResponseWriter, r *http.Request) {
	for _, m := range slices.Backward(e.mailsOf(r.PathValue("id"))) {
		if m.Mail == nil {
			continue
		}
		kind, text := "text/html; charset=utf-8", m.Mail.HTML
		if text == "" {
			kind, text = "text/plain; charset=utf-8", m.Mail.Text
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, text) //nolint:gosec // the policy above forbids scripts, and the page has no origin
		return
	}
	http.Error(w, "no mail of this id is kept", http.StatusNotFound)
}
