package resend

import (
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// The rules of "Idempotency Keys": a key has 1 to 256 characters and is remembered for a day after its email was sent. It stands
// for a request, which may be a batch, and not for the emails in it.
const (
	maxKey  = 256
	keyLife = 24 * time.Hour
)

// keyring remembers the keys of emails that were sent, and the requests in progress.
type keyring struct {
	mu   sync.Mutex
	sent map[string]*keyed
	busy map[string]bool
}

// keyed is a request with a key whose emails were taken.
type keyed struct {
	answer *emulator.Reply
	body   [32]byte
	at     time.Time
}

// key is the idempotency key of one request. Busy says that another request with the same key is in progress.
type key struct {
	text  string
	given bool
	busy  bool
}

type keyContext struct{}

func keyOf(r *http.Request) key {
	if k, ok := r.Context().Value(keyContext{}).(key); ok {
		return k
	}
	return key{}
}

func digest(body []byte) [32]byte { return sha256.Sum256(body) }

// guard lets only one request with a key through at a time, and marks the others.
func (k *keyring) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values := r.Header.Values("Idempotency-Key")
		if len(values) > 0 {
			mine := key{text: values[0], given: true, busy: !k.begin(values[0])}
			if !mine.busy {
				defer k.end(mine.text)
			}
			r = r.WithContext(context.WithValue(r.Context(), keyContext{}, mine))
		}
		next.ServeHTTP(w, r)
	})
}

// begin reports whether no other request with the key is in progress, and marks the key as busy.
func (k *keyring) begin(text string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[text] {
		return false
	}
	if k.busy == nil {
		k.busy, k.sent = map[string]bool{}, map[string]*keyed{}
	}
	k.busy[text] = true
	return true
}

func (k *keyring) end(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, text)
}

// find returns the request whose emails were taken with a key, or nil.
func (k *keyring) find(of key, now time.Time) *keyed {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.sent[of.text]
	if !of.given || known == nil || now.Sub(known.at) >= keyLife {
		return nil
	}
	return known
}

// keep remembers a key, and sometimes removes the old ones.
func (k *keyring) keep(of key, body [32]byte, answer *emulator.Reply, now time.Time) {
	if !of.given {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.sent)%1000 == 999 {
		for text, old := range k.sent {
			if now.Sub(old.at) >= keyLife {
				delete(k.sent, text)
			}
		}
	}
	k.sent[of.text] = &keyed{answer: answer, body: body, at: now}
}
