package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// patience is how long an account may take to send the mail of a notice before another one gets it.
const patience = 15 * time.Second

// write tells a notice by mail: it has one accepted, watches it, and gives it to another account if it is not sent in time.
// The notice is done once a provider has taken the mail.
func (e *Engine) write(ctx context.Context, n *incident.Notice, open []incident.Incident) incident.Result {
	if n.Message.IsZero() {
		return e.send(ctx, n, open)
	}
	status, account, err := e.Store.NoticeMail(ctx, n.Message)
	if err != nil {
		return failed(n, err.Error())
	}
	elsewhere := func() incident.Result {
		n.Message, n.Tried = mail.ID{}, append(n.Tried, account)
		return e.send(ctx, n, open)
	}
	late := e.Clock.Now().Sub(n.Message.Time()) >= patience
	switch status {
	case mail.Sent, mail.Delivered, mail.Deferred, mail.Complained:
		return incident.Result{Notice: n, Done: true}
	case mail.Suppressed:
		return incident.Result{Notice: n, Done: true, Error: "the recipients are on the suppression list"}
	case mail.Bounced:
		return incident.Result{Notice: n, Done: true, Error: "the mail bounced"}
	case mail.Failed, mail.Expired, mail.Cancelled, mail.FailedUnknown:
		return elsewhere()
	case mail.Sending, mail.Scheduled:
	case mail.Unknown: // a notice that comes twice is better than one that does not come
		if late {
			return elsewhere()
		}
	case mail.Queued:
		if !late {
			break
		}
		err := e.Store.Cancel(ctx, mail.DefaultTenant, n.Message)
		if err == nil {
			return elsewhere()
		}
		if !errors.Is(err, record.ErrConflict) { // it is being sent now
			return failed(n, err.Error())
		}
	}
	return incident.Result{Notice: n, Again: e.Every}
}

// send has a mail accepted, for an account that is not in trouble.
func (e *Engine) send(ctx context.Context, n *incident.Notice, open []incident.Incident) incident.Result {
	m, err := e.letter(n)
	if err != nil {
		return incident.Result{Notice: n, Done: true, Error: err.Error()}
	}
	m.Account = e.choose(m, n, open)
	if m.Account == "" {
		n.Tried = nil // from the beginning
		return failed(n, "no other account can send the mail now")
	}
	// After a crash the same try gives the same mail.
	key := fmt.Sprintf("sendgate-notice/%s/%d", n.ID, n.Tries)
	a, err := e.Store.Accept(ctx, &record.Submission{Message: m, Key: key})
	if err != nil {
		return failed(n, err.Error())
	}
	if !a.Replayed {
		e.Metrics.Accepted.WithLabelValues("accepted").Inc()
	}
	n.Tries++
	n.Message = a.ID
	return incident.Result{Notice: n, Again: e.Every}
}

func (e *Engine) letter(n *incident.Notice) (*mail.Message, error) {
	d := mail.Draft{
		From: mail.Mailbox{Text: n.Rule.From}, Subject: "[sendgate] " + n.Title(), Text: n.Text(), Tags: []string{"sendgate-notice"},
		Headers:     []mail.Header{{Name: "Auto-Submitted", Value: "auto-generated"}},
		OnAmbiguous: string(mail.Never), // write gives it to another account instead
	}
	for _, to := range n.Rule.To {
		d.To = append(d.To, mail.Mailbox{Text: to})
	}
	m, err := d.Message(e.Clock.Now(), mail.DefaultCaps())
	if err != nil {
		return nil, err
	}
	m.ID, m.Tenant = e.Clock.NewID(), mail.DefaultTenant
	return m, nil
}

// choose returns an account that can take the mail: not the one that the incident is about, and none that has failed to send it.
// Those with a weight in some pool come first, and those that another incident is about come last. It returns "" if there is none.
func (e *Engine) choose(m *mail.Message, n *incident.Notice, open []incident.Incident) string {
	c := e.Router.Config()
	if c == nil {
		return ""
	}
	best, chosen := 4, ""
	for i := range c.Accounts {
		a := &c.Accounts[i]
		if a.Draining || a.Paused || a.Name == n.Incident.Account || slices.Contains(n.Tried, a.Name) {
			continue
		}
		f := m.Facts()
		f.Account = a.Name
		d := e.Router.Explain(route.Request{Facts: &f})
		if d.Chosen == "" || d.Probe { // a probe is let through to an account that refuses mail
			continue
		}
		rank := 0
		if !weighted(c, a.Name) {
			rank++
		}
		if ill(open, a.Name) {
			rank += 2
		}
		if rank < best {
			best, chosen = rank, a.Name
		}
	}
	return chosen
}

func weighted(c *route.Config, account string) bool {
	return slices.ContainsFunc(c.Pools, func(p route.Pool) bool {
		return slices.ContainsFunc(p.Members, func(m route.Member) bool { return m.Account == account && m.Weight > 0 })
	})
}

func ill(open []incident.Incident, account string) bool {
	return slices.ContainsFunc(open, func(in incident.Incident) bool {
		return in.Account == account && in.Ended.IsZero() && (in.Kind == incident.ProviderDown || in.Kind == incident.AuthFailure)
	})
}
