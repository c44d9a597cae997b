package dash

import (
	"context"
	"sync"
	"time"
)

// readingTime bounds a reading that viewers share. The viewer who caused it may leave meanwhile.
const readingTime = 10 * time.Second

// kept is a reading that serves all viewers for a while, also if it failed: a slow database must not get one more for each of them.
type kept[T any] struct {
	mu    sync.Mutex // held during a reading
	value T
	err   error
	at    time.Time // of its end
}

// get returns a reading that ended within age, or makes one.
func (k *kept[T]) get(v *visit, age time.Duration, read func(context.Context) (T, error)) (T, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v.Now().Sub(k.at) >= age {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(v.r.Context()), readingTime)
		defer cancel()
		k.value, k.err = read(ctx)
		k.at = v.Now()
	}
	return k.value, k.err
}

// forget makes the next page read again.
func (k *kept[T]) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = time.Time{}
}
