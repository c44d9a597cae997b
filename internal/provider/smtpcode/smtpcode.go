// Package smtpcode reads SMTP replies: what a reply code, an enhanced status code and the words behind them say about
// why a recipient was not reached. Several providers pass such replies on in their events.
//
// It decides on one reason, by a table (table.go). What follows from the reason, and whether the reply was final, is the
// caller's: the same 4.2.2 comes with a message that is put off and with one that was given up.
//
// A newcomer's likeliest mistake is to trust the enhanced code alone: servers give 5.7.1 for an unknown user and 5.1.1
// for spam, so the words are asked first, and an address is called bad for good only if nothing speaks against it.
package smtpcode

import (
	"path"
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
)

// maxText caps how much of a reply's words is read, in bytes. Reports of several hops have been seen with 2 kB.
const maxText = 4096

// Classify gives the reason behind a reply, Undetermined when it says nothing. Any of the three may be "": codes that
// are not given are looked for in the text, and a text without codes is judged by its words. A temporary code (4xx, or
// 4.x.x with whatever reply code) never leads to a reason of the class hard.
func Classify(code, enhanced, text string) mail.Reason {
	text = text[:min(len(text), maxText)]
	code, enhanced = strings.TrimSpace(code), strings.TrimSpace(enhanced)
	if code == "" || enhanced == "" {
		foundCode, foundEnhanced := Find(text)
		if code == "" {
			code = foundCode
		}
		if enhanced == "" {
			enhanced = foundEnhanced
		}
	}
	temporary := strings.HasPrefix(code, "4") || strings.HasPrefix(enhanced, "4")
	words := strings.ToLower(strings.Join(strings.Fields(names.ReplaceAllString(text, " ")), " "))
	for i := range rules {
		if r := &rules[i]; (!temporary || r.reason.Class() != mail.Hard) && r.matches(code, enhanced, words) {
			return r.reason
		}
	}
	return mail.Undetermined
}

// names are what servers quote that is not theirs to say: addresses, URLs and host names, which hold words such as
// "spam" and "blocked" for reasons of their own.
var names = regexp.MustCompile(`[^\s<>]*@[^\s<>]*|[^\s<>]+://[^\s<>]+|(?:[0-9A-Za-z_-]+\.)+[a-z]{2,24}\b`)

func (r *rule) matches(code, enhanced, words string) bool {
	if r.codes != nil && !matchesAny(r.codes, code) || r.enhanced != nil && !matchesAny(r.enhanced, enhanced) {
		return false
	}
	if r.words == nil {
		return true
	}
	for _, w := range r.words {
		if strings.Contains(words, w) {
			return true
		}
	}
	return false
}

func matchesAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, s); err == nil && ok {
			return true
		}
	}
	return false
}

// The places where codes stand. A bare number is taken for a reply code only where one is to be expected: replies also
// count messages, minutes and bytes. An enhanced code must not be a part of an IP address.
var (
	bothForm     = regexp.MustCompile(`(?:^|[^0-9A-Za-z.])([45][0-57][0-9])[ -]+[#(]?([45]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|\.[^0-9]|\.?$)`)
	codeForm     = regexp.MustCompile(`(?i)(?:^\s*|[:;>(#"'\n]\s*|\b(?:error|said|code|reply|replied|status|returned|with)[:=]?\s+)([45][0-57][0-9])(?:[^0-9A-Za-z.]|\.?$)`)
	enhancedForm = regexp.MustCompile(`(?:^|[^0-9A-Za-z.])([45]\.[0-9]{1,3}\.[0-9]{1,3})(?:[^0-9.]|\.[^0-9]|\.?$)`)
)

// Find reads the reply code and the enhanced status code (RFC 3463) out of the words of a reply, "" for what is not
// there. Only 4xx and 5xx are looked for. A pair that stands together goes before codes that stand apart.
func Find(text string) (code, enhanced string) {
	text = text[:min(len(text), maxText)]
	if m := bothForm.FindStringSubmatch(text); m != nil {
		return m[1], m[2]
	}
	if m := codeForm.FindStringSubmatch(text); m != nil {
		code = m[1]
	}
	if m := enhancedForm.FindStringSubmatch(text); m != nil {
		enhanced = m[1]
	}
	return code, enhanced
}
