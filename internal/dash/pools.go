package dash

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
)

// stake is one account of a pool, with its share now and under other weights.
type stake struct {
	Account   string
	State     string
	Was, Will float64 // weights
	Typed     string  // what the form has
	Member    bool    // in the pool now
	Now, Then float64 // shares of the mail, 0 to 1, of the accounts that take mail
	Binds     string  // the limit that is full or nearly so
}

// table is a pool with a proposal for it.
type table struct {
	api.Pool
	Stakes   []stake
	Changed  bool
	Stale    *api.Pool // somebody else's version, in a conflict
	Previous *api.Pool // before the change that was just made
	Overflow string    // proposed
}

func listPools(v *visit) error {
	pools, err := v.api.Pools(v.r.Context())
	if err != nil {
		return err
	}
	s, err := v.current()
	if err != nil {
		return err
	}
	tables := make([]table, 0, len(pools))
	for _, p := range pools {
		tables = append(tables, newTable(p, &s, p.Accounts))
	}
	return v.show(http.StatusOK, "pools", "pools", "Pools", tables)
}

func showPool(v *visit) error {
	p, err := v.api.Pool(v.r.Context(), v.param("pool"))
	if err != nil {
		return err
	}
	s, err := v.current()
	if err != nil {
		return err
	}
	t := newTable(*p, &s, p.Accounts)
	return v.show(http.StatusOK, "pool", "pools", p.Name, &t)
}

// previewPool shows what weights would shift, and changes nothing. htmx gets the table alone.
func previewPool(v *visit) error {
	p, err := v.api.Pool(v.r.Context(), v.param("pool"))
	if err != nil {
		return err
	}
	t, err := v.proposal(p)
	if err != nil {
		return err
	}
	if v.partial() {
		return v.show(http.StatusOK, "shift", "pools", p.Name, t)
	}
	return v.show(http.StatusOK, "pool", "pools", p.Name, t)
}

// proposal is a pool with the weights of the form.
func (v *visit) proposal(p *api.Pool) (*table, error) {
	s, err := v.current()
	if err != nil {
		return nil, err
	}
	members, err := v.members()
	if err != nil {
		return nil, err
	}
	t := newTable(*p, &s, members)
	t.Overflow = cmp.Or(v.field("overflow"), p.Overflow)
	t.Changed = t.Changed || t.Overflow != p.Overflow
	return &t, nil
}

// members reads the weights of the form: the fields "w." and the name of an account. An empty one means that it is not in the pool.
func (v *visit) members() ([]api.PoolMember, error) {
	var members []api.PoolMember
	bad := &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Invalid", Code: "invalid", Detail: "Some weights can't be read. Nothing was changed."}
	if err := v.r.ParseForm(); err != nil {
		return nil, bad
	}
	for field, values := range v.r.Form {
		name, ok := strings.CutPrefix(field, "w.")
		text := strings.TrimSpace(values[0])
		if !ok || text == "" {
			continue
		}
		w, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(w) || math.IsInf(w, 0) {
			bad.Errors = append(bad.Errors, api.FieldProblem{Field: name, Message: "must be a number"})
		}
		members = append(members, api.PoolMember{Account: name, Weight: w})
	}
	if len(bad.Errors) > 0 {
		return nil, bad
	}
	slices.SortFunc(members, func(a, b api.PoolMember) int { return cmp.Compare(a.Account, b.Account) })
	return members, nil
}

// savePool replaces the weights if the pool is still as the person saw it. Else it shows both versions, and nothing is changed.
func savePool(v *visit) error {
	ctx, name := v.r.Context(), v.param("pool")
	version, err := strconv.ParseInt(v.field("version"), 10, 64)
	if err != nil || version < 1 { // 0 would replace any version
		return &api.Problem{Status: http.StatusBadRequest, Title: "Malformed form", Detail: "The form has no version. Open the pool again."}
	}
	members, err := v.members()
	if err != nil {
		return err
	}
	before, err := v.api.Pool(ctx, name)
	if err != nil {
		return err
	}
	saved, err := v.api.PutPool(ctx, api.Pool{Name: name, Overflow: v.field("overflow"), Accounts: members, Version: version})
	if is(err, "stale") {
		return v.conflict(name)
	}
	if err != nil {
		return err
	}
	v.forget()
	v.done = "weights"
	state, err := v.current()
	if err != nil {
		return err
	}
	t := newTable(*saved, &state, saved.Accounts)
	t.Previous = before // it can be taken back by one button; a URL would let a stranger choose what that button does
	return v.show(http.StatusOK, "pool", "pools", name, &t)
}

// conflict shows what another operator has saved beside what this one wanted.
func (v *visit) conflict(name string) error {
	theirs, err := v.api.Pool(v.r.Context(), name)
	if err != nil {
		return err
	}
	t, err := v.proposal(theirs)
	if err != nil {
		return err
	}
	t.Stale = theirs
	return v.show(http.StatusConflict, "pool", "pools", name, t)
}

// newTable works out the shares of a pool under its weights and under those proposed.
func newTable(p api.Pool, s *state, proposed []api.PoolMember) table {
	t := table{Pool: p, Overflow: p.Overflow}
	now, then := map[string]float64{}, map[string]float64{}
	for _, m := range p.Accounts {
		now[m.Account] = m.Weight
	}
	for _, m := range proposed {
		then[m.Account] = m.Weight
	}
	for _, a := range stakeholders(s.Accounts, p.Accounts) {
		if _, in := now[a.Name]; !in && a.State == "draining" {
			continue
		}
		one := stake{Account: a.Name, State: a.State, Was: now[a.Name], Will: then[a.Name]}
		_, one.Member = now[a.Name]
		if w, in := then[a.Name]; in {
			one.Typed = strconv.FormatFloat(w, 'f', -1, 64)
		}
		for _, l := range s.Limits {
			if l.Account == a.Name {
				if n, near := limitTask(&l); near {
					one.Binds = n.What
				}
			}
		}
		t.Stakes = append(t.Stakes, one)
		_, will := then[a.Name]
		t.Changed = t.Changed || one.Was != one.Will || one.Member != will
	}
	share(t.Stakes)
	return t
}

// stakeholders are the accounts, and the members of a pool that are not among them: the reading of the accounts may be older. A
// member that the form does not have would leave the pool when the form is saved.
func stakeholders(accounts []api.Account, members []api.PoolMember) []api.Account {
	all := slices.Clone(accounts)
	for _, m := range members {
		if !slices.ContainsFunc(accounts, func(a api.Account) bool { return a.Name == m.Account }) {
			all = append(all, api.Account{Name: m.Account})
		}
	}
	return all
}

// share divides the mail among the accounts that take any: those that are active, by weight.
func share(stakes []stake) {
	var was, will float64
	for _, k := range stakes {
		if k.State == "active" {
			was, will = was+k.Was, will+k.Will
		}
	}
	for i := range stakes {
		k := &stakes[i]
		if k.State != "active" {
			continue
		}
		if was > 0 {
			k.Now = k.Was / was
		}
		if will > 0 {
			k.Then = k.Will / will
		}
	}
}
