package incident

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/seal"
)

// Channel is how people are told.
type Channel string

// The channels. Webhook is a POST with the signature of Standard Webhooks, Slack one with a text that Slack and its like show,
// Mail a message through another account than the one that the incident is about.
const (
	Webhook Channel = "webhook"
	Slack   Channel = "slack"
	Mail    Channel = "mail"
)

// Channels lists the channels.
func Channels() []Channel { return []Channel{Webhook, Slack, Mail} }

// Rule says who is told of which incidents.
type Rule struct {
	ID        int32
	Name      string
	Channel   Channel
	Kinds     []Kind      // empty: all
	URL       seal.Secret // of Webhook and Slack; in listings only Origin is set
	Origin    string      // scheme and host of URL
	Secret    seal.Secret // of Webhook: whsec_ and base64; not in listings
	From      string      // of Mail
	To        []string
	CreatedAt time.Time
	LastTold  time.Time
	LastError string // of the last try; "" if it worked
}

// Wants reports whether the rule is about incidents of the kind.
func (r *Rule) Wants(k Kind) bool { return len(r.Kinds) == 0 || slices.Contains(r.Kinds, k) }

// Notice is one thing that is to be told by one rule: that an incident began, or that it ended.
type Notice struct {
	ID       mail.ID // the same for all tries
	Incident Incident
	Rule     Rule
	Ended    bool
	Tries    int     // made so far
	Message  mail.ID // of the mail that tells it, zero before there is one
	Tried    []string
}

// Result is what became of a try to tell.
type Result struct {
	Notice *Notice
	Done   bool // nothing more is to be done
	Error  string
	Again  time.Duration // until the next try, if it is not done
}

// localPart finds what stands before the @ of an address.
var localPart = regexp.MustCompile(`[^\s@<>"'(),:;\[\]]+@`)

// Veil hides whose addresses a provider's text names. Texts are veiled before they are stored.
func Veil(text string) string { return localPart.ReplaceAllString(text, "***@") }

// Title is one line about the notice. It has no addresses.
func (n *Notice) Title() string {
	title := n.Incident.Kind.Says()
	if n.Incident.Account != "" {
		title = n.Incident.Account + ": " + title
	}
	if n.Ended {
		return "ended: " + title
	}
	return title
}

// Text is the whole notice for people, without the local parts of addresses.
func (n *Notice) Text() string {
	in := &n.Incident
	lines := []string{n.Title(), ""}
	if in.Subject != "" {
		lines = append(lines, "About: "+Veil(in.Subject))
	}
	if in.Detail != "" {
		lines = append(lines, "Detail: "+in.Detail)
	}
	lines = append(lines, "Since: "+in.Since.UTC().Format(time.RFC3339))
	if n.Ended {
		lines = append(lines, "Until: "+in.Ended.UTC().Format(time.RFC3339))
	} else {
		lines = append(lines, "", in.Remedy())
	}
	lines = append(lines, "", "Runbook: "+in.Kind.Runbook(), "Incident: "+in.ID.String())
	return strings.Join(lines, "\n") + "\n"
}

// Runbook is the section of the runbook about a kind.
func (k Kind) Runbook() string { return "docs/runbook.md#" + strings.ReplaceAll(string(k), "_", "-") }
