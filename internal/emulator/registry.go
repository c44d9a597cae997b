package emulator

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
)

// maxCallBody caps the body of registrations and look-ups, in bytes.
const maxCallBody = 1 << 20

// Call serves a call of a provider that is not a send: it reads, checks the credential and answers.
func (h *Host) Call(call func(r *http.Request, body []byte) *Reply) http.Handler {
	return h.Open(func(r *http.Request, body []byte) *Reply {
		p := h.provider.Authenticate(r, body)
		if p == nil {
			p = call(r, body)
		}
		h.provider.Decorate(p)
		return p
	})
}

// Open serves a call that needs no credential.
func (h *Host) Open(call func(r *http.Request, body []byte) *Reply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r, maxCallBody)
		if err != nil {
			h.provider.Failure(http.StatusRequestEntityTooLarge).writeTo(w)
			return
		}
		call(r, body).writeTo(w)
	})
}

// Action is what a call did with a registration.
type Action string

// The actions.
const (
	Shown   Action = "shown"
	Created Action = "created"
	Updated Action = "updated"
	Deleted Action = "deleted"
)

// Registry keeps the registrations of a provider's API, in order. Registrations are replaced, never changed. The functions hold
// the provider's own answers; a function that no handler needs may be nil.
type Registry[T any] struct {
	ID     func(*T) string               // returns the ID of a registration
	Path   func(*http.Request) string    // the ID in a request
	Show   func(did Action, v *T) *Reply // the answer of a successful call
	Exists func(v *T) *Reply             // refuses a new one if its ID exists
	Gone   func(id string) *Reply        // the answer if the ID does not exist
	// Read makes a registration from a request, based on the old one or nil, or refuses it.
	Read func(r *http.Request, body []byte, old *T) (*T, *Reply)
	// Check refuses a registration because of the others. It may be nil.
	Check func(others []*T, v *T) *Reply

	writing sync.Mutex // held over Read, Check and the change, so that changes come one after another
	list    atomic.Pointer[[]*T]
}

// All lists the registrations. The caller must not change the slice.
func (g *Registry[T]) All() []*T {
	if list := g.list.Load(); list != nil {
		return *list
	}
	return nil
}

// Find returns the registration with an ID, or nil.
func (g *Registry[T]) Find(id string) *T {
	for _, v := range g.All() {
		if g.ID(v) == id {
			return v
		}
	}
	return nil
}

// Forget drops all registrations.
func (g *Registry[T]) Forget() {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.list.Store(nil)
}

// Put adds a registration, or replaces the one with its ID.
func (g *Registry[T]) Put(v *T) {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.put(v)
}

func (g *Registry[T]) put(v *T) {
	list := slices.Clone(g.All())
	if i := slices.IndexFunc(list, func(o *T) bool { return g.ID(o) == g.ID(v) }); i >= 0 {
		list[i] = v
	} else {
		list = append(list, v)
	}
	g.list.Store(&list)
}

// Create answers a call that makes a registration.
func (g *Registry[T]) Create(r *http.Request, body []byte) *Reply {
	g.writing.Lock()
	defer g.writing.Unlock()
	return g.store(Created, r, body, nil)
}

// Update answers a call that changes a registration.
func (g *Registry[T]) Update(r *http.Request, body []byte) *Reply {
	g.writing.Lock()
	defer g.writing.Unlock()
	old := g.Find(g.Path(r))
	if old == nil {
		return g.Gone(g.Path(r))
	}
	return g.store(Updated, r, body, old)
}

// store reads and checks a registration, and stores it if nothing refuses it. The caller holds writing.
func (g *Registry[T]) store(did Action, r *http.Request, body []byte, old *T) *Reply {
	v, refused := g.Read(r, body, old)
	if refused == nil && old == nil && g.Exists != nil && g.Find(g.ID(v)) != nil {
		refused = g.Exists(v)
	}
	if refused == nil && g.Check != nil {
		refused = g.Check(slices.DeleteFunc(slices.Clone(g.All()), func(o *T) bool { return o == old }), v)
	}
	if refused != nil {
		return refused
	}
	g.put(v)
	return g.Show(did, v)
}

// Get answers a call that reads one registration.
func (g *Registry[T]) Get(r *http.Request, _ []byte) *Reply {
	if v := g.Find(g.Path(r)); v != nil {
		return g.Show(Shown, v)
	}
	return g.Gone(g.Path(r))
}

// Delete answers a call that removes a registration.
func (g *Registry[T]) Delete(r *http.Request, _ []byte) *Reply {
	g.writing.Lock()
	defer g.writing.Unlock()
	v := g.Find(g.Path(r))
	if v == nil {
		return g.Gone(g.Path(r))
	}
	list := slices.DeleteFunc(slices.Clone(g.All()), func(o *T) bool { return o == v })
	g.list.Store(&list)
	return g.Show(Deleted, v)
}
