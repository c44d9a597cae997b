package provider

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// Spec describes a kind: what it can carry, and which settings are secret.
type Spec struct {
	Kind         Kind
	Capabilities Capabilities
	Concurrency  int      // default cap on calls in flight per account
	Secrets      []string // names of the settings that are sealed and never shown
	Guessable    []string // those of Secrets that people choose; with one of them a stranger could pose as the provider

	// Settings names every setting of the kind, each with the secrets that it directs: it decides to whom they are sent, or how
	// they are protected. Most settings direct none. A change of one needs its secrets again; otherwise the person who changes it
	// could have the stored secrets sent to themselves.
	Settings map[string][]string

	Events EventSpec
	Lookup LookupSpec
	Repeat RepeatSpec
	Batch  BatchSpec // of a Batcher whose account has no setting batch_size

	Privacy PrivacySpec
}

// PrivacySpec says what a provider keeps about recipients, and how to erase it there, for people.
type PrivacySpec struct {
	Keeps, Erase string
	Sources      []string // pages of the provider; none for what runs on the operator's own hosts
	Read         string   // the day on which they were read, such as 2026-01-31
}

// Refuse answers in place of the provider if its caps are known; nil means that it would take the message. Routing asks before it
// plans. An adapter asks for messages that routing did not check, such as one that is pinned to its account.
func (s Spec) Refuse(send *Send) *Error {
	facts := send.Message.Facts()
	facts.Recipients = len(send.Envelope())
	why := s.Capabilities.Refuse(&facts)
	if why == "" {
		return nil
	}
	return &Error{Class: Rejected, Detail: Cut(string(s.Kind) + ": " + why), Elsewhere: true}
}

// MinGuessable is the minimum length in characters of a secret of Spec.Guessable when it is set. Shorter secrets that are stored
// stay valid, and doctor warns about them.
const MinGuessable = 16

// EventSpec says what a kind reports on its own.
type EventSpec struct {
	Accepted  bool // it reports its own acceptance; else the answer to our call is that event
	Delivered bool // it reports deliveries; else Sent is the last event of a good message
}

// LookupSpec says how reliable a Finder of this kind is.
type LookupSpec struct {
	Works   bool          // there is a Finder
	Settled time.Duration // how long after the call "not found" becomes proof; 0 never
	Kept    time.Duration // how long after the call it can be found: no plan of the provider forgets sooner; 0 for good
}

// RepeatSpec says whether a call of this kind can be repeated without harm, because the provider treats calls with the same
// Send.Key as one. A call with several messages is never repeated: it has no key.
type RepeatSpec struct {
	Within time.Duration // after the first of them; 0 never
}

// BatchSpec says which messages may travel in one call of a Batcher.
type BatchSpec struct {
	Max           int  // messages; 1 means that each travels alone
	MaxRecipients int  // of all messages together; 0 no limit
	Alike         bool // only messages with the same mail.Facts.Content
	NoAttachments bool // only messages without attachments
}

// Capabilities says what a kind can carry. Zero means no limit known to us. For tags and metadata, it also stands for a kind that
// does not take them: its adapter does not pass them on. A limit without a field here is checked by the adapter alone, in Send.
type Capabilities struct {
	MaxBytes            int64    `json:"max_bytes"` // whole message, encoded
	MaxBodyBytes        int      `json:"max_body_bytes,omitempty"`
	MaxRecipients       int      `json:"max_recipients"`
	MaxFromLen          int      `json:"max_from_len,omitempty"` // name and address together, in UTF-16 units
	MaxAttachments      int      `json:"max_attachments"`
	MaxTags             int      `json:"max_tags"` // tags beyond these are kept by us and not passed on
	MaxTagLen           int      `json:"max_tag_len"`
	MaxMetadataKeys     int      `json:"max_metadata_keys"` // our own key is already subtracted
	MaxMetadataKeyLen   int      `json:"max_metadata_key_len"`
	MaxMetadataValueLen int      `json:"max_metadata_value_len"`
	MaxMetadataBytes    int      `json:"max_metadata_bytes"`
	FoldsMetadataKeys   bool     `json:"folds_metadata_keys,omitempty"`  // keys that differ only in case are the same
	NeedsSubject        bool     `json:"needs_subject,omitempty"`        // refuses an empty one
	RefusesEmptyFiles   bool     `json:"refuses_empty_files,omitempty"`  // attachments without a byte
	ForbiddenExtensions []string `json:"forbidden_extensions,omitempty"` // lower case, without the dot
	ForbiddenInLocal    string   `json:"forbidden_in_local,omitempty"`   // characters of a local part
	SMTPUTF8            bool     `json:"smtputf8"`                       // carries non-ASCII local parts
	Calendar            bool     `json:"calendar"`                       // carries an invitation next to the text
}

// Refuse says in one phrase why a message with these facts can't go here, or "".
func (c Capabilities) Refuse(f *mail.Facts) string {
	switch {
	case c.MaxBytes > 0 && f.Bytes > c.MaxBytes:
		return fmt.Sprintf("message of %d bytes is over the cap of %d", f.Bytes, c.MaxBytes)
	case f.Calendar && !c.Calendar:
		return "it has no way to carry a calendar invitation"
	case c.NeedsSubject && f.NoSubject:
		return "the subject is empty"
	case c.RefusesEmptyFiles && f.EmptyFile:
		return "an attachment is empty"
	case c.FoldsMetadataKeys && f.MetaTwins:
		return "metadata keys differ only in case"
	case strings.ContainsAny(f.LocalMarks, c.ForbiddenInLocal):
		return "the local part of an address holds one of " + c.ForbiddenInLocal
	case f.NeedsSMTPUTF8 && !c.SMTPUTF8:
		return "address with a non-ASCII local part needs SMTPUTF8"
	}
	for _, rule := range []struct {
		have, limit int
		what        string // with a place for the number
	}{
		{f.BodyBytes, c.MaxBodyBytes, "text or html of %d bytes is"},
		{f.Recipients, c.MaxRecipients, "%d recipients are"},
		{f.FromLen, c.MaxFromLen, "from of %d characters, name and address together, is"},
		{f.Attachments, c.MaxAttachments, "%d attachments are"},
		{f.MetaKeys, c.MaxMetadataKeys, "%d metadata keys are"},
		{f.MetaKeyLen, c.MaxMetadataKeyLen, "metadata key of %d characters is"},
		{f.MetaValueLen, c.MaxMetadataValueLen, "metadata value of %d characters is"},
		{f.MetaBytes, c.MaxMetadataBytes, "metadata of %d bytes as JSON is"},
	} {
		if rule.limit > 0 && rule.have > rule.limit {
			return fmt.Sprintf(rule.what+" over the cap of %d", rule.have, rule.limit)
		}
	}
	for _, ext := range f.Extensions {
		if slices.Contains(c.ForbiddenExtensions, ext) {
			return "attachment type ." + strings.ToLower(ext) + " is forbidden"
		}
	}
	return ""
}
