package record

import "github.com/sendgate/sendgate/internal/mail"

// BulkAction is what an operator does to many messages at once.
type BulkAction string

// The actions. The first three are for messages that wait. Fail and Requeue also take messages whose outcome is unknown.
const (
	BulkCancel  BulkAction = "cancel"  // ends as cancelled
	BulkFail    BulkAction = "fail"    // ends as failed, or as failed_unknown if a provider may have the message
	BulkRequeue BulkAction = "requeue" // is tried now, and not when its retry is due
	BulkResend  BulkAction = "resend"  // has ended, and is sent again
)

// Bulk selects messages for a BulkAction, of one tenant or of all. Zero fields of the filter select everything.
type Bulk struct {
	Action BulkAction
	Filter         // Limit and Before are not used; the tenant 0 is all
	After  mail.ID // continue behind this message
	Upto   mail.ID // messages from this id on stay as they are
	Force  bool    // also what a provider may have sent
	Audit  any     // written to the audit if not nil
}

// BulkPage is what became of one page of a Bulk.
type BulkPage struct {
	Done      int     // messages that were changed
	MaybeSent int     // left alone, because a provider may have sent them
	Skipped   int     // left alone, because their state changed meanwhile or their body is gone
	Last      mail.ID // where the next page continues; zero: all messages were looked at
}
