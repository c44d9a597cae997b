package deliver

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

// Messages that one claim finds due together travel in one call if their provider takes several. Where it counts requests,
// that multiplies what an account carries within its limits. No message waits for others: under load calls fill up, and
// otherwise each message has its own.

// maxTogether bounds a call of transactional messages, because its answer comes when the last of them was taken. Other
// calls are as large as the provider allows. togetherBytes bounds the messages of any call, in encoded size.
const (
	maxTogether   = 100
	togetherBytes = 1 << 20
)

// openCall is a call that a claim has begun to fill.
type openCall struct {
	first      *item
	slot       time.Time // as the limits gave it
	left       int       // messages that it still takes,
	recipients int       // their recipients
	bytes      int64     // and their bytes
}

// maxRides bounds the calls in which a message travels with others. Two messages to one address, or one that is refused, make
// others of the same call try again: after so many times they are better off alone.
const maxRides = 3

// together reports whether a message may travel with others. One that failed before goes alone, so that it can fail
// nobody else, and so does a repeat, whose call must be the same as the first.
func together(d queue.Due) bool {
	repeats, _ := queue.Repeated(d.Avoid)
	return d.Tries == 0 && d.Attempts < maxRides && repeats == "" && d.Facts.Bytes < largeMessage
}

// mayShare reports whether the message being routed may share a call of the account. A provider that knows a message by its key
// since an earlier call must get that key again, so the message goes alone. Before this version of sendgate, facts had no Content.
func (v *view) mayShare(s *standing) bool {
	f := v.shares
	return f != nil && s.batch.Max > 1 && (f.Content != "" || !s.batch.Alike) && (f.Attachments == 0 || !s.batch.NoAttachments) &&
		(!s.keyed || !v.resent)
}

// kin names what the messages of a call at this account have in common with the message being routed.
func (s *standing) kin(f *mail.Facts) string {
	if s.batch.Alike {
		return f.Stream + " " + f.Content
	}
	return f.Stream
}

// openCall returns the call of the account that the message being routed may join, or nil. A message that is covered by
// a park is let through alone.
func (v *view) openCall(conf *route.Account) *openCall {
	s := v.accounts[conf.ID]
	if !v.mayShare(s) {
		return nil
	}
	c := s.open[s.kin(v.shares)]
	if c == nil || c.left == 0 || c.bytes < v.shares.Bytes || c.recipients < v.shares.Recipients {
		return nil
	}
	if slices.ContainsFunc(conf.Parked, func(p route.Park) bool { return p.Covers(v.shares) }) {
		return nil
	}
	return c
}

// begin lets other messages join the call of it, if they may.
func (v *view) begin(it *item, slot time.Time) {
	s := v.accounts[it.account]
	if !v.mayShare(s) || len(it.probes) > 0 {
		return
	}
	c := &openCall{first: it, slot: slot, left: s.batch.Max, recipients: cmp.Or(s.batch.MaxRecipients, math.MaxInt), bytes: togetherBytes}
	if v.shares.Stream == mail.DefaultStream {
		c.left = min(c.left, maxTogether)
	}
	c.count(v.shares)
	if s.open == nil {
		s.open = map[string]*openCall{}
	}
	s.open[s.kin(v.shares)] = c
}

// join adds a message to the call.
func (c *openCall) join(it *item) {
	c.first.others = append(c.first.others, it)
	c.count(it.due.Facts)
}

func (c *openCall) count(f *mail.Facts) {
	c.left--
	c.recipients -= f.Recipients
	c.bytes -= f.Bytes
}

// close lets nobody else join.
func (c *openCall) close() { c.left = 0 }

// each runs f for the messages of a call, all at once: what they write is committed in groups.
func each(all []*item, f func(*item)) {
	if len(all) == 1 {
		f(all[0])
		return
	}
	var wg sync.WaitGroup
	for _, it := range all {
		wg.Go(func() { f(it) })
	}
	wg.Wait()
}

// only returns the messages for which ok is true.
func only(all []*item, ok func(*item) bool) []*item {
	return slices.DeleteFunc(slices.Clone(all), func(it *item) bool { return !ok(it) })
}
