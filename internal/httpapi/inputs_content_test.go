package httpapi

import (
	"fmt"
	"strings"
	"time"
)

func contentRows() []inputRow {
	field := func(n, name, member, value, code string) inputRow {
		return inputRow{n: n, name: name, body: sendJSON(member, value), status: 422, code: code}
	}
	fine := func(n, name string, changes ...string) inputRow {
		return inputRow{n: n, name: name, body: sendJSON(changes...), status: 202, stored: 1}
	}
	at := func(d time.Duration) string { return quoted(time.Now().Add(d).UTC().Format(time.RFC3339)) }
	keys := func(n int) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(`"k%d":"v"`, i)
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	rows := []inputRow{
		field("53", "subject with CRLF", "subject", `"a\r\nBcc: c@d.com"`, "control_char"),
		field("53", "subject of 999 bytes", "subject", quoted(strings.Repeat("s", 999)), "too_long"),
		fine("53", "empty subject", "subject", `""`),
		fine("53", "no subject", "subject", ""),
		fine("53", "subject of spaces", "subject", `"  "`),
		field("54", "neither text nor html", "text", "", "required"),
		field("55", "html of the cap and 2 MiB", "html", `"`+strings.Repeat("h", 4<<20)+`"`, "too_long"),
		field("57", "space", "headers", `{"X A":"v"}`, "invalid_header_name"),
		field("57", "colon", "headers", `{"X-A:":"v"}`, "invalid_header_name"),
		field("57", "LF", "headers", `{"X-A\nBcc":"v"}`, "invalid_header_name"),
		field("57", "UTF-8", "headers", `{"X-Ö":"v"}`, "invalid_header_name"),
		field("58", "folding", "headers", `{"X-A":"v\n Bcc: c@d.com"}`, "control_char"),
		field("58", "CRLF folding", "headers", `{"X-A":"v\r\n c"}`, "control_char"),
		field("59", "101 headers", "headers", strings.ReplaceAll(keys(101), `"k`, `"X-K`), "too_many"),
		fine("59", "100 headers are fine", "headers", strings.ReplaceAll(keys(100), `"k`, `"X-K`)),
		fine("65", "metadata key of 21, value of 81", "metadata", `{"`+strings.Repeat("k", 21)+`":"`+strings.Repeat("v", 81)+`"}`),
		fine("65", "11 metadata keys", "metadata", keys(11)),
		fine("65", "tag of 21", "tags", `["`+strings.Repeat("t", 21)+`"]`),
		field("65", "51 metadata keys", "metadata", keys(51), "too_many"),
		field("65", "51 tags", "tags", listOf(51, func(i int) string { return fmt.Sprintf(`"t%d"`, i) }), "too_many"),
		fine("66", "a minute ago", "send_at", at(-time.Minute)),
		field("66", "six minutes ago", "send_at", at(-6*time.Minute), "in_the_past"),
		field("66", "31 days ahead", "send_at", at(31*24*time.Hour), "too_far"),
		field("66", "no zone", "send_at", `"2026-03-01T12:00:00"`, "invalid_time"),
		field("66", "30 February", "send_at", `"2026-02-30T12:00:00Z"`, "invalid_time"),
		fine("67", "bare CR", "text", `"a\rb"`),
		fine("67", "LF dot LF", "text", `"a\n.\nb"`),
		fine("67", "CR dot CR", "text", `"a\r.\rb\r\n.\r\n"`),
		{n: "68", name: "one line of 10 MB", body: padded(sendJSON("text", `"PAD"`), "x", 10_000_000), status: 202, stored: 1},
		{n: "69", name: "template", body: sendJSON("template", `"welcome"`), status: 422, code: "unknown_field", field: "template"},
		{n: "70", name: "unknown provider hint", body: sendJSON("account", `"nobody"`), status: 422, code: "unknown_account", field: "account"},
		{n: "70", name: "provider is no field", body: sendJSON("provider", `"ses"`), status: 422, code: "unknown_field", field: "provider"},
		{n: "70", name: "unknown policy", body: sendJSON("on_ambiguous", `"maybe"`), status: 422, code: "invalid_value", field: "on_ambiguous"},
	}
	for _, name := range []string{"From", "Bcc", "DKIM-Signature", "X-SMTPAPI", "X-SES-CONFIGURATION-SET", "x-smtpapi"} {
		row := field("56", name, "headers", `{`+quoted(name)+`:"{\"to\":[\"x@evil.com\"]}"}`, "header_not_allowed")
		row.field = "headers." + name
		rows = append(rows, row)
	}
	return rows
}

