package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// maxBatch caps the messages of one batch.
const maxBatch = 1000

// sendBatch accepts 1 to 1,000 messages, each on its own: POST /v1/send/batch. The answer is 202 with a result for each, in
// order, even if some or all of them are refused for their content. If nothing was stored because the store is unavailable,
// the whole answer is a 503. If nothing is known to be stored and some outcome is unknown, it is a 504. So callers that look
// only at the status try again.
func (s *Server) sendBatch(w http.ResponseWriter, r *http.Request) error {
	body, idem, release, err := s.readSend(w, r, maxIdempotencyKey-len("/999")-1)
	defer release()
	if err != nil {
		return err
	}
	items, err := splitBatch(body)
	if err != nil {
		return err
	}
	b := batch{note: s.noteSubmission, items: make([]api.BatchItem, len(items))}
	for i, item := range items {
		sub, err := s.submission(principal(r), item, itemKey(idem, i))
		if err != nil {
			first, err := s.repeated(r.Context(), principal(r), item, itemKey(idem, i), err)
			b.answer(i, first, err, 0)
			continue
		}
		b.subs, b.index = append(b.subs, sub), append(b.index, i)
	}
	if err := b.accept(s.store, r); err != nil {
		return err
	}
	return writeJSON(w, http.StatusAccepted, api.BatchResult{Results: b.items})
}

// batch is one batch in progress: the answers so far, the messages left to store, and the index of each among the answers.
type batch struct {
	note  func(record.Accepted, error, time.Duration)
	items []api.BatchItem
	subs  []*record.Submission
	index []int
}

// answer fills in the result of a message.
func (b *batch) answer(i int, a record.Accepted, err error, took time.Duration) {
	b.note(a, err, took)
	if err != nil {
		p := problemOf(err)
		b.items[i] = api.BatchItem{Error: &p}
		return
	}
	b.items[i] = api.BatchItem{SendResult: sendResult(a)}
}

// accept stores the messages that are left and fills in their results. An error is the answer for the whole batch.
func (b *batch) accept(store Store, r *http.Request) error {
	if len(b.subs) == 0 {
		return nil
	}
	began := time.Now()
	accepted, errs := store.AcceptAll(r.Context(), b.subs)
	took := time.Since(began)
	var unavailable *record.Unavailable
	var unknown *record.OutcomeUnknown
	stored := 0
	for j, i := range b.index {
		if err := errs[j]; err != nil {
			_ = errors.As(err, &unavailable) || errors.As(err, &unknown)
			b.answer(i, record.Accepted{}, acceptProblem(err), took)
			continue
		}
		stored++
		b.answer(i, accepted[j], nil, took)
	}
	switch {
	case stored == 0 && unknown != nil:
		return unknown
	case stored == 0 && unavailable != nil:
		return unavailable
	}
	return nil
}

// splitBatch finds the messages of {"messages": […]} without looking into them: a mistake inside one, such as bad UTF-8,
// must not fail the others. The returned slices are parts of body.
func splitBatch(body []byte) ([][]byte, error) {
	if err := checkStart(body); err != nil {
		return nil, err
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return nil, syntaxProblem(body, err)
	}
	var items [][]byte
	for names := 0; dec.PeekKind() == jsontext.KindString; names++ {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, syntaxProblem(body, err)
		}
		if name := token.String(); name != "messages" {
			return nil, invalid(cut(name), "unknown_field", "unknown field; a batch has messages and nothing else")
		}
		if names > 0 {
			return nil, refuse(http.StatusBadRequest, "duplicate_key", `The name "messages" occurs twice.`)
		}
		if items, err = batchItems(dec, body); err != nil {
			return nil, err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, syntaxProblem(body, err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, refuse(http.StatusBadRequest, "trailing_data", "There is more behind the JSON object.")
	}
	if len(items) == 0 {
		return nil, invalid("messages", "required", "a batch has at least one message")
	}
	return items, nil
}

// batchItems reads the list of messages, at most maxBatch, as parts of body.
func batchItems(dec *jsontext.Decoder, body []byte) ([][]byte, error) {
	if kind := dec.PeekKind(); kind != jsontext.KindBeginArray && kind != jsontext.KindInvalid {
		return nil, invalid("messages", "wrong_type", "expected a list of messages")
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, syntaxProblem(body, err)
	}
	var items [][]byte
	for dec.PeekKind() != jsontext.KindEndArray {
		value, err := dec.ReadValue()
		if err != nil {
			return nil, syntaxProblem(body, err)
		}
		if len(items) == maxBatch {
			return nil, invalid("messages", "too_many", fmt.Sprintf("a batch has at most %d messages", maxBatch))
		}
		end := dec.InputOffset()
		items = append(items, body[end-int64(len(value)):end])
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, syntaxProblem(body, err)
	}
	return items, nil
}
