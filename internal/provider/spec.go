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
	Guessable    []string // those of Secrets that people choose, and by which strangers could pass for the provider

	// Settings names every setting of the kind, and of each the secrets whose way it decides: to whom they are sent, or how they
	// are protected from others. Most decide of none. Whoever changes one has to give its secrets again, or he could send those
	// that are stored to himself.
	Settings map[string][]string

	Events EventSpec
	Lookup LookupSpec
	Repeat RepeatSpec
}

// Refuse answers for the provider where its caps are known, nil if it would take the message. Routing asks before it plans; an
// adapter asks for what routing did not check, such as a message that is pinned to its account.
func (s Spec) Refuse(send *Send) *Error {
	facts := send.Message.Facts()
	facts.Recipients = len(send.Envelope())
	why := s.Capabilities.Refuse(&facts)
	if why == "" {
		return nil
	}
	return &Error{Class: Rejected, Detail: Cut(string(s.Kind) + ": " + why), Elsewhere: true}
}

// MinGuessable is how many characters a secret of Spec.Guessable has to have when it is set. Shorter ones that are stored
// stay valid, and doctor warns of them.
const MinGuessable = 16

// EventSpec says what a kind reports by itself.
type EventSpec struct {
	Accepted  bool // it reports its own acceptance; else our call's answer is that event
	Delivered bool // it reports deliveries; else Sent is the last we hear of a good message
}

// LookupSpec says what a Finder of this kind is worth.
type LookupSpec struct {
	Works   bool          // there is one
	Settled time.Duration // after the call, when not to be found is proof; 0 never
	Kept    time.Duration // after the call, for how long it is: no plan of the provider forgets sooner; 0 for good
}

// RepeatSpec says whether a call of this kind can be made again without harm: the provider takes calls with one Send.Key
// for one.
type RepeatSpec struct {
	Within time.Duration // after the first of them; 0 never
}

// Capabilities is what a kind can carry. Zero means no limit known to us.
type Capabilities struct {
	MaxBytes            int64    `json:"max_bytes"` // whole message, encoded
	MaxBodyBytes        int      `json:"max_body_bytes,omitempty"`
	MaxRecipients       int      `json:"max_recipients"`
	MaxFromLen          int      `json:"max_from_len,omitempty"` // name and address together, in UTF-16 units
	MaxAttachments      int      `json:"max_attachments"`
	MaxTags             int      `json:"max_tags"` // more than these are kept by us and not passed on
	MaxTagLen           int      `json:"max_tag_len"`
	MaxMetadataKeys     int      `json:"max_metadata_keys"` // ours is already taken off
	MaxMetadataKeyLen   int      `json:"max_metadata_key_len"`
	MaxMetadataValueLen int      `json:"max_metadata_value_len"`
	MaxMetadataBytes    int      `json:"max_metadata_bytes"`
	FoldsMetadataKeys   bool     `json:"folds_metadata_keys,omitempty"`  // keys that differ in case only are one
	NeedsSubject        bool     `json:"needs_subject,omitempty"`        // refuses an empty one
	RefusesEmptyFiles   bool     `json:"refuses_empty_files,omitempty"`  // attachments without a byte
	ForbiddenExtensions []string `json:"forbidden_extensions,omitempty"` // lower case, without the dot
	ForbiddenInLocal    string   `json:"forbidden_in_local,omitempty"`   // characters of a local part
	SMTPUTF8            bool     `json:"smtputf8"`                       // carries non-ASCII local parts
	Calendar            bool     `json:"calendar"`                       // carries an invitation beside the text
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
