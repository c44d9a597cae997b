package api

import "time"

// Event is one normalised fact about one recipient, as a provider reported it. It is also the data of a POST to a webhook
// endpoint.
type Event struct {
	ID                string    `json:"id"`
	Type              string    `json:"type"` // accepted, deferred, delivered, bounced, rejected, complained, unsubscribed, opened, clicked, failed_unknown, endpoint_disabled; "" unmapped
	ProviderType      string    `json:"provider_type,omitempty"`
	At                time.Time `json:"at"`          // on the provider's clock
	ReceivedAt        time.Time `json:"received_at"` // by us
	MessageID         string    `json:"message_id,omitempty"`
	Recipient         string    `json:"recipient,omitempty"`
	Account           string    `json:"account,omitempty"`
	Provider          string    `json:"provider,omitempty"`
	ProviderMessageID string    `json:"provider_message_id,omitempty"`
	Stream            string    `json:"stream,omitempty"`
	Tags              []string  `json:"tags,omitempty"`
	Source            string    `json:"source"` // webhook, lookup, response, unsubscribe, system
	Bounce            *Bounce   `json:"bounce,omitempty"`
	URL               string    `json:"url,omitempty"`     // clicked
	Machine           bool      `json:"machine,omitempty"` // opened or clicked by a machine
}

