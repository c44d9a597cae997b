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
	Events       EventSpec
	Lookup       LookupSpec
}

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

// Capabilities is what a kind can carry. Zero means no limit known to us.
type Capabilities struct {
	MaxBytes            int64    `json:"max_bytes"` // whole message, encoded
	MaxRecipients       int      `json:"max_recipients"`
	MaxAttachments      int      `json:"max_attachments"`
	MaxTags             int      `json:"max_tags"` // more than these are kept by us and not passed on
	MaxTagLen           int      `json:"max_tag_len"`
	MaxMetadataKeys     int      `json:"max_metadata_keys"` // ours is already taken off
	MaxMetadataKeyLen   int      `json:"max_metadata_key_len"`
	MaxMetadataValueLen int      `json:"max_metadata_value_len"`
	MaxMetadataBytes    int      `json:"max_metadata_bytes"`
	ForbiddenExtensions []string `json:"forbidden_extensions,omitempty"` // lower case, without the dot
	SMTPUTF8            bool     `json:"smtputf8"`                       // carries non-ASCII local parts
}

// Refuse says in one phrase why a message with these facts can't go here, or "".
func (c Capabilities) Refuse(f *mail.Facts) string {
	over := func(have, limit int) bool { return limit > 0 && have > limit }
	switch {
	case c.MaxBytes > 0 && f.Bytes > c.MaxBytes:
		return fmt.Sprintf("message of %d bytes is over the cap of %d", f.Bytes, c.MaxBytes)
	case over(f.Recipients, c.MaxRecipients):
		return fmt.Sprintf("%d recipients are over the cap of %d", f.Recipients, c.MaxRecipients)
	case over(f.Attachments, c.MaxAttachments):
		return fmt.Sprintf("%d attachments are over the cap of %d", f.Attachments, c.MaxAttachments)
	case over(f.MetaKeys, c.MaxMetadataKeys):
		return fmt.Sprintf("%d metadata keys are over the cap of %d", f.MetaKeys, c.MaxMetadataKeys)
	case over(f.MetaKeyLen, c.MaxMetadataKeyLen):
		return fmt.Sprintf("metadata key of %d characters is over the cap of %d", f.MetaKeyLen, c.MaxMetadataKeyLen)
	case over(f.MetaValueLen, c.MaxMetadataValueLen):
		return fmt.Sprintf("metadata value of %d characters is over the cap of %d", f.MetaValueLen, c.MaxMetadataValueLen)
	case over(f.MetaBytes, c.MaxMetadataBytes):
		return fmt.Sprintf("metadata of %d bytes is over the cap of %d", f.MetaBytes, c.MaxMetadataBytes)
	case f.NeedsSMTPUTF8 && !c.SMTPUTF8:
		return "address with a non-ASCII local part needs SMTPUTF8"
	}
	for _, ext := range f.Extensions {
		if slices.Contains(c.ForbiddenExtensions, ext) {
			return "attachment type ." + strings.ToLower(ext) + " is forbidden"
		}
	}
	return ""
}
