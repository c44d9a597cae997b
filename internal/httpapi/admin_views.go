package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/route"
)

// accountView shows an account. Its capabilities are those of its kind; secrets are names only.
func (s *Server) accountView(a *route.Account) api.Account {
	if spec, known := s.kinds.Spec(a.Kind); known {
		a.Capabilities = spec.Capabilities
	}
	out := api.Account{
		Name: a.Name, Kind: string(a.Kind), Settings: a.Settings, Secrets: a.SecretFields, UnreadableSecrets: a.Unreadable,
		Concurrency: a.Concurrency, Limits: views(a.Limits, limitView), State: accountState(a),
		CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt,
	}
	if len(out.Settings) == 0 {
		out.Settings = json.RawMessage("{}")
	}
	out.Capabilities, _ = json.Marshal(a.Capabilities) // a struct of numbers and strings always encodes
	if len(a.Unreadable) > 0 {
		out.Parked = append(out.Parked, api.Park{Reason: "secrets do not open with this server's keys: " + strings.Join(a.Unreadable, ", "), Since: a.UpdatedAt})
	}
	for _, p := range a.Parked {
		out.Parked = append(out.Parked, api.Park{
			SenderDomain: p.SenderDomain, Sender: p.Sender, Reason: p.Reason, Since: p.Since, NextProbe: p.Next,
		})
	}
	return out
}

// accountState returns the strongest reason why the account takes no mail. A park of one sender domain leaves it active.
func accountState(a *route.Account) string {
	switch {
	case a.Draining:
		return "draining"
	case a.Paused:
		return "paused"
	case len(a.Unreadable) > 0:
		return "parked"
	}
	for _, p := range a.Parked {
		if p.SenderDomain == "" {
			return "parked"
		}
	}
	return "active"
}

func limitView(w *limit.Window) api.Limit {
	return api.Limit{N: w.N, Per: per(w.Per), Unit: string(w.Unit)}
}

// per writes a duration without its trailing zeros: "5m", not "5m0s".
func per(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// windowsOf checks the limits of a request. Two windows may not have the same unit and period.
func windowsOf(in []api.Limit) ([]limit.Window, error) {
	if len(in) > maxWindows {
		return nil, invalid("limits", "too_many", fmt.Sprintf("must be at most %d", maxWindows))
	}
	out, bad := make([]limit.Window, 0, len(in)), complaints{}
	for i, l := range in {
		field := fmt.Sprintf("limits[%d]", i)
		d, err := time.ParseDuration(l.Per)
		if err != nil {
			bad.complain(field+".per", "invalid_duration", `must be a duration such as "1s", "5m" or "24h"`)
			continue
		}
		w := limit.Window{N: l.N, Per: d, Unit: limit.Unit(l.Unit)}
		if err := checkWindow(w, out); err != nil {
			bad.complain(field, "invalid_limit", err.Error())
			continue
		}
		out = append(out, w)
	}
	return out, bad.err()
}

// checkWindow checks one limit. Its period must be whole milliseconds, and unit and period must differ from those of others.
func checkWindow(w limit.Window, others []limit.Window) error {
	if err := w.Validate(); err != nil {
		return err
	}
	if w.Per%time.Millisecond != 0 {
		return fmt.Errorf("limit %s: period must be whole milliseconds", w)
	}
	for _, o := range others {
		if o.Unit == w.Unit && o.Per == w.Per {
			return fmt.Errorf("limit %s: given twice for this unit and period", w)
		}
	}
	return nil
}
