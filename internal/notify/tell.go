package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	userAgent = "sendgate-notify/1"
	giveUp    = 40 // tries: most of them ten minutes apart, so after some six hours
	soon      = 5 * time.Second
	late      = 10 * time.Minute
)

// tell tries every notice that is due. open are the incidents that last.
func (e *Engine) tell(ctx context.Context, open []incident.Incident) error {
	due, err := e.due(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, len(due))
	var calls sync.WaitGroup
	for i := range due {
		calls.Go(func() { errs[i] = e.try(ctx, &due[i], open) })
	}
	calls.Wait()
	return errors.Join(errs...)
}

func (e *Engine) due(ctx context.Context) ([]incident.Notice, error) {
	ctx, cancel := context.WithTimeout(ctx, dbWait)
	defer cancel()
	return e.Store.DueNotices(ctx, atOnce)
}

// try makes one try, and records it even if ctx has ended meanwhile: otherwise it would be made again.
func (e *Engine) try(ctx context.Context, n *incident.Notice, open []incident.Incident) error {
	var r incident.Result
	switch n.Rule.Channel {
	case incident.Webhook, incident.Slack:
		r = e.post(ctx, n)
	case incident.Mail:
		r = e.write(ctx, n, open)
	}
	outcome := "again"
	if r.Done && r.Error == "" {
		outcome = "told"
	} else if r.Done {
		outcome = "given_up"
	}
	if outcome != "again" || r.Error != "" {
		e.Metrics.Notices.WithLabelValues(string(n.Rule.Channel), outcome).Inc()
		e.Log.InfoContext(ctx, "incident told", "incident", n.Incident.ID, "rule", n.Rule.Name, "end", n.Ended, "outcome", outcome, "error", r.Error)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dbWait)
	defer cancel()
	return e.Store.FinishNotice(ctx, r)
}

// failed is the result of a try that did not work.
func failed(n *incident.Notice, why string) incident.Result {
	n.Tries++
	wait := late
	if n.Tries < 8 {
		wait = min(soon<<(n.Tries-1), late)
	}
	return incident.Result{Notice: n, Error: why, Done: n.Tries >= giveUp, Again: wait}
}

// post tells a notice by HTTP.
func (e *Engine) post(ctx context.Context, n *incident.Notice) incident.Result {
	if err := e.call(ctx, n); err != nil {
		return failed(n, err.Error())
	}
	n.Tries++
	return incident.Result{Notice: n, Done: true}
}

// call makes one POST. Its error has no URL: that of Slack is a secret.
func (e *Engine) call(ctx context.Context, n *incident.Notice) error {
	target := n.Rule.URL.Reveal()
	if target == "" {
		return errors.New("the secrets of the rule can't be opened: remove the rule, and add it again")
	}
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	now := e.Clock.Now()
	body, err := json.Marshal(bodyOf(n, now))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return errors.New("not a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	if n.Rule.Channel == incident.Webhook {
		if err := e.Sign(req.Header, n.ID.String(), now, body, n.Rule.Secret); err != nil {
			return err
		}
	}
	resp, err := e.Client.Do(req)
	if err != nil {
		if cause, ok := errors.AsType[*url.Error](err); ok {
			err = cause.Err
		}
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only its status counts
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the answer was %d", resp.StatusCode)
	}
	return nil
}

// payload is the body of a webhook, in the shape that Standard Webhooks recommends.
type payload struct {
	Type      string    `json:"type"` // incident.began, incident.ended
	Timestamp time.Time `json:"timestamp"`
	Data      data      `json:"data"`
}

type data struct {
	ID      string        `json:"id"` // of the incident: the same when it ends
	Kind    incident.Kind `json:"kind"`
	Account string        `json:"account,omitempty"`
	Summary string        `json:"summary"`
	Detail  string        `json:"detail,omitempty"`
	Remedy  string        `json:"remedy,omitempty"`
	Runbook string        `json:"runbook"`
	Since   time.Time     `json:"since"`
	Ended   *time.Time    `json:"ended_at,omitempty"`
	Test    bool          `json:"test,omitempty"`
}

// text is what Slack shows, and Mattermost, Rocket.Chat, Zulip and Discord (at /slack) with it.
type text struct {
	Text string `json:"text"`
}

// bodyOf is the body of the POST. For a webhook it is the same for every try, but for Slack it need not be.
func bodyOf(n *incident.Notice, now time.Time) any {
	in := &n.Incident
	if n.Rule.Channel == incident.Slack {
		return text{n.Text()}
	}
	p := payload{Type: "incident.began", Timestamp: in.Began, Data: data{
		ID: in.ID.String(), Kind: in.Kind, Account: in.Account, Summary: n.Title(), Detail: in.Detail, Remedy: in.Remedy(),
		Runbook: in.Kind.Runbook(), Since: in.Since, Test: in.Kind == incident.Test,
	}}
	if n.Ended {
		p.Type, p.Timestamp, p.Data.Ended, p.Data.Remedy = "incident.ended", in.Ended, &in.Ended, ""
	}
	if p.Timestamp.IsZero() {
		p.Timestamp = now
	}
	return p
}

// Test tells an example once and at once by a rule, or returns record.ErrNotFound. For a mail, Done says that it was accepted.
func (e *Engine) Test(ctx context.Context, name string) (incident.Result, error) {
	rule, err := e.Store.NotifyRule(ctx, name)
	if errors.Is(err, seal.ErrSealed) {
		return incident.Result{Error: "the secrets of the rule can't be opened: remove the rule, and add it again"}, nil
	}
	if err != nil {
		return incident.Result{}, err
	}
	now := e.Clock.Now()
	n := &incident.Notice{ID: e.Clock.NewID(), Rule: *rule, Incident: incident.Incident{
		ID: e.Clock.NewID(), Kind: incident.Test, Detail: "It came by the rule " + rule.Name + ". Nothing is wrong.", Since: now, Began: now,
	}}
	if rule.Channel == incident.Mail {
		r := e.send(ctx, n, nil)
		r.Done = !n.Message.IsZero()
		return r, nil
	}
	return e.post(ctx, n), nil
}
