package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/unsub"
)

// Unsubscriber opens the tokens of one-click links.
type Unsubscriber interface {
	Open(token string) (unsub.Token, error)
}

const (
	maxUnsubscribe     = 4 << 10 // bytes of a body
	unsubscribeReading = 10 * time.Second

	// Requests for one link per minute, from any address: large mailbox providers post for all their users from few addresses.
	unsubscribesPerMinute = 30
	badTokensPerMinute    = 20 // from one address
)

// unsubscribe is the one-click endpoint (RFC 8058): the POST alone unsubscribes, without cookie, login or redirect, and may be
// repeated. It suppresses the address in the stream of the link's message.
func (s *Server) unsubscribe(w http.ResponseWriter, r *http.Request) error {
	token, err := s.openToken(r)
	if err != nil {
		return err
	}
	if err := readOneClick(w, r); err != nil {
		return err
	}
	now := s.clock().UTC()
	err = s.store.Suppress(r.Context(), record.Suppression{
		Tenant: token.Tenant, Email: token.Email, Stream: token.Stream, Reason: "unsubscribe", Origin: "unsubscribe",
		MessageID: token.Message, CreatedAt: now,
	})
	if err != nil {
		return err
	}
	_, err = s.store.ReceiveEvents(r.Context(), record.Intake{Source: mail.FromUnsubscribe, Payloads: []mail.Payload{{
		Events: []mail.Event{{
			Type: mail.EventUnsubscribed, Name: "one-click", UniqueID: "one-click/" + token.Message.String() + "/" + token.Stream,
			MessageID: token.Message, Recipient: token.Email, At: now, Tenant: token.Tenant, Stream: token.Stream,
		}},
	}}})
	if err != nil {
		return afterStore(err)
	}
	return writePage(w, http.StatusOK, notice{Title: "Unsubscribed", Text: "You will get no more of these messages.", Email: token.Email})
}

// askUnsubscribe shows a button and changes nothing, since link scanners open every link.
func (s *Server) askUnsubscribe(w http.ResponseWriter, r *http.Request) error {
	token, err := s.openToken(r)
	if err != nil {
		return err
	}
	return writePage(w, http.StatusOK, notice{
		Title: "Unsubscribe", Text: "Do you want no more of these messages?", Email: token.Email, Ask: true,
	})
}

// openToken reads the token in the path. Only invalid tokens count against an address; a valid link works however many guesses
// came from there. Requests for one valid link have a bound of their own.
func (s *Server) openToken(r *http.Request) (unsub.Token, error) {
	text := pathParam(r, "token")
	token, err := s.links.Open(text)
	if err == nil {
		if wait := s.unsubscribes.Note(sha256.Sum256([]byte(text))); wait > 0 {
			return unsub.Token{}, errTooManyLinks("this link", wait)
		}
		return token, nil
	}
	s.logins.note(s.stranger(r), s.clock(), record.FailedLogins{Links: 1})
	if wait := s.badTokens.Note(s.stranger(r)); wait > 0 {
		return unsub.Token{}, errTooManyLinks("links that are not valid", wait)
	}
	return unsub.Token{}, refuse(http.StatusNotFound, "not_found", "This link is not valid. Was it copied as a whole?")
}

func errTooManyLinks(what string, wait time.Duration) error {
	return &refusal{
		status: http.StatusTooManyRequests, code: "rate_limited", retryAfter: wait,
		detail: "There are too many requests for " + what + ". Please try again later.",
	}
}

// noLinks opens no token.
type noLinks struct{}

// Open implements Unsubscriber.
func (noLinks) Open(string) (unsub.Token, error) { return unsub.Token{}, unsub.ErrToken }

// readOneClick accepts List-Unsubscribe=One-Click in one of the two encodings that RFC 8058 section 3.2 names. The button on
// our page sends the same.
func readOneClick(w http.ResponseWriter, r *http.Request) error {
	body, err := readCapped(w, r, maxUnsubscribe, unsubscribeReading)
	if err != nil {
		return err
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && r.Header.Get("Content-Type") != "" {
		return unsupportedForm()
	}
	var value string
	switch kind {
	case "application/x-www-form-urlencoded", "":
		form, _ := url.ParseQuery(string(body)) // after an error the well-formed part counts
		value = form.Get("List-Unsubscribe")
	case "multipart/form-data":
		value = multipartValue(body, params["boundary"])
	default:
		return unsupportedForm()
	}
	if value != "One-Click" {
		return refuse(http.StatusBadRequest, "not_one_click", "The form must hold List-Unsubscribe=One-Click.")
	}
	return nil
}

func unsupportedForm() error {
	return unsupportedType("application/x-www-form-urlencoded, multipart/form-data", "The body must be a form.")
}

func multipartValue(body []byte, boundary string) string {
	form, err := multipart.NewReader(bytes.NewReader(body), boundary).ReadForm(maxUnsubscribe)
	if err != nil {
		return ""
	}
	defer form.RemoveAll() //nolint:errcheck // so small a form leaves no files
	if values := form.Value["List-Unsubscribe"]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// notice is a page for people: one sentence, and perhaps one button.
type notice struct {
	Title, Text, Email string
	Ask                bool
	Code               string // of a problem; Status is set if the code has only one
	Status             int
}

const pageStyle = "body{font:1rem/1.5 system-ui,sans-serif;max-width:30rem;margin:4rem auto;padding:0 1rem}button{font:inherit;padding:.5rem 1rem}"

// pageTemplate posts to its own URL, since its form has no action.
var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><title>{{.Title}}</title>
<style>` + pageStyle + `</style></head>
<body><h1>{{.Title}}</h1>{{with .Email}}<p><strong>{{.}}</strong></p>{{end}}<p>{{.Text}}</p>
{{with .Code}}<p><code>{{.}}</code>{{with $.Status}}, HTTP status {{.}}{{end}}</p>
{{end}}{{if .Ask}}<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click"><button type="submit">Unsubscribe</button></form>
{{end}}</body>
</html>
`))

// pagePolicy allows the style above and the form, and nothing else.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

func writePage(w http.ResponseWriter, status int, p notice) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer") // the address of the page is the token
	write(w, status, "text/html; charset=utf-8", b.Bytes())
	return nil
}

// people is handle for pages: it answers an error with a page too.
func (s *Server) people(h handlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		e := refusalOf(err)
		s.logProblem(r, e, err)
		e.setHeaders(w.Header())
		text := e.detail
		if e.status >= http.StatusInternalServerError || text == "" {
			text = "This did not work. Please try again in a few minutes."
		}
		if err := writePage(w, e.status, notice{Title: title(e.code), Text: text}); err != nil {
			s.writeProblem(w, r, err)
		}
	}
}
