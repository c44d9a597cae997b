// Package emulator is a wire-true stand-in for SendGrid, Mailgun, Postmark, Amazon SES v2 and an SMTP relay, written
// from the providers' documentation and never from our adapters, so that a mistake in an adapter shows up here.
//
// It decides what a provider would answer: it checks the credential, refuses what the provider refuses in the
// provider's words, holds limits, fails on demand, and writes every accepted message to a ledger before the answer
// leaves. It leaves to others what happens to the mail: nothing is delivered anywhere. The mistake a newcomer would
// make is to read an answer of the emulator as the truth about a message: the truth is the ledger, which also has what
// was accepted although the answer was lost.
//
// # Addresses
//
// One HTTP listener serves four base URLs, and one SMTP listener the relay:
//
//	http://HOST:PORT/sendgrid   POST /v3/mail/send
//	http://HOST:PORT/mailgun    POST /v3/{domain}/messages, /v3/{domain}/messages.mime
//	http://HOST:PORT/postmark   POST /email, /email/batch
//	http://HOST:PORT/ses        POST /v2/email/outbound-emails, GET /v2/email/account
//	SMTPHOST:PORT               AUTH PLAIN, PIPELINING, 8BITMIME, SMTPUTF8, DSN, SIZE, CHUNKING; no TLS
//
// Credentials are those of Options.Credentials; DefaultCredentials are public and open nothing but an emulator. The
// SigV4 signature of an SES call is computed and compared. The token POSTMARK_API_TEST, SendGrid's sandbox_mode and
// Mailgun's o:testmode are accepted and mail nobody, so they leave no line in the ledger.
//
// Not known to the emulator, since it depends on an account's state, are verified senders, credits and suspended
// accounts: script them as faults with the provider's real body.
//
// # Outcomes
//
// The local part of a recipient picks what becomes of it, in any case of letters and with anything after a plus sign:
// bounce+4711@example.org bounces. Every other address is delivered.
//
//	local part   the ledger says   at the call
//	(any other)  delivered         accepted
//	bounce       bounce            accepted; a hard bounce comes later
//	softbounce   softbounce        accepted; a soft bounce comes later
//	complaint    complaint         accepted; delivered, then a complaint
//	defer        defer             accepted; deferred, then delivered
//	open, click  open, click       accepted; delivered, then opened or clicked
//	suppressed   suppressed        Postmark: 422 with ErrorCode 406, or 200 with "will not deliver to these inactive
//	                               addresses" when other recipients are left; the others accept and drop it later
//	reject       (no line)         SendGrid 400 with the field, Mailgun 400, Postmark 422 with ErrorCode 300,
//	                               SES 400 MessageRejected, SMTP 550 5.1.1 at RCPT
//
// A line of the ledger is one message. With several recipients its outcome is the gravest of theirs, in the order
// suppressed, bounce, complaint, softbounce, defer, click, open, delivered; OutcomeOf tells it per address.
//
// # Ledger
//
// GET /_ledger gives a JSON array, or JSON lines if the request has "Accept: application/x-ndjson", in order of
// acceptance; ?provider=KIND, ?since=RFC3339 (inclusive, by arrival) and ?limit=N (the first N) narrow it. A SendGrid
// call has a line per personalization, a Mailgun call with recipient-variables one per recipient, a Postmark batch one
// per accepted item. "to" is the whole envelope that was taken: recipients refused by Postmark or at RCPT are not in it.
// "from" is the bare address of the From header.
//
// With Options.LedgerPath each line is written and fsynced before the provider's answer leaves; requests that wait at
// the same time share one write and one fsync. The file is read again at start, and a last line torn by a crash is cut
// off: its answer never left. Only one emulator may use a file. All lines are kept in memory, about 400 bytes each, until
// DELETE /_ledger, which empties the file too; a test that sends tens of millions should call it between its parts.
//
// # Limits and statistics
//
// Options.Limits are held as sliding windows over any span, on the monotonic clock. A call that finds a window full
// is answered as the provider does (429 with X-RateLimit headers, "try again after", a bare 429, or
// TooManyRequestsException; SMTP 450 4.7.1) and takes no room. A Postmark batch is one request, and as many messages
// and recipients as it has. Windows are forgotten at a restart.
//
// GET /_stats tells per provider how many requests came, and how they ended: accepted (at least one message went into
// the ledger), rejected, throttled, tested (accepted in a test mode) or faulted (no answer was given). For each window
// it has the highest sliding count ever seen. That count is independent of the refusing: it has every authenticated
// send request, those answered 429 too, so a peak of at most n proves that the sender kept the limit by itself.
//
// # Faults
//
// PUT /_faults replaces the script of all providers, GET shows what is left of it with hits, DELETE ends it
// (?provider=KIND for one). Each provider has a list; a request takes the first fault that is not used up and matches.
//
//	{"sendgrid": [{"mode": "throttle", "count": 3}, {"mode": "accept_then_drop", "count": 1, "match": "*@example.org"}]}
//
// Fields: mode; count (how many requests, 0 = until deleted); match (a pattern for a recipient's address, * is any run
// of characters; without it every request); latency ("250ms", up to 10m); status, headers, body; seconds; stage.
//
//	mode              what happens
//	latency           the request waits for latency, then goes on as usual
//	throttle          429 in the provider's shape, SMTP 421 and the connection closes. With seconds, for that long from the
//	                  first hit, and the answer names the end; else for count requests, and the answer names 1 s
//	error             the given status, headers and body; without a body the provider's own for that status. SMTP: the
//	                  reply status and body ("4.3.0 text") at stage mail, rcpt or data (after the final dot)
//	drop_before       the connection is reset, nothing is accepted
//	accept_then_drop  the ledger is written, then the connection is reset without an answer
//	accept_then_500   the ledger is written, the answer is the provider's 500 (HTTP only), or status and body if given
//	black_hole        the request is read and never answered, nothing is accepted; ends when the client leaves
//	slow              accepted, and the answer trickles out byte by byte over latency (10 s if not given)
//	partial           Postmark: the matching items of a batch, or recipients of a single message, or without match every
//	                  second one, are refused; status is the ErrorCode and body the Message of items (300). SMTP: so at
//	                  RCPT, with status and body (450 4.2.1); count is of refused recipients
//
// latency goes with every mode: it comes before the answer, and for the accept modes between ledger and answer.
// Faults meet only requests with a good credential.
package emulator
