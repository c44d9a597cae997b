package resend

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/sendgate/sendgate/internal/provider"
)

// maxBatch is the cap of "Send Batch Emails" on emails.
const maxBatch = 100

// Batch implements provider.Batcher. "Send Batch Emails" does not take attachments.
func (c *Client) Batch() provider.BatchSpec {
	spec := Spec().Batch
	spec.Max = cmp.Or(c.cfg.BatchSize, spec.Max)
	return spec
}

// SendBatch implements provider.Batcher: POST /emails/batch. In the permissive mode Resend takes the emails that are valid, and
// says which are not. The call has no idempotency key.
func (c *Client) SendBatch(ctx context.Context, all []*provider.Send) []provider.Outcome {
	outcomes, emails := make([]provider.Outcome, len(all)), make([]*email, 0, len(all))
	for i, s := range all {
		if perr := unfit(s); perr != nil {
			outcomes[i] = provider.Outcome{Err: perr, LeftOut: true}
			continue
		}
		emails = append(emails, build(s))
	}
	if len(emails) == 0 {
		return outcomes
	}
	header := c.header()
	header.Set("X-Batch-Validation", "permissive")
	a, perr := c.post(ctx, "/emails/batch", header, emails)
	if perr != nil {
		return forAll(outcomes, all, perr)
	}
	results, ok := a.each(len(emails))
	if !ok {
		if a.Status < 300 { // whatever it says, emails may have been taken
			a.Body = nil
		}
		return forAll(outcomes, all, c.failure(a))
	}
	for i, s := range all {
		if outcomes[i].LeftOut {
			continue
		}
		if id := results[0].acceptance(); id != "" {
			outcomes[i].Receipt = provider.Receipt{ProviderMessageID: provider.Cut(id), Refused: later(s)}
		} else {
			outcomes[i].Err = without(c.failure(results[0]), s)
		}
		results = results[1:]
	}
	return outcomes
}

// unfit says why a message can't be in a batch, or is nil.
func unfit(s *provider.Send) *provider.Error {
	if len(s.Message.Attachments) > 0 {
		return &provider.Error{Class: provider.Transient, Detail: "resend: an email with attachments is not taken with others", Shared: true}
	}
	return Spec().Refuse(s)
}

// forAll gives the messages of the call its failure, each with the recipients for whom the call had no room.
func forAll(outcomes []provider.Outcome, all []*provider.Send, failure *provider.Error) []provider.Outcome {
	for i, o := range provider.ForAll(outcomes, failure, false) {
		if perr, ok := errors.AsType[*provider.Error](o.Err); ok && !o.LeftOut {
			own := *perr
			outcomes[i].Err = without(&own, all[i])
		}
	}
	return outcomes
}

// each splits the answer to a batch of n emails into an answer for each, as if it had been sent alone. It reports false for an
// answer that is not a batch's, or does not tell exactly one result of each email: that proves nothing about any. Data holds the
// emails that were taken, in order, and Errors names the others by their positions.
func (a answer) each(n int) (results []answer, ok bool) {
	var got struct {
		Data   []json.RawMessage `json:"data"`
		Errors []struct {
			Index   *int   `json:"index"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &got) != nil || len(got.Data)+len(got.Errors) != n {
		return nil, false
	}
	results = make([]answer, n)
	for _, e := range got.Errors {
		if e.Index == nil || *e.Index < 0 || *e.Index >= n || results[*e.Index].Status != 0 {
			return nil, false
		}
		body, err := json.Marshal(said{Name: "validation_error", Message: e.Message})
		if err != nil {
			return nil, false
		}
		results[*e.Index] = answer{Status: http.StatusUnprocessableEntity, Body: body}
	}
	seen := map[string]bool{"": true}
	for i := range results {
		if results[i].Status != 0 {
			continue
		}
		taken := answer{Status: http.StatusOK, Body: got.Data[0]}
		id := taken.acceptance()
		if seen[id] {
			return nil, false
		}
		seen[id] = true
		results[i], got.Data = taken, got.Data[1:]
	}
	return results, true
}