// Bounce says why a recipient was not reached.
type Bounce struct {
	Class    string `json:"class,omitempty"` // hard, soft, policy; absent when the provider never tried
	Reason   string `json:"reason"`
	Rule     string `json:"rule,omitempty"` // the rule that decided: reply/mailbox_unknown, mailgun/605
	Code     string `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
}

// EventQuery selects events. Zero fields select everything.
type EventQuery struct {
	Types                                 []string // any of them; ?type= may repeat
	MessageID, Recipient, Account, Stream string
	Since, Until                          time.Time // of receipt
	Cursor                                string
	Limit                                 int // 1..200
}

// EventPage is one page of GET /v1/events, newest first.
type EventPage = Page[Event]

// StatsQuery selects what GET /v1/stats counts: recipients of messages accepted in [Since, Until), at most 31 days;
// without Since the last 24 hours.
type StatsQuery struct {
	By           string // account (default), stream, domain
	Since, Until time.Time
	Limit        int // 1..200 lines, the largest first
}

// Stats is the answer of GET /v1/stats.
type Stats struct {
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Data  []Stat    `json:"data"`
}

// Stat is one line of Stats, counted by recipient.
type Stat struct {
	Key                 string           `json:"key"`
	Recipients          int64            `json:"recipients"`
	Sent                int64            `json:"sent"` // taken by a provider, whatever came after
	Delivered           int64            `json:"delivered"`
	Deferred            int64            `json:"deferred"`
	Bounced             map[string]int64 `json:"bounced"` // by class
	Complained          int64            `json:"complained"`
	Suppressed          int64            `json:"suppressed"`
	Failed              int64            `json:"failed"`
	FailedUnknown       int64            `json:"failed_unknown"` // part of Failed: may have been sent
	Unknown             int64            `json:"unknown"`
	Opened              int64            `json:"opened"`
	Clicked             int64            `json:"clicked"`
	Unsubscribed        int64            `json:"unsubscribed"`
	AcceptToSentMS      Quantiles        `json:"accept_to_sent_ms"`
	AcceptToDeliveredMS Quantiles        `json:"accept_to_delivered_ms"`
}

// Quantiles are those of a latency, in milliseconds; 0 if nothing was measured.
type Quantiles struct {
	P50 int64 `json:"p50"`
	P95 int64 `json:"p95"`
}

// WebhookEndpoint is a URL to which events are POSTed, signed by Standard Webhooks.
type WebhookEndpoint struct {
	ID          string   `json:"id"`
	URL         string   `json:"url"`
	Description string   `json:"description,omitempty"`
	Types       []string `json:"types"`                  // empty: all
	Streams     []string `json:"streams"`                // empty: all
	HeaderNames []string `json:"header_names,omitempty"` // of extra headers; their values are not shown

	// UnreadableSecrets do not open with the server's keys, so no events are sent. Rotate "secret", or set "headers" again.
	UnreadableSecrets []string `json:"unreadable_secrets,omitempty"`

	Disabled       bool       `json:"disabled"`
	DisabledReason string     `json:"disabled_reason,omitempty"`
	FailingSince   *time.Time `json:"failing_since,omitempty"`
	LastSuccessAt  *time.Time `json:"last_success_at,omitempty"`
	Pending        int64      `json:"pending"`          // deliveries waiting
	Secret         string     `json:"secret,omitempty"` // whsec_…, only in the answer that made it
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
}

// WebhookEndpointRequest makes or changes an endpoint. In a change absent fields stay, and Disabled false clears the reason.
type WebhookEndpointRequest struct {
	URL         *string            `json:"url,omitempty"`
	Description *string            `json:"description,omitempty"`
	Types       *[]string          `json:"types,omitempty"`
	Streams     *[]string          `json:"streams,omitempty"`
	Headers     *map[string]string `json:"headers,omitempty"`    // extra headers; replaces all of them
	BasicAuth   *BasicAuth         `json:"basic_auth,omitempty"` // sets Authorization among Headers
	Disabled    *bool              `json:"disabled,omitempty"`
}

// BasicAuth is a name and a password (RFC 7617).
type BasicAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// WebhookRotateRequest replaces the secret; the old one signs too for OverlapSeconds (default 86,400, at most 604,800).
type WebhookRotateRequest struct {
	OverlapSeconds *int `json:"overlap_seconds,omitempty"`
}

// WebhookReplayRequest sends the events received in [Since, Until) again, if they match the endpoint's filter.
type WebhookReplayRequest struct {
	Since time.Time  `json:"since"`
	Until *time.Time `json:"until,omitempty"` // default now
}

// WebhookReplayResult says how many deliveries were queued.
type WebhookReplayResult struct {
	Queued int64 `json:"queued"`
}

// WebhookDelivery is one try of one event at one endpoint.
type WebhookDelivery struct {
	ID      string    `json:"id"`
	EventID string    `json:"event_id"`
	Try     int       `json:"try"`
	At      time.Time `json:"at"`
	TookMS  int64     `json:"took_ms"`
	Status  int       `json:"status,omitempty"` // HTTP
	Outcome string    `json:"outcome"`          // delivered, retry, failed, disabled
	Error   string    `json:"error,omitempty"`
}

// WebhookDeliveryPage is one page of an endpoint's delivery log, newest first.
type WebhookDeliveryPage = Page[WebhookDelivery]

// SuppressionImportResult is the result of a CSV import.
type SuppressionImportResult struct {
	Added   int64               `json:"added"`
	Present int64               `json:"present"` // were suppressed already
	Invalid int64               `json:"invalid"`
	Errors  []SuppressionCSVRow `json:"errors"` // the first 100
}

// SuppressionCSVRow is an invalid row of an import, with the reason.
type SuppressionCSVRow struct {
	Line    int    `json:"line"` // 1-based
	Message string `json:"message"`
}

// AccountWebhooks is the state of an account's receiver.
type AccountWebhooks struct {
	Account       string     `json:"account"`
	Path          string     `json:"path"` // /hooks/{account}
	LastEventAt   *time.Time `json:"last_event_at,omitempty"`
	Events        int64      `json:"events"`
	Refused       int64      `json:"refused"` // bad signatures and the like
	LastRefusedAt *time.Time `json:"last_refused_at,omitempty"`
	LastRefusal   string     `json:"last_refusal,omitempty"`
	LastSentAt    *time.Time `json:"last_sent_at,omitempty"` // the account's last accepted call
	Silent        bool       `json:"silent"`                 // the account sent mail, and for an hour no event came
}

// AccountWebhooksRequest registers our URL at the provider through its API, if it has one.
type AccountWebhooksRequest struct {
	URL string `json:"url"` // base of this service as the provider reaches it; /hooks/{account} is added
}

// AccountWebhooksResult says what was done at the provider, and which steps are left for a human.
type AccountWebhooksResult struct {
	URL   string   `json:"url"`
	Done  []string `json:"done"`
	Steps []string `json:"steps"`
}

// ReprojectRequest rebuilds statuses from kept payloads, a page at a time.
type ReprojectRequest struct {
	Account string    `json:"account,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of receipt; default everything that is kept
	Cursor  string    `json:"cursor,omitempty"`
	Limit   int       `json:"limit,omitempty"` // payloads, 1..1000, default 500
	DryRun  bool      `json:"dry_run,omitempty"`
}

// ReprojectResult is one page of the work. Cursor is "" at the end.
type ReprojectResult struct {
	Payloads int    `json:"payloads"`
	Events   int    `json:"events"`
	Changed  int    `json:"changed"` // events that the parser reads differently now
	Messages int    `json:"messages"`
	Cursor   string `json:"cursor,omitempty"`
}
