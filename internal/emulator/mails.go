package emulator

import (
	"encoding/base64"
	"strings"
	"sync"
)

// Mail is what a recipient of a message would see.
type Mail struct {
	Text        string            `json:"text,omitempty"`
	HTML        string            `json:"html,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"` // besides From, To and Subject
	Attachments []Attachment      `json:"attachments,omitempty"`
}

// NewMail is a mail without attachments. replyTo may be "".
func NewMail(text, html, replyTo string) Mail {
	m := Mail{Text: text, HTML: html, Headers: map[string]string{}}
	if replyTo != "" {
		m.Headers["Reply-To"] = replyTo
	}
	return m
}

// Attach adds a file whose content is in base64.
func (m *Mail) Attach(name, mediaType, content string) {
	size := base64.StdEncoding.DecodedLen(len(content)) - strings.Count(content[max(len(content)-2, 0):], "=")
	m.Attachments = append(m.Attachments, Attachment{name, mediaType, size})
}

// Attachment is a file of a mail.
type Attachment struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Size int    `json:"size"` // bytes
}

// size is the approximate size in memory, in bytes.
func (m *Mail) size() int {
	n := 200 + len(m.Text) + len(m.HTML)
	for name, value := range m.Headers {
		n += 100 + len(name) + len(value)
	}
	for _, a := range m.Attachments {
		n += 100 + len(a.Name) + len(a.Type)
	}
	return n
}

// maxMails is how many bytes of mails are kept. Beyond that the oldest are dropped; their lines stay in the ledger.
const maxMails = 64 << 20

// mails keeps the mails of messages, in memory only.
type mails struct {
	mu   sync.Mutex
	keys []string // the oldest first
	kept map[string]*Mail
	size int
}

// mailKey identifies an entry: a provider may give several messages of one call the same id.
func mailKey(n *Entry) string {
	return n.Provider + "\n" + n.ProviderMessageID + "\n" + strings.Join(n.To, ",")
}

// keep stores the mails of messages, and drops the oldest ones beyond maxMails.
func (s *mails) keep(messages []*Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		key := mailKey(&m.Entry)
		if m.Mail.size() > maxMails || s.kept[key] != nil {
			continue
		}
		if s.kept == nil {
			s.kept = map[string]*Mail{}
		}
		s.kept[key] = &m.Mail
		s.keys = append(s.keys, key)
		s.size += m.Mail.size()
		for s.size > maxMails {
			s.size -= s.kept[s.keys[0]].size()
			delete(s.kept, s.keys[0])
			s.keys = s.keys[1:]
		}
	}
}

func (s *mails) find(n *Entry) *Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[mailKey(n)]
}

func (s *mails) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.kept, s.size = nil, nil, 0
}

// keptMail is a line of the ledger with its mail. The mail is nil if it is no longer kept.
type keptMail struct {
	Entry *Entry `json:"entry"`
	Mail  *Mail  `json:"mail"`
}

// mailsOf lists the messages with an id, the sender's or the provider's, in order of acceptance.
func (e *Emulator) mailsOf(id string) []keptMail {
	found := []keptMail{}
	all := e.ledger.snapshot()
	for i := range all {
		if n := &all[i]; id != "" && (n.MessageID == id || n.ProviderMessageID == id) {
			found = append(found, keptMail{n, e.mails.find(n)})
		}
	}
	return found
}
