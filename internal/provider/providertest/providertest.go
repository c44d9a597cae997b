// Package providertest is the conformance suite that every adapter runs. It checks what all adapters owe the engine:
// exactly one request per Send, the right Class for every HTTP status and every documented code, Transient before the first
// byte and Uncertain after it, and no credential in any text. Tests for one provider's own features are in that adapter.
//
// HTTP adapters call Run, and RunEvents for their events. An adapter with another protocol uses the parts: Samples, Numbered,
// Parallel, CheckError, CheckNoSecret, Golden.
//
// The most likely mistake of a newcomer is to list a wrong class in WantByStatus to make a status pass. Only classes that the
// provider's documentation gives belong there.
package providertest

import (
	"net/http"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
)

// Suite is what Run needs to know of an adapter. Fields that say "optional" may be left zero.
type Suite struct {
	// New builds the adapter for a server at baseURL (no trailing slash), with the credentials in Secrets.
	New func(t *testing.T, baseURL string) provider.Provider
	// Accept answers a send as the provider does when it takes the message. It can read the body of the request.
	Accept http.Handler
	// Answer gives the body and the header that go with a bare status. Optional: "{}" as JSON.
	Answer func(status int) (string, http.Header)
	// WantByStatus overrides the class of single statuses when the body is Answer's. Any other status must have the class of
	// esphttp.ByStatus.
	WantByStatus map[int]provider.Class
	// Codes holds one case for each documented code or text.
	Codes []CodeCase
	// Secrets must not appear in any error.
	Secrets []string
	// Fault is the body of an error in the provider's own form, with the text where the provider explains what is wrong. The suite
	// puts the secrets into that text. In a form that the adapter doesn't read, it would look for them in vain.
	Fault func(text string) string
	// ExtractID finds our message id in a request as the provider receives it.
	ExtractID func(r *http.Request, body []byte) string
	// KeyHeader is the header that carries Send.Key, for an adapter with Spec.Repeat. Then a repeated call has the same header
	// and the same body. Optional: without it no such header may be sent.
	KeyHeader string
	// AcceptBatch answers a call of a Batcher as the provider does when it takes all of its messages, and BatchIDs finds our ids in
	// that request, in order. Only for a Batcher.
	AcceptBatch http.Handler
	BatchIDs    func(r *http.Request, body []byte) []string
	// Decode makes the texts of a request searchable if the body hides them (base64). Optional.
	Decode func(r *http.Request, body []byte) []byte
	// Normalise renders a request for the golden files, without the parts that change from run to run. Optional: see Render.
	Normalise func(t *testing.T, r *http.Request, body []byte) []byte
}

// CodeCase is one documented answer and what it means.
type CodeCase struct {
	Name   string
	Status int
	Header http.Header // optional; Content-Type defaults to JSON
	Body   string
	Send   *provider.Send // optional: the sample "plain"

	// Want is compared with the error except for Err. Detail, Status and RetryAfter are compared only if they are set here. With
	// Class Accepted, Receipt is compared with the receipt instead, except for Detail if it is not set.
	Want    provider.Error
	Receipt provider.Receipt
	// Check checks what Want can't express. Optional; err is nil after an acceptance.
	Check func(t *testing.T, r provider.Receipt, err *provider.Error)
}

// Run runs the suite. Each part builds its own server and its own adapter.
func Run(t *testing.T, s Suite) {
	t.Helper()
	if s.New == nil || s.Accept == nil || s.ExtractID == nil || s.Fault == nil || len(s.Secrets) == 0 {
		t.Fatal("Suite needs New, Accept, ExtractID, Fault and Secrets")
	}
	parts := []struct {
		name string
		run  func(*testing.T, Suite)
	}{
		{"accepts", accepts},
		{"golden requests", goldenRequests},
		{"every status", everyStatus},
		{"documented codes", documentedCodes},
		{"cancel before the write", cancelBeforeWrite},
		{"refused connection", refusedConnection},
		{"cancel after the write", cancelAfterWrite},
		{"deadline after the write", deadlineAfterWrite},
		{"dropped connection", droppedConnection},
		{"truncated answer", truncatedAnswer},
		{"parallel sends", parallelSends},
		{"secrets stay out of errors", secretsStayOut},
		{"endless answer", endlessAnswer},
		{"impostors are not believed", impostorsAreNotBelieved},
		{"foreign answers are not told", foreignAnswersAreNotTold},
		{"redirects are not followed", redirectsAreNotFollowed},
		{"answer in two segments", answerInSegments},
		{"a repeat is the same request", repeatsAreTheSame},
		{"several messages in one call", togetherInOneCall},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t, s)
		})
	}
}
