package httpapi

import "net/http"

// problemPath is where the types of problems are explained. RFC 9457 section 3.1.1 allows a relative type with a full path: it
// resolves at any address of the service, and is the same text at all of them.
const problemPath = "/problems/"

// noType is the type in RFC 9457 of a problem without an explanation.
const noType = "about:blank"

// problemType explains a code.
type problemType struct {
	status int    // of the answer; 0: it varies
	text   string // what it means, and what to do
}

// problemTypes has a line for each code that an answer may have, with the text that explains its type.
var problemTypes = map[string]problemType{
	// The request can't be read.
	"malformed_json":          {400, "The body is not JSON. The detail tells the byte and the place: mend the program that writes it."},
	"truncated_json":          {400, "The JSON ends too early. Look whether the whole body was sent."},
	"trailing_data":           {400, "More follows behind the JSON object. Send one object and nothing else."},
	"duplicate_key":           {400, "A name occurs twice in one object, so that nobody can say which value is meant. Send it once."},
	"invalid_utf8":            {400, "The body is not UTF-8. Send JSON in UTF-8."},
	"byte_order_mark":         {400, "The JSON begins with a byte order mark. Send it without."},
	"empty_body":              {400, "The request has no body. The contract tells what belongs into it."},
	"expected_object":         {400, "The body must be a JSON object, or each message of a batch one."},
	"too_deep":                {400, "The JSON is nested deeper than anything that the API takes."},
	"too_many_tokens":         {400, "The JSON has more parts than anything that the API takes. Split the request."},
	"incomplete_body":         {400, "The body ended before its announced length, or its chunks are malformed. Nothing was stored: send it again."},
	"malformed_query":         {400, "The query of the URL is not well-formed. Escape what stands in it."},
	"missing_host":            {400, "The request has no Host header, or a broken one."},
	"invalid_cursor":          {400, "The cursor belongs to another listing or filter, or was changed. Take next_cursor as it is, with the same filter."},
	"invalid_event_id":        {400, "The id to go on from is not one of this service's. Use the last id of the stream, or none."},
	"invalid_if_match":        {400, `If-Match takes one entity tag as a GET gives it in ETag, such as "3", or *.`},
	"invalid_idempotency_key": {400, "An Idempotency-Key is 1 to 255 visible ASCII characters, at most 250 for a batch, and is given once."},
	"not_one_click":           {400, "An unsubscribe link takes a form that holds List-Unsubscribe=One-Click (RFC 8058)."},

	// The caller may not do it.
	"unauthorized":        {401, "No key, or one that is not valid, is expired or is revoked. Send Authorization: Bearer <key>."},
	"scope_missing":       {403, "The key is valid, and lacks the scope that the call takes. The detail names it; an admin key makes keys."},
	"address_not_allowed": {403, "Requests from this address are not taken: the key is for certain networks, or the admin API is. The detail has the address as the service sees it; an operator names it, or a proxy that hides yours."},
	"sender_not_allowed":  {403, "The key may send from certain domains only, and from is of none of them."},
	"tenant_paused":       {403, "The tenant is paused. Nothing was stored. An operator resumes it."},
	"forbidden":           {403, "This may not be done."},
	"refused":             {0, "A provider's report was not taken: its signature or password does not hold, or it is none. The account's state tells why."},

	// The request is for the wrong thing, or its content is.
	"not_found":              {404, "There is nothing of this name or at this path, or it belongs to another tenant."},
	"method_not_allowed":     {405, "The path exists and does not take this method. Allow names those that it takes."},
	"body_timeout":           {408, "The body arrived too slowly. Nothing was stored: send it again."},
	"too_large":              {413, "The body is over the cap, which the detail names. Send less at a time."},
	"unsupported_media_type": {415, "The body is of another type than the call takes. Set Content-Type to what the contract names."},
	"unsupported_encoding":   {415, "The body must not be compressed. Send it without Content-Encoding."},
	"invalid":                {422, "The request can be read, but some fields mean nothing. errors names each with a code and says what is expected."},

	// The present state does not allow it.
	"subject_waiting":         {409, "Messages to the address wait, are being sent, or have no known outcome, and nothing was erased. Wait until they are settled, or set cancel_waiting."},
	"conflict":                {409, "The present state of what you change stands against it. Look at it again."},
	"name_taken":              {409, "There is one of that name already. Choose another name, or change the one that is there."},
	"unknown_kind":            {409, "The account is of a kind of provider that this release does not know. Upgrade this replica."},
	"last_admin_key":          {409, "Without this key nobody could administer the service. Make another admin key first."},
	"locks_you_out":           {409, "The networks do not hold the address that you call from, so that the key could not undo the change. Use another key for it."},
	"no_registration":         {409, "This provider has no API to set its webhooks up, or the account does not run. Set them up by hand."},
	"too_many_endpoints":      {409, "The tenant has as many webhook endpoints as it may. Delete one first."},
	"too_late":                {409, "The message is being sent, or has ended. It can't be cancelled any more."},
	"not_failed":              {409, "The message has not failed, so there is nothing to send again."},
	"maybe_sent":              {409, "A provider may have sent this message already. Sending it again may mail somebody twice, and takes force=true."},
	"idempotency_in_progress": {409, "A request with this Idempotency-Key is being worked on. Ask again after Retry-After."},
	"idempotency_mismatch":    {422, "This Idempotency-Key was used with another body. Use a new key for another message."},
	"no_route_capability":     {422, "No account that may take this message could ever carry it. The detail names the rule of each account."},
	"smtputf8_unsupported":    {422, "An address has a non-ASCII local part, and no account that may take the message carries such addresses."},
	"stale":                   {412, "Somebody else changed it since you read it. Read it again, and repeat your change on what is there."},
	"precondition_required":   {428, "The call takes If-Match, so that two who change at once do not undo each other. Send the ETag that you read, or *."},

	// There are too many requests.
	"rate_limited":      {429, "The key is over its rate, or an address over what it may ask without a key. Come back after Retry-After."},
	"too_many_failures": {429, "Too many requests with a wrong key came from this address. Come back after Retry-After, with a good one."},
	"too_many_requests": {429, "Too many requests of this address are under way. Come back after Retry-After."},
	"too_many_streams":  {429, "The tenant has as many event streams open as it may. Close one."},

	// The server or a provider failed.
	"internal":         {500, "Our mistake. The request id leads to it in the log. Whether anything was stored is not known: look before you repeat."},
	"provider_refused": {502, "The provider was asked to do something and did not. The detail has its words."},
	"database":         {503, "The database takes nothing now. Nothing was stored, and nothing will be: repeat the request after Retry-After."},
	"queue_full":       {503, "More is waiting to be stored than there is room for. Nothing was stored: repeat the request after Retry-After."},
	"storage_full":     {503, "The database has no space left. Nothing was stored. An operator has to make room."},
	"clock":            {503, "The database's clock jumped, and nothing can be dated until it is sure again. Nothing was stored: repeat the request."},
	"draining":         {503, "This replica is about to stop. Nothing was stored: repeat the request, and another replica takes it."},
	"unavailable":      {503, "This can't be done now. Nothing was stored: repeat the request after Retry-After."},
	"outcome_unknown":  {504, "The database did not confirm, so nobody knows whether anything was stored. Repeat a send with the same Idempotency-Key; look before you repeat anything else."},
	"timeout":          {504, "The request took too long, and may have taken effect in part. Repeat a send with the same Idempotency-Key; look before you repeat anything else."},
}

// typeOf returns the type of a code.
func typeOf(code string) string {
	if _, known := problemTypes[code]; !known {
		return noType
	}
	return problemPath + code
}

// explainProblem serves the page that a problem's type links to, for people who meet that problem.
func explainProblem(w http.ResponseWriter, r *http.Request) error {
	code := pathParam(r, "code")
	p, known := problemTypes[code]
	if !known {
		return refuse(http.StatusNotFound, "not_found", "There is no such type of problem.")
	}
	return writePage(w, http.StatusOK, notice{Title: title(code), Text: p.text, Code: code, Status: p.status})
}
