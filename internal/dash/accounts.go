package dash

import (
	"net/http"

	"github.com/sendgate/sendgate/api"
)

// seat is one account as the list shows it.
type seat struct {
	api.Account
	Windows  []api.WindowState
	Webhooks *api.AccountWebhooks
	Pools    []string
}

func seats(s *state, pools []api.Pool) []seat {
	out := make([]seat, 0, len(s.Accounts))
	for _, a := range s.Accounts {
		one := seat{Account: a, Webhooks: s.Webhooks[a.Name]}
		for _, l := range s.Limits {
			if l.Account == a.Name {
				one.Windows = append(one.Windows, l)
			}
		}
		for _, p := range pools {
			for _, m := range p.Accounts {
				if m.Account == a.Name && m.Weight > 0 {
					one.Pools = append(one.Pools, p.Name)
				}
			}
		}
		out = append(out, one)
	}
	return out
}

func listAccounts(v *visit) error {
	s, err := v.current()
	if err != nil {
		return err
	}
	pools, err := v.api.Pools(v.r.Context())
	if err != nil {
		return err
	}
	x := struct {
		At    any
		Seats []seat
	}{s.At, seats(&s, pools)}
	return v.show(http.StatusOK, "accounts", "accounts", "Accounts", x)
}

func showAccount(v *visit) error {
	ctx, name := v.r.Context(), v.param("account")
	a, err := v.api.Account(ctx, name)
	if err != nil {
		return err
	}
	s := state{Accounts: []api.Account{*a}, Webhooks: map[string]*api.AccountWebhooks{}}
	if s.Limits, err = v.api.Limits(ctx); err != nil {
		return err
	}
	if s.Webhooks[name], err = v.api.AccountWebhooks(ctx, name); err != nil {
		return err
	}
	pools, err := v.api.Pools(ctx)
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "account", "accounts", name, seats(&s, pools)[0])
}

func pauseAccount(v *visit) error {
	if _, err := v.api.PauseAccount(v.r.Context(), v.param("account")); err != nil {
		return err
	}
	v.forget()
	return v.back(accountLink(v.param("account")), "paused")
}

func resumeAccount(v *visit) error {
	if _, err := v.api.ResumeAccount(v.r.Context(), v.param("account")); err != nil {
		return err
	}
	v.forget()
	return v.back(accountLink(v.param("account")), "resumed")
}

// forget makes the next page read the state again, so that it shows what was just changed.
func (v *visit) forget() { v.state.forget() }
