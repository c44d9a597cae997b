// Package emulator holds what the emulated providers share: the ledger, limits, faults, the delivery of events, and the control
// API. Each provider has its own folder, is described by a Kind and implements the interface Provider; package catalog lists
// them. They are written from the providers' documentation and never from our adapters, so that a mistake in an adapter shows
// up here.
//
// An emulator decides what a provider would answer: it checks the credential, refuses what the provider refuses in the
// provider's words, applies limits, fails on demand, and writes every accepted message to a ledger before the answer leaves.
// Afterwards it reports what happens to the messages, signed like the provider's webhooks. It delivers nothing. The most likely
// mistake of a newcomer is to read an answer of the emulator as the truth about a message. The truth is the ledger, which also
// has messages that were accepted although the answer was lost.
//
// # A new provider
//
// It needs a folder, a line in catalog.Kinds, KIND_test.go beside this file, and rows in the tables of this comment, which a test
// checks. The files have the same names everywhere: api.go (Kind, calls, credential, errors), check.go (what is refused) and
// events.go (Compose and Answered). A provider that has such an API also has lookup.go and register.go (the API that registers
// webhooks, on a Registry), and one whose keys need code has keys.go. The tests of this package with a table of all kinds report
// the new one and name the table.
//
// # Addresses
//
// One HTTP listener serves a base URL for each provider, and one SMTP listener serves the relay:
//
//	http://HOST:PORT/sendgrid   POST /v3/mail/send
//	http://HOST:PORT/mailgun    POST /v3/{domain}/messages, /v3/{domain}/messages.mime
//	http://HOST:PORT/postmark   POST /email, /email/batch
//	http://HOST:PORT/ses        POST /v2/email/outbound-emails, GET /v2/email/account; SNS at POST and GET /
//	http://HOST:PORT/resend     POST /emails, /emails/batch
//	SMTPHOST:PORT               AUTH (PLAIN, LOGIN, CRAM-MD5), PIPELINING, 8BITMIME, SMTPUTF8, DSN, SIZE, CHUNKING; no TLS
//
// Credentials are those of the kinds, unless Options.Credentials replaces them. They are public and give access to an emulator
// only. The SigV4 signature of an SES call is computed and compared. The token POSTMARK_API_TEST, SendGrid's sandbox_mode and
// Mailgun's o:testmode are accepted and mail nobody, so they leave no line in the ledger.
//
// Verified senders, credits and suspended accounts depend on an account's state, so the emulator does not know them. Script
// them as faults with the provider's real body.
//
// # Outcomes
//
// The local part of a recipient selects what happens to it, in any letter case and with anything after a plus sign:
// bounce+4711@example.org bounces. Every other address is delivered.
//
//	local part   the ledger says   what happens
//	(any other)  delivered         accepted
//	bounce       bounce            accepted; a hard bounce, 5.1.1, comes later
//	softbounce   softbounce        accepted; a soft bounce, mailbox full, 5.2.2, comes later
//	complaint    complaint         accepted; delivered, then a complaint
//	defer        defer             accepted; deferred, and delivered after Options.DeferFor, an hour if not given
//	open, click  open, click       accepted; delivered, then opened or clicked
//	suppressed   suppressed        accepted, then dropped, unless the table below says otherwise
//	reject       (no line)         refused at the call
//
//	kind      at the call, for reject           at the call, for suppressed
//	sendgrid  400 with the field                accepted
//	mailgun   400                               accepted
//	postmark  422 with ErrorCode 300            422 with ErrorCode 406, or 200 with "will not deliver to these inactive
//	                                            addresses" when other recipients are left
//	resend    422 validation_error              accepted
//	ses       400 MessageRejected               accepted
//	smtp      550 5.1.1 at RCPT                 like reject, because a relay has no list of its own
//
// A line of the ledger is one message. With several recipients, its outcome is the most serious one of theirs, in the order
// suppressed, bounce, complaint, softbounce, defer, click, open, delivered; OutcomeOf returns it per address.
//
// # Ledger
//
// GET /_ledger/{id} shows the messages with an id, the sender's own or the provider's, each with its mail: text, HTML,
// headers and the names of attachments. GET /_ledger/{id}/html shows the newest of them in a browser. Up to 64 MiB of mails
// are kept in memory; beyond that the oldest are dropped. A restart drops all.
//
// GET /_ledger returns a JSON array, or JSON lines if the request has "Accept: application/x-ndjson", in order of acceptance;
// ?provider=KIND, ?since=RFC3339 (inclusive, by arrival) and ?limit=N (the first N) narrow it. A SendGrid call has one line
// per personalization, a Mailgun call with recipient-variables has one per recipient, a batch of Postmark or Resend has one per
// accepted item. "calendar" is the method of an invitation that clients would show as one, or the reason why they would not. "to" is
// the whole accepted envelope: recipients refused by Postmark or at RCPT are not in it. "from" is the bare address of the
// From header.
//
// With Options.LedgerPath each line is written and fsynced before the provider's answer leaves; requests that wait at
// the same time share one write and one fsync. The file is read again at start. If a crash left an incomplete last line, it is
// cut off: its answer never left. Only one emulator may use a file. All lines are kept in memory, about 400 bytes each, until
// DELETE /_ledger, which empties the file and drops the mails. A test that sends tens of millions should call it between its
// parts.
//
// # Limits and statistics
//
// Options.Limits are applied as sliding windows over any span, on the monotonic clock. A call that meets a full window is
// answered as the provider does it (429 with X-RateLimit or ratelimit headers, "try again after", a bare 429,
// or TooManyRequestsException; SMTP 450 4.7.1) and uses no room. A batch of Postmark or Resend counts as one request, and as
// the number of messages and recipients that it has. A restart clears the windows.
//
// GET /_stats shows for each provider how many requests and look-ups came, and how they ended: accepted (at least one message
// went into the ledger), rejected, throttled, tested (accepted in a test mode) or faulted (no answer was given). For each window
// it shows the highest sliding count ever seen. That count includes every authenticated send request, even if it was answered
// 429. So a peak of at most n proves that the sender kept the limit by itself. "hooks" counts the events and their requests:
// see HookStats.
//
// # Faults
//
// PUT /_faults replaces the script of all providers, GET shows the rest of it with hits, and DELETE ends it (?provider=KIND for
// one). Each provider has a list; a request takes the first fault that is not used up and matches. Faults of sends, of look-ups
// and of events do not wait for each other.
//
//	{"sendgrid": [{"mode": "throttle", "count": 3}, {"mode": "accept_then_drop", "count": 1, "match": "*@example.org"}]}
//
// Fields: mode; count (how many requests, 0 = until deleted); match (a pattern for a recipient's address, * is any sequence of
// characters; without it every request matches); latency ("250ms", up to 10m); status, headers, body; seconds; stage; copies;
// path ("send", the default, or "lookup", for modes latency, throttle and error).
//
//	mode              what happens
//	latency           the request waits for latency, then continues as usual
//	throttle          429 in the provider's form, SMTP 421 and the connection closes. With seconds, it lasts that long from the
//	                  first hit, and the answer gives the end; else it is for count requests, and the answer gives 1 s
//	error             the given status, headers and body; without a body the provider's own for that status. SMTP: the
//	                  reply status and body ("4.3.0 text") at stage mail, rcpt or data (after the final dot)
//	drop_before       the connection is reset, nothing is accepted
//	accept_then_drop  the ledger is written, then the connection is reset without an answer
//	accept_then_500   the ledger is written, the answer is the provider's 500 (HTTP only), or status and body if given
//	black_hole        the request is read and never answered, nothing is accepted; ends when the client leaves
//	slow              accepted, and the answer is sent byte by byte over latency (10 s if not given)
//	partial           Postmark: the matching items of a batch, or recipients of a single message, or without match every
//	                  second one, are refused; status is the ErrorCode and body the Message of items (300). SMTP: the same
//	                  at RCPT, with status and body (450 4.2.1); count is of refused recipients
//
//	lookup_delay      look-ups do not show anything younger than latency
//	lookup_empty      look-ups find nothing
//
// latency can be combined with every mode of sends: it comes before the answer, and in the accept modes between ledger and
// answer. Faults apply only to requests with a valid credential.
//
// Faults of events apply to an event when it is first sent. One event may meet several modes. count is of events, except for
// hook_shuffle, where it is of messages.
//
//	hook_duplicate      it is sent once more, or copies times (up to 100), with the same id
//	hook_new_id         each copy and each repetition has an id of its own
//	hook_delay          it is sent later, by latency
//	hook_shuffle        the events of the message are sent in reverse; each keeps its own time
//	hook_drop           it is never sent
//	hook_bad_signature  the signature is not ours. Postmark: the password or token is wrong. SMTP: the last character of the
//	                    return path's local part is changed
//	hook_hold           it is kept until DELETE /_hooks/held (?provider=KIND), or until the script has no more hook_hold
//	hook_signature_v1   SES: SignatureVersion 1 instead of 2
//
// # Events
//
// A provider with a hook reports what happens to each recipient, by the outcome of its address. Hooks are set by Options.Hooks,
// SetHooks, or the control API: PUT /_hooks {"mailgun": {"url": "http://127.0.0.1:8080/hooks/mailgun"}} replaces them all, and
// with ?provider=KIND only that one. DELETE removes them (?provider=KIND), including everything that was registered. GET shows
// them, the registered receivers, and the HookKeys, with which a receiver checks who sent an event. Without AllowRemote only
// URLs of this machine are accepted.
//
//	kind      outcome      events
//	sendgrid  delivered    processed, delivered
//	          bounce       processed, bounce
//	          softbounce   processed, bounce of type blocked
//	          complaint    processed, delivered, spamreport
//	          defer        processed, deferred, delivered
//	          suppressed   dropped, Bounced Address
//	          open, click  processed, delivered, open or click
//	mailgun   delivered    accepted, delivered
//	          bounce       accepted, failed permanent: bounce 550
//	          softbounce   accepted, failed permanent: generic 552
//	          complaint    accepted, delivered, complained
//	          defer        accepted, failed temporary, delivered
//	          suppressed   accepted, failed permanent: suppress-bounce 605
//	          open, click  accepted, delivered, opened or clicked
//	postmark  delivered    Delivery
//	          bounce       Bounce HardBounce, SubscriptionChange
//	          softbounce   Bounce SoftBounce
//	          complaint    Delivery, SpamComplaint, SubscriptionChange
//	          defer        Bounce Transient, Delivery
//	          open, click  Delivery, Open or Click
//	resend    delivered    email.sent, email.delivered
//	          bounce       email.sent, email.bounced: Permanent General
//	          softbounce   email.sent, email.bounced: Transient MailboxFull
//	          complaint    email.sent, email.delivered, email.complained
//	          defer        email.sent, email.delivery_delayed, email.delivered
//	          suppressed   email.suppressed
//	          open, click  email.sent, email.delivered, email.opened or email.clicked
//	ses       delivered    Send, Delivery
//	          bounce       Send, Bounce: Permanent General
//	          softbounce   Send, Bounce: Transient MailboxFull
//	          complaint    Send, Delivery, Complaint
//	          defer        Send, DeliveryDelay, Delivery
//	          suppressed   Send, Bounce: Permanent OnAccountSuppressionList
//	          open, click  Send, Delivery, Open or Click
//	smtp      delivered    nothing, unless NOTIFY asks for it
//	          bounce       DSN failed 5.1.1
//	          softbounce   DSN failed 5.2.2
//	          complaint    ARF
//	          defer        DSN delayed
//
// The first event comes after half to double Options.EventPace (100 ms), and each further one after a similar pause. Times and
// ids depend on the message: an event has the same ones in a hook, in its repetition and in a look-up. Messages whose answer was
// lost have their events like others. Messages that were accepted while there was no receiver never have any.
//
// An event that is not taken is sent again as the provider documents it, on its schedule scaled to Options.RetryPace (1 s):
//
//	kind      taken  never again  repetitions, after paces of
//	sendgrid  2xx    -            10, of 1, 2, 5, then 10
//	mailgun   200    406          6, of 1, 2, 5, 10, 15, 30; an event delivered: none, as its documentation has it
//	postmark  200    403          a Bounce 10, of 1 to 30; any other 3, of 1, 5, 15
//	resend    2xx    -            10, of 1, 2, 5, then 10
//	ses       2xx    3xx, 4xx     10, of 1, 2, 5, then 10: a topic with a delivery policy
//	smtp      2yz    5yz          10, of 1, 2, 5, then 10
//
// A repetition is the same request, byte for byte. No answer within 15 s is a failure. No redirect is followed.
//
// Up to 200,000 events of a provider may wait, about 500 bytes each; events of further messages are counted as dropped. A slow
// receiver delays only events. Events that are pending when Stop begins are dropped, and a restart does not bring them back.
//
// SendGrid posts arrays of up to 500 events or 512 KB, collected over one EventPace. SES publishes to all receivers in its hook,
// as with a default configuration set, and reports all recipients with the same outcome at once. Its notifications are signed
// with a key of 1024 bits. The certificate comes from the emulator's own authority and is at
// /ses/SimpleNotificationService-<32 hex>.pem. The relay reports to the envelope sender by LMTP, like a Postfix with a transport
// for the bounce domain and delay_warning_time: failures and delays unless NOTIFY says otherwise, deliveries if NOTIFY=SUCCESS
// was asked for, nothing to a null sender. It returns the message's header, never its body.
//
// # Look-ups
//
// These answer from the ledger, including messages read back from its file. Of the sender's own values they show only gw_msg, and
// no tags. Options.LookupDelay is how long a message, and each of its events, is not shown.
//
//	SendGrid  POST /v3/logs, GET /v3/logs/{sg_message_id}: all the fields and operators of its query; no message has a category
//	Mailgun   POST /v1/analytics/logs: filter by domain, recipient, recipient_domain, message-id, event. GET /v3/{domain}/events:
//	          begin, end, ascending, limit, event, severity, recipient, message-id, from, subject
//	Postmark  GET /messages/outbound: count, offset, one metadata_, recipient, fromemail, subject, messagestream, fromdate,
//	          todate. GET /messages/outbound/{id}/details
//	Resend    GET /emails: limit, after, before. GET /emails/{id}
//
// # Registration
//
// A receiver that was registered by a provider's own API gets events in addition to the hook, each URL once, and only the events
// that it is registered for:
//
//	SendGrid  /v3/user/webhooks/event/settings, /all, /{id}, /signed/{id}; all webhooks share one key
//	Mailgun   /v3/domains/{domain}/webhooks, /{name}; GET /v5/accounts/http_signing_key
//	Postmark  /webhooks, /{id}: the URL is called once per enabled trigger; the answer is ErrorCode 1364 unless each is a 200
//	Resend    /webhooks, /{id}
//	SES       /v2/email/configuration-sets, /{name}/event-destinations, /{name}: events of messages that name the set go to
//	          the confirmed subscriptions of its topics. SNS: Subscribe posts a SubscriptionConfirmation, and
//	          ConfirmSubscription with its token confirms. A send may name a set that does not exist
package emulator
