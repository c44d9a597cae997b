package record

import "encoding/json"

// SubjectQuery names a person by address, and the tenant whose data are meant: "" for all. Cursor is where a step begins.
type SubjectQuery struct{ Address, Tenant, Cursor string }

// SubjectRow is one stored row about an address.
type SubjectRow struct {
	Kind string // message, body, recipient, attempt, event, webhook_delivery, suppression, soft_bounces
	Row  json.RawMessage
}

// SubjectCount is what is stored about an address. Open are those of Messages that still wait, are being sent, or have no known outcome.
// Events belong to no message.
type SubjectCount struct {
	Messages, Open, Suppressions, Events int
	Accounts                             []SubjectAccount // that were asked to send any of Messages
}

// Erased is what one step of an erasure did. Open are messages that it left, because they are open.
type Erased struct{ Messages, Events, Open int }

// SubjectAccount is an account, and how many messages it was asked to send.
type SubjectAccount struct {
	Name, Kind string
	Messages   int
}
