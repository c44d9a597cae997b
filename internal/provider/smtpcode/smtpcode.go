// Package smtpcode reads SMTP replies: what a reply code, an enhanced status code and the words behind them say about
// why a recipient was not reached. Several providers pass such replies on in their events.
package smtpcode

import "github.com/sendgate/sendgate/internal/mail"

// Classify gives the reason behind a reply. Any of the three may be "".
func Classify(code, enhanced, text string) mail.Reason {
	return mail.Undetermined
}

// Find reads the reply code and the enhanced status code out of the words of a reply, "" for what is not there.
func Find(text string) (code, enhanced string) {
	return "", ""
}