// padded is body with n bytes in the place of PAD, without the many copies that a template of that size would take.
func padded(body, with string, n int) string {
	return strings.Replace(body, "PAD", strings.Repeat(with, n), 1)
}

// fileJSON is a list with one attachment of which some members are replaced.
func fileJSON(changes ...string) string {
	members := []string{"filename", `"a.txt"`, "content", `"aGk="`}
	for i := 0; i < len(changes); i += 2 {
		replaced := false
		for j := 0; j < len(members); j += 2 {
			if members[j] == changes[i] {
				members[j+1], replaced = changes[i+1], true
			}
		}
		if !replaced {
			members = append(members, changes[i], changes[i+1])
		}
	}
	all := make([]string, 0, len(members)/2)
	for i := 0; i < len(members); i += 2 {
		all = append(all, `"`+members[i]+`":`+members[i+1])
	}
	return "[{" + strings.Join(all, ",") + "}]"
}

func fileRows() []inputRow {
	bad := func(n, name, member, value, code string) inputRow {
		return inputRow{
			n: n, name: name, body: sendJSON("attachments", fileJSON(member, value)), status: 422, code: code,
			field: "attachments[0]." + member,
		}
	}
	fine := func(n, name, member, value string) inputRow {
		return inputRow{n: n, name: name, body: sendJSON("attachments", fileJSON(member, value)), status: 202, stored: 1}
	}
	return []inputRow{
		bad("60", "invalid Base64", "content", `"a!=="`, "invalid_base64"),
		bad("60", "no padding", "content", `"aGk"`, "invalid_base64"),
		bad("60", "URL-safe alphabet", "content", `"-_-_"`, "invalid_base64"),
		bad("60", "space", "content", `"aG k="`, "invalid_base64"),
		bad("60", "null", "content", `null`, "required"),
		fine("60", "CRLF is documented", "content", `"aG\r\nk="`),
		fine("61", "path", "filename", `"../../etc/passwd"`),
		bad("61", "CRLF", "filename", `"a\r\nX: y"`, "control_char"),
		bad("61", "300 bytes", "filename", quoted(strings.Repeat("a", 300)), "too_long"),
		fine("61", "device", "filename", `"CON"`),
		fine("61", "right-to-left override", "filename", `"invoice\u202efdp.exe"`),
		bad("61", "nothing but dots", "filename", `"../.."`, "invalid_filename"),
		bad("62", "CRLF", "content_type", `"text/html\r\nX: y"`, "control_char"),
		bad("62", "message/partial", "content_type", `"message/partial"`, "content_type_not_allowed"),
		bad("62", "multipart", "content_type", `"multipart/mixed; boundary=x"`, "content_type_not_allowed"),
		{n: "63", name: "51 attachments", body: sendJSON("attachments", listOf(51, func(int) string { return `{"filename":"a","content":""}` })), status: 422, code: "too_many", field: "attachments"},
		{n: "63", name: "30 MB", body: padded(sendJSON("attachments", fileJSON("content", `"PAD"`)), "A", 40_000_000), status: 413, code: "too_large", closed: true},
		bad("64", "content id with >", "content_id", `"logo>"`, "invalid_content_id"),
		bad("64", "content id with CRLF", "content_id", `"logo\r\nX: y"`, "control_char"),
	}
}
