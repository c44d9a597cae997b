// Package catalog knows which providers are emulated. It is the one place that imports every kind of emulator.
//
// It decides nothing: what differs between kinds is in their folders. The mistake a newcomer would make is to ask for a
// kind by its name somewhere else.
package catalog

import (
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/mailgun"
	"github.com/sendgate/sendgate/internal/emulator/postmark"
	"github.com/sendgate/sendgate/internal/emulator/sendgrid"
	"github.com/sendgate/sendgate/internal/emulator/ses"
	"github.com/sendgate/sendgate/internal/emulator/smtp"
)

// Kinds describes every provider, in the order in which they are shown.
func Kinds() []emulator.Kind {
	return []emulator.Kind{sendgrid.Kind(), mailgun.Kind(), postmark.Kind(), ses.Kind(), smtp.Kind()}
}

// New makes an emulator of all the providers.
func New(opt emulator.Options) (*emulator.Emulator, error) { return emulator.New(Kinds(), opt) }
