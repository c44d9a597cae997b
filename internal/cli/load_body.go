package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
)

// serialDigits is the fixed width of the number that makes each generated recipient unique.
const serialDigits = 12

const serialMark = "000000000000"

// loadRequest is one HTTP/1.1 request with its header. A worker builds it once and sends it many times; only the digits of
// the recipients change, in place.
type loadRequest struct {
	bytes   []byte
	serials []int // offsets of the digits, one per message
}

// request builds the call that sends k messages.
func (p *loadPlan) request(k int) (*loadRequest, error) {
	body, err := p.body(k)
	if err != nil {
		return nil, err
	}
	path := "/v1/send"
	if p.cmd.Batch > 1 {
		path += "/batch"
	}
	head := fmt.Sprintf("POST %s%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"User-Agent: sendgate-load\r\nContent-Length: %d\r\n\r\n",
		strings.TrimRight(p.server.EscapedPath(), "/"), path, p.server.Host, p.key.Reveal(), len(body))
	r := &loadRequest{bytes: append([]byte(head), body...)}
	mark := []byte(`"load-` + serialMark + `@`)
	for at := 0; ; {
		i := bytes.Index(r.bytes[at:], mark)
		if i < 0 {
			break
		}
		r.serials = append(r.serials, at+i+len(`"load-`))
		at += i + len(mark)
	}
	if len(r.serials) != k {
		return nil, fmt.Errorf("build request: found %d recipients, want %d", len(r.serials), k)
	}
	return r, nil
}

func (p *loadPlan) body(k int) ([]byte, error) {
	m := api.SendRequest{
		From:    api.Address{Email: p.cmd.From},
		To:      []api.Address{{Email: "load-" + serialMark + "@" + p.cmd.ToDomain}},
		Subject: "Load test " + p.tag,
		Text:    filler(p.cmd.Size),
		Tags:    []string{p.tag},
		Stream:  p.cmd.Stream,
	}
	if p.cmd.Account != "" {
		m.Account = &p.cmd.Account
	}
	var v any = m
	if p.cmd.Batch > 1 {
		batch := api.BatchRequest{Messages: make([]api.SendRequest, k)}
		for i := range batch.Messages {
			batch.Messages[i] = m
		}
		v = batch
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	return b, nil
}

// filler makes n bytes of text in lines of about 70 characters. It makes at least one byte, since a message needs a body.
func filler(n int) string {
	const line = "The quick brown fox jumps over the lazy dog, sixty times each minute.\r\n"
	n = max(n, 1)
	return strings.Repeat(line, n/len(line)+1)[:n]
}

// number writes first, first+1, ... into the recipients.
func (r *loadRequest) number(first int64) {
	var digits [20]byte
	for i, at := range r.serials {
		field := r.bytes[at : at+serialDigits]
		copy(field, serialMark)
		d := strconv.AppendInt(digits[:0], first+int64(i), 10)
		if len(d) > serialDigits {
			d = d[len(d)-serialDigits:]
		}
		copy(field[serialDigits-len(d):], d)
	}
}
