package httpapi

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// PoolStore keeps pools.
type PoolStore interface {
	CreatePool(ctx context.Context, actor string, p route.Pool) error
	UpdatePool(ctx context.Context, actor string, p route.Pool, ifVersion int64) (route.Pool, error) // 0: any version
}

const (
	maxWeight  = 1e6
	maxMembers = 100
)

func (s *Server) listPools(r *http.Request) (out api.List[api.Pool], err error) {
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return out, err
	}
	return listView(cfg.Pools, poolView), nil
}

func (s *Server) getPool(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	return s.showPool(w, r, http.StatusOK, pathParam(r, "pool"))
}

func (s *Server) createPool(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.PoolRequest](s, w, r)
	if err != nil {
		return err
	}
	if !validName(in.Name) {
		return invalidName("name")
	}
	p, err := s.pool(r, in.Name, in)
	if err != nil {
		return err
	}
	if err := s.store.CreatePool(r.Context(), principal(r).ID, p); err != nil {
		return conflict(err, "name_taken", "There is a pool of that name.")
	}
	w.Header().Set("Location", "/admin/v1/pools/"+p.Name)
	return afterStore(s.showPool(w, r, http.StatusCreated, p.Name))
}

// putPool replaces a pool. It needs If-Match, so that one of two operators who change it at once gets an error (RFC 6585
// section 3, RFC 9110 section 13.1.1).
func (s *Server) putPool(w http.ResponseWriter, r *http.Request) error {
	version, err := ifMatch(r)
	if err != nil {
		return err
	}
	in, err := read[api.PoolRequest](s, w, r)
	if err != nil {
		return err
	}
	name := pathParam(r, "pool")
	if in.Name != "" && in.Name != name {
		return invalid("name", "fixed", "can't be changed")
	}
	p, err := s.pool(r, name, in)
	if err != nil {
		return err
	}
	updated, err := s.store.UpdatePool(r.Context(), principal(r).ID, p, version)
	if err != nil {
		return missing(err, "There is no such pool.")
	}
	w.Header().Set("ETag", etag(updated.Version))
	return writeJSON(w, http.StatusOK, poolView(&updated))
}

// pool makes a pool from a request and checks it against the existing accounts.
func (s *Server) pool(r *http.Request, name string, in api.PoolRequest) (route.Pool, error) {
	if in.Overflow == "" {
		in.Overflow = string(route.Spill)
	}
	p := route.Pool{Name: name, Overflow: route.Overflow(in.Overflow)}
	if p.Overflow != route.Spill && p.Overflow != route.Wait {
		return p, invalid("overflow", "unknown_overflow", "must be spill or wait")
	}
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return p, err
	}
	if p.Members, err = membersOf(in.Accounts, cfg); err != nil {
		return p, err
	}
	return p, nil
}

// membersOf checks weights: finite, 0 to 1e6, at least one above 0, each account known and named once.
func membersOf(in []api.PoolMember, cfg *route.Config) ([]route.Member, error) {
	if len(in) > maxMembers {
		return nil, invalid("accounts", "too_many", fmt.Sprintf("must be at most %d", maxMembers))
	}
	out, bad, total := make([]route.Member, 0, len(in)), complaints{}, 0.0
	seen := map[string]bool{}
	for i, m := range in {
		at, a := fmt.Sprintf("accounts[%d].", i), cfg.Account(m.Account)
		switch {
		case a == nil || a.Draining:
			bad.complain(at+"account", "unknown_account", "is not an account"+didYouMean(m.Account, accountNames(cfg)))
		case seen[m.Account]:
			bad.complain(at+"account", "duplicate", "is in the list twice")
		case math.IsNaN(m.Weight) || m.Weight < 0 || m.Weight > maxWeight:
			bad.complain(at+"weight", "out_of_range", "must be 0 to 1000000")
		default:
			seen[m.Account] = true
			total += m.Weight
			out = append(out, route.Member{Account: m.Account, Weight: m.Weight})
		}
	}
	if len(bad) == 0 && total <= 0 {
		bad.complain("accounts", "no_weight", "must have at least one account with a weight above 0")
	}
	slices.SortFunc(out, func(a, b route.Member) int { return strings.Compare(a.Account, b.Account) })
	return out, bad.err()
}

func accountNames(cfg *route.Config) []string {
	names := make([]string, 0, len(cfg.Accounts))
	for i := range cfg.Accounts {
		if a := &cfg.Accounts[i]; !a.Draining {
			names = append(names, a.Name)
		}
	}
	return names
}

// showPool answers with the pool as the store has it now.
func (s *Server) showPool(w http.ResponseWriter, r *http.Request, status int, name string) error {
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return err
	}
	p := cfg.Pool(name)
	if p == nil {
		return refuse(http.StatusNotFound, "not_found", "There is no such pool.")
	}
	w.Header().Set("ETag", etag(p.Version))
	return writeJSON(w, status, poolView(p))
}

func poolView(p *route.Pool) api.Pool {
	member := func(m *route.Member) api.PoolMember { return api.PoolMember{Account: m.Account, Weight: m.Weight} }
	return api.Pool{Name: p.Name, Overflow: string(p.Overflow), Version: p.Version, Accounts: views(p.Members, member)}
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// ifMatch reads the version that the caller has seen. 0 stands for "*", which matches any version. A well-formed tag that we
// never gave is stale. Weak tags never match.
func ifMatch(r *http.Request) (int64, error) {
	tag := strings.TrimSpace(strings.Join(r.Header.Values("If-Match"), ","))
	switch {
	case tag == "":
		return 0, refuse(http.StatusPreconditionRequired, "precondition_required",
			"Send If-Match with the ETag of the version that you have read.")
	case tag == "*":
		return 0, nil
	case strings.Contains(tag, ","):
		return 0, refuse(http.StatusBadRequest, "invalid_if_match", "Send exactly one entity tag, or *.")
	case len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"':
		if strings.HasPrefix(tag, `W/"`) {
			return 0, record.ErrStale
		}
		return 0, refuse(http.StatusBadRequest, "invalid_if_match", `If-Match must be an entity tag, such as "3", or *.`)
	}
	version, err := strconv.ParseInt(tag[1:len(tag)-1], 10, 64)
	if err != nil || version < 1 || etag(version) != tag {
		return 0, record.ErrStale
	}
	return version, nil
}
