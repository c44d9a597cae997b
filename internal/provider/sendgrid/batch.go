package sendgrid

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	sgmail "github.com/sendgrid/sendgrid-go/helpers/mail"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// batch is one request for several messages with the same content. Each has personalizations of its own, and they hold what
// differs: recipients, headers and custom arguments.
type batch struct {
	mail  *sgmail.SGMailV3
	owner []int           // by personalization: the position of its message
	taken map[string]bool // addresses, folded
}

// maxBatch is the cap of "Mail Send" on the personalizations of a request, and on its recipients.
const maxBatch = 1000

// Batch implements provider.Batcher.
func (c *Client) Batch() provider.BatchSpec {
	spec := Spec().Batch
	spec.Max = cmp.Or(c.cfg.BatchSize, spec.Max)
	return spec
}

// SendBatch implements provider.Batcher: POST /v3/mail/send. SendGrid takes all messages or none. If the answer names those at
// fault, the others may go again at once.
func (c *Client) SendBatch(ctx context.Context, all []*provider.Send) []provider.Outcome {
	outcomes, b := make([]provider.Outcome, len(all)), batch{taken: map[string]bool{}}
	for i, s := range all {
		if perr := refuse(s); perr != nil {
			outcomes[i] = provider.Outcome{Err: perr, LeftOut: true}
		} else if perr := b.add(i, s, c.cfg); perr != nil {
			outcomes[i] = provider.Outcome{Err: perr, LeftOut: true}
		}
	}
	if b.mail == nil {
		return outcomes
	}
	a, err := c.post(ctx, b.mail)
	if err != nil {
		return provider.ForAll(outcomes, err, true)
	}
	receipt, err := c.judge(a, b.mail, time.Now())
	if err != nil {
		for i, perr := range b.atFault(a) {
			outcomes[i].Err = c.scrubbed(perr)
			err = &provider.Error{Class: provider.Transient, Status: a.Status, Detail: "another message of the call was refused", Again: true}
		}
		return provider.ForAll(outcomes, err, true)
	}
	for i := range outcomes {
		if outcomes[i].Err == nil {
			outcomes[i].Receipt = receipt
		}
	}
	return outcomes
}

// add puts a message into the request, or says why it must go in another one. Each address may occur only once: the page "Errors"
// can be read as of one personalization or of all, and one call more is cheaper than a call that is refused.
func (b *batch) add(i int, s *provider.Send, cfg Config) *provider.Error {
	for _, a := range s.Envelope() {
		if b.taken[mail.FoldAddress(a.Email)] {
			return &provider.Error{Class: provider.Transient, Detail: "another message of the call has the same recipient", Again: true}
		}
	}
	one := build(cfg, s)
	for _, p := range one.Personalizations {
		maps.Copy(p.Headers, one.Headers)
		maps.Copy(p.CustomArgs, one.CustomArgs)
	}
	mine := one.Personalizations
	one.Personalizations, one.Headers, one.CustomArgs = nil, nil, nil
	if b.mail == nil {
		b.mail = one
	} else {
		whole := b.mail.Personalizations
		b.mail.Personalizations = nil
		same := reflect.DeepEqual(b.mail, one)
		b.mail.Personalizations = whole
		if !same {
			return &provider.Error{Class: provider.Transient, Detail: "the other messages of the call have another content", Shared: true}
		}
	}
	for _, p := range mine {
		b.mail.Personalizations = append(b.mail.Personalizations, p)
		b.owner = append(b.owner, i)
	}
	for _, a := range s.Envelope() {
		b.taken[mail.FoldAddress(a.Email)] = true
	}
	return nil
}

// atFault returns the verdict on each message that a 400 names by its personalization. It returns none if one of the errors is
// about anything else.
func (b *batch) atFault(a answer) map[int]*provider.Error {
	if a.Status != http.StatusBadRequest {
		return nil
	}
	errs := map[int][]fieldError{}
	for _, e := range a.errors() {
		parts := strings.SplitN(e.Field, ".", 3)
		if len(parts) < 2 || parts[0] != "personalizations" {
			return nil
		}
		n, err := strconv.Atoi(parts[1])
		if err != nil || n < 0 || n >= len(b.owner) {
			return nil
		}
		errs[b.owner[n]] = append(errs[b.owner[n]], e)
	}
	faults := map[int]*provider.Error{}
	for i, own := range errs {
		perr := &provider.Error{Class: provider.Rejected, Status: a.Status, Code: own[0].Field, Detail: words(own)}
		if refused := recipients(own, b.mail); len(refused) > 0 {
			perr.Class, perr.Refused = provider.BadRecipient, refused
		}
		faults[i] = perr
	}
	return faults
}
