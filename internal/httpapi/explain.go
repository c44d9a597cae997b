package httpapi

import (
	"net/http"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/route"
)

// explain takes the body of a send, checks it as a send is checked, and answers what routing would do with it now. It stores
// nothing. It does not apply rules of a key, such as its sender domains: nothing is sent by this key.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) error {
	in, err := read[sendRequest](s, w, r)
	if err != nil {
		return err
	}
	caps := mail.DefaultCaps()
	caps.Expiry = s.defaultExpiry
	m, err := in.draft().Message(s.clock(), caps)
	if err != nil {
		return err
	}
	facts := m.Facts()
	return writeJSON(w, http.StatusOK, api.Explanation{
		Facts: factsView(facts), Decision: decisionView(s.router.Explain(route.Request{Facts: &facts})),
	})
}

func factsView(f mail.Facts) api.Facts {
	return api.Facts{
		Account: f.Account, Stream: f.Stream, Tags: f.Tags, SenderDomain: f.SenderDomain, RecipientDomains: f.Domains,
		Recipients: f.Recipients, Bytes: f.Bytes, Attachments: f.Attachments, NeedsSMTPUTF8: f.NeedsSMTPUTF8,
		Calendar: f.Calendar,
	}
}

func decisionView(d route.Decision) api.Decision {
	out := api.Decision{
		Config: d.Config, Rule: d.Rule, Pool: d.Pool, Pinned: d.Pinned, Chosen: d.Chosen, WaitsFor: d.WaitsFor,
		Spilled:    d.Spilled,
		Probe:      d.Probe,
		Omitted:    d.Omitted,
		Candidates: make([]api.Candidate, 0, len(d.Candidates)),
	}
	for _, c := range d.Candidates {
		out.Candidates = append(out.Candidates, api.Candidate{
			Account: c.Account, Weight: c.Weight, Code: string(c.Code), Reason: c.Reason, Until: optional(c.Until),
		})
	}
	return out
}
