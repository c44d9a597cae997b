package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/hostcheck"
)

// handler is the whole HTTP surface.
func (e *Emulator) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_ledger", e.getLedger)
	mux.HandleFunc("DELETE /_ledger", e.deleteLedger)
	mux.HandleFunc("GET /_faults", e.getFaults)
	mux.HandleFunc("PUT /_faults", e.putFaults)
	mux.HandleFunc("DELETE /_faults", e.deleteFaults)
	mux.HandleFunc("GET /_stats", e.getStats)
	mux.HandleFunc("GET /_hooks", e.getHooks)
	mux.HandleFunc("PUT /_hooks", e.putHooks)
	mux.HandleFunc("DELETE /_hooks", e.deleteHooks)
	mux.HandleFunc("DELETE /_hooks/held", e.releaseHeld)
	e.registrations(mux)
	e.lookups(mux)

	sg := sendGrid{e}
	mux.Handle("POST /sendgrid/v3/mail/send", e.send(sg))
	mux.Handle("/sendgrid/", answer(sg.unknown))

	mg := mailgun{e}
	mux.Handle("POST /mailgun/v3/{domain}/messages", e.send(mg))
	mux.Handle("POST /mailgun/v3/{domain}/messages.mime", e.send(mg))
	mux.Handle("/mailgun/", answer(mg.unknown))

	pm := postmark{e}
	mux.Handle("POST /postmark/email", e.send(pm))
	mux.Handle("POST /postmark/email/batch", e.send(pm))
	mux.Handle("/postmark/", answer(pm.unknown))

	sv := ses{e}
	mux.Handle("POST /ses/v2/email/outbound-emails", e.send(sv))
	mux.Handle("GET /ses/v2/email/account", answer(sv.account))
	mux.Handle("/ses/", answer(sv.unknown))
	rule := hostcheck.Rule{Inside: e.opt.AllowRemote, Names: e.opt.AllowHosts, Setting: "--allow-host"}
	return e.tracked(rule.Guard(mux))
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

func (e *Emulator) queryLedger(r *http.Request) ([]Entry, error) {
	var since time.Time
	limit := -1
	q := r.URL.Query()
	for name := range q {
		var err error
		switch value := q.Get(name); name {
		case "provider":
			if !slices.Contains(kinds(), value) {
				err = fmt.Errorf("provider %q is not one of %s", value, strings.Join(kinds(), ", "))
			}
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

func filterLedger(all []Entry, provider string, since time.Time, limit int) []Entry {
	found := []Entry{}
	for i := range all {
		if limit >= 0 && len(found) == limit {
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
	w.WriteHeader(http.StatusNoContent)
}

func (e *Emulator) getFaults(w http.ResponseWriter, _ *http.Request) {
	writeControl(w, e.faults.left(e.now()))
}

func (e *Emulator) putFaults(w http.ResponseWriter, r *http.Request) {
	all, err := decodeScript(r.Body)
	if err != nil {
		controlError(w, err)
		return
	}
	e.faults.set(all)
	e.releaseUnheld()
	writeControl(w, e.faults.left(e.now()))
}

func (e *Emulator) deleteFaults(w http.ResponseWriter, r *http.Request) {
	kind, err := kindParam(r)
	if err != nil {
		controlError(w, err)
		return
	}
	e.faults.drop(kind)
	e.releaseUnheld()
	w.WriteHeader(http.StatusNoContent)
}

func (e *Emulator) getStats(w http.ResponseWriter, _ *http.Request) { writeControl(w, e.Stats()) }

func writeControl(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that has left is no concern of ours
}

func controlError(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}
