// Package catalog knows which providers are emulated. It is the only place that imports every kind of emulator.
//
// It decides nothing: the differences between kinds are in their folders. The most likely mistake of a newcomer is to check for
// a kind by its name somewhere else.
package catalog

import (
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/mailgun"
	"github.com/sendgate/sendgate/internal/emulator/postmark"
	"github.com/sendgate/sendgate/internal/emulator/resend"
	"github.com/sendgate/sendgate/internal/emulator/sendgrid"
	"github.com/sendgate/sendgate/internal/emulator/ses"
	"github.com/sendgate/sendgate/internal/emulator/smtp"
)

// Kinds describes every provider, in display order.
func Kinds() []emulator.Kind {
	return []emulator.Kind{sendgrid.Kind(), mailgun.Kind(), postmark.Kind(), resend.Kind(), ses.Kind(), smtp.Kind()}
}

// New makes an emulator of all the providers.
func New(opt emulator.Options) (*emulator.Emulator, error) { return emulator.New(Kinds(), opt) }
