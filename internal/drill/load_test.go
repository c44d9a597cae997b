//go:build drill

package drill

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

// load says what the clients send. The zero value is a mix of everything that callers do, at -rate, with as many clients as
// that needs.
type load struct {
	clients  int
	share    float64  // of -rate, 0 is 1
	policies []string // on_ambiguous; nil is all three
	account  string   // pinned to it
	plain    bool     // one recipient, no schedule, no attachment, no poison
}

// perSecond is how many messages all clients are to send in a second.
func (l load) perSecond() float64 {
	if l.share == 0 {
		return float64(*rate)
	}
	return float64(*rate) * l.share
}

func tenants() []string { return []string{"default", "acme", "globex"} }

// letter is one message to send, and who sends it.
type letter struct {
	tenant  string
	policy  string
	poison  bool // no provider takes it
	request api.SendRequest
}

// compose makes the nth message of a client.
func (l load) compose(rng *rand.Rand, client, n int) letter {
	policies := l.policies
	if policies == nil {
		policies = []string{"never", "reconcile", "resend"}
	}
	x := letter{tenant: tenants()[rng.IntN(len(tenants()))], policy: policies[rng.IntN(len(policies))]}
	address := func(local string) api.Address {
		return api.Address{Email: fmt.Sprintf("%s+%d-%d@example.org", local, client, n)}
	}
	x.request = api.SendRequest{
		From: api.Address{Email: "shop@example.com"}, To: []api.Address{address("ann")}, OnAmbiguous: x.policy,
		Subject: fmt.Sprintf("Order %d-%d", client, n), Text: strings.Repeat("It is on its way. ", 1+rng.IntN(200)),
	}
	if l.account != "" {
		x.request.Account = &l.account
	}
	if !l.plain {
		vary(&x, rng, address)
	}
	return x
}

// vary makes some messages unlike the others.
func vary(x *letter, rng *rand.Rand, address func(string) api.Address) {
	m := &x.request
	switch p := rng.IntN(100); {
	case p < 10:
		m.Stream = "bulk"
	case p < 15:
		at := time.Now().Add(time.Duration(1+rng.IntN(3)) * time.Second)
		m.SendAt = &at
	case p < 20:
		content := make([]byte, 2000+rng.IntN(20_000))
		for i := range content {
			content[i] = byte(rng.Uint32())
		}
		m.Attachments = []api.Attachment{{
			Filename: "invoice.pdf", ContentType: "application/pdf", Content: base64.StdEncoding.EncodeToString(content),
		}}
	case p < 25:
		m.Cc = []api.Address{address("cy"), address("dee")}
	case p < 28:
		m.To[0] = address([]string{"bounce", "softbounce", "complaint"}[rng.IntN(3)])
	case p < 30:
		m.To[0], x.poison = address("reject"), true
	}
}
