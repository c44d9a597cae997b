package httpapi

import (
	"slices"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// bodyReads collects who read the bodies of which messages, for the audit. Services ask for their messages often, and each audit
// entry waits for the one before it: so a key gets one entry for all that it reads in a minute, or for each readsPerEntry messages.
type bodyReads struct {
	mu   sync.Mutex
	now  map[string]*record.BodyReads // by key
	full []record.BodyReads
}

const (
	readsPerEntry = 100
	readsMinute   = time.Minute
)

func (b *bodyReads) note(key string, caller record.Caller, id mail.ID, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.now[key]
	if r == nil {
		if b.now == nil {
			b.now = map[string]*record.BodyReads{}
		}
		r = &record.BodyReads{Key: key, Caller: caller, Since: at.UTC().Truncate(time.Second)}
		b.now[key] = r
	}
	if slices.Contains(r.Messages, id) {
		return
	}
	if r.Messages = append(r.Messages, id); len(r.Messages) == readsPerEntry {
		b.full = append(b.full, *r)
		delete(b.now, key)
	}
}

// BodyReads returns and forgets the reads that have their entry together: those of full entries, and those that began a minute ago or
// earlier, or all of them. The caller adds them to the store.
func (s *Server) BodyReads(all bool) []record.BodyReads {
	b := &s.reads
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.full
	b.full = nil
	for key, r := range b.now {
		if all || s.clock().Sub(r.Since) >= readsMinute {
			out = append(out, *r)
			delete(b.now, key)
		}
	}
	return out
}
