package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
)

type webhooksCmd struct {
	List   webhooksListCmd   `cmd:"" help:"List endpoints, their state and how many events wait for them." detail:"WAITING counts the events that an endpoint has not taken yet." example:"webhooks list"`
	Add    webhooksAddCmd    `cmd:"" help:"Have events POSTed to a URL, and print its secret, once."`
	Show   webhooksShowCmd   `cmd:"" help:"Show one endpoint." detail:"The secret is not shown again; webhooks rotate makes a new one." example:"webhooks show 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f"`
	Set    webhooksSetCmd    `cmd:"" help:"Change an endpoint, disable it or enable it again."`
	Remove webhooksRemoveCmd `cmd:"" help:"Remove an endpoint and the events that wait for it." example:"webhooks remove 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f"`

	Rotate     webhooksRotateCmd     `cmd:"" help:"Replace an endpoint's secret and print the new one, once."`
	Replay     webhooksReplayCmd     `cmd:"" help:"Send the events of a period again."`
	Test       webhooksTestCmd       `cmd:"" help:"Send an example event now and show what the endpoint answered."`
	Deliveries webhooksDeliveriesCmd `cmd:"" help:"List the tries at an endpoint, newest first."`
}

type webhooksListCmd struct{ format }

// Run implements the command.
func (c *webhooksListCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	endpoints, err := client.WebhookEndpoints(ctx)
	if err != nil {
		return err
	}
	return c.show(s, api.List[api.WebhookEndpoint]{Data: endpoints}, func(w io.Writer) {
		head(w, "ID", "URL", "TYPES", "STREAMS", "STATE", "WAITING", "LAST SUCCESS")
		for _, e := range endpoints {
			row(w, e.ID, shorten(e.URL, 60), allOr(e.Types), allOr(e.Streams), endpointState(e), count(e.Pending), stampOf(e.LastSuccessAt))
		}
	})
}

func allOr(list []string) string {
	if len(list) == 0 {
		return "all"
	}
	return strings.Join(list, ",")
}

func endpointState(e api.WebhookEndpoint) string {
	switch {
	case e.Disabled:
		return "disabled"
	case len(e.UnreadableSecrets) > 0:
		return "unreadable"
	case e.FailingSince != nil:
		return "failing"
	default:
		return "active"
	}
}

func showEndpoint(s *Streams, f format, e *api.WebhookEndpoint) error {
	return f.show(s, e, func(w io.Writer) {
		row(w, "id", e.ID)
		row(w, "url", e.URL)
		if e.Description != "" {
			row(w, "description", e.Description)
		}
		row(w, "types", allOr(e.Types))
		row(w, "streams", allOr(e.Streams))
		if len(e.HeaderNames) > 0 {
			row(w, "headers", strings.Join(e.HeaderNames, ","))
		}
		row(w, "state", endpointState(*e))
		if e.Disabled {
			row(w, "because", orDash(e.DisabledReason))
			row(w, "to fix", "remove the cause, then: sendgate webhooks set "+e.ID+" --enable")
		}
		if len(e.UnreadableSecrets) > 0 {
			row(w, "unreadable", strings.Join(e.UnreadableSecrets, ", ")+": rotate the secret, set the headers again, or give the server the key that they were encrypted with")
		}
		if e.FailingSince != nil {
			row(w, "failing since", stampOf(e.FailingSince))
		}
		row(w, "last success", stampOf(e.LastSuccessAt))
		row(w, "waiting", count(e.Pending))
		row(w, "created", stamp(e.CreatedAt))
		if e.Secret != "" {
			row(w, "secret", e.Secret)
		}
	})
}

// showSecret is showEndpoint for answers that contain the secret.
func showSecret(s *Streams, f format, e *api.WebhookEndpoint) error {
	if err := showEndpoint(s, f, e); err != nil || f.JSON {
		return err
	}
	fmt.Fprintln(s.Err, "Keep the secret now: it is not shown again. The receiver needs it to tell our events from forged ones.")
	return nil
}

type webhooksAddCmd struct {
	URL         string   `arg:"" help:"The https URL to which events are POSTed; the server must be able to reach it."`
	Type        []string `help:"Only these types (repeat, or with commas); all when absent."`
	Stream      []string `help:"Only these streams (repeat, or with commas); all when absent."`
	Description string   `help:"A note for people, such as who owns it."`
	endpointSecrets
	format
}

// endpointSecrets are the flags for headers and passwords that are sent with each event.
type endpointSecrets struct {
	Header    []string `sep:"none" placeholder:"NAME=@FILE" help:"Send this header with each event (repeat). NAME=@FILE reads its value from a file, NAME=env:VAR from a variable; with NAME alone you are asked for it."`
	BasicAuth string   `placeholder:"USER=@FILE" help:"Send this name and password with each event; the password is read as the value of a header is."`
}

// into reads the values and puts them into a request.
func (e endpointSecrets) into(ctx context.Context, s *Streams, req *api.WebhookEndpointRequest) error {
	for _, spec := range e.Header {
		name, value, err := namedSecret(ctx, s, "--header", spec)
		if err != nil {
			return err
		}
		if req.Headers == nil {
			req.Headers = &map[string]string{}
		}
		(*req.Headers)[name] = value
	}
	if e.BasicAuth == "" {
		return nil
	}
	name, value, err := namedSecret(ctx, s, "--basic-auth", e.BasicAuth)
	req.BasicAuth = &api.BasicAuth{Username: name, Password: value}
	return err
}

// namedSecret reads NAME=SOURCE and the secret from that source.
func namedSecret(ctx context.Context, s *Streams, flag, spec string) (name, value string, err error) {
	name, source, given := strings.Cut(spec, "=")
	if name == "" {
		return "", "", usagef("%s wants a name", flag)
	}
	value, err = readSecret(ctx, s, flag, name, source, given)
	return name, strings.TrimRight(value, "\r\n"), err
}

// Help implements kong.HelpProvider.
func (*webhooksAddCmd) Help() string {
	return `Events are signed as Standard Webhooks says; docs/events.md shows how to verify them. The secret is printed only this once.

Examples:

  sendgate webhooks add https://shop.example.com/mail-events
  sendgate webhooks add https://crm.example.com/hook --type bounced,complained,unsubscribed --stream bulk
  sendgate webhooks add https://gateway.example.com/hook --header X-Api-Key=env:GATEWAY_KEY --basic-auth sendgate=@password`
}

// Run implements the command.
func (c *webhooksAddCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	req := api.WebhookEndpointRequest{URL: &c.URL}
	if c.Description != "" {
		req.Description = &c.Description
	}
	if len(c.Type) > 0 {
		req.Types = &c.Type
	}
	if len(c.Stream) > 0 {
		req.Streams = &c.Stream
	}
	if err := c.into(ctx, s, &req); err != nil {
		return err
	}
	e, err := client.CreateWebhookEndpoint(ctx, req)
	if err != nil {
		return err
	}
	if err := showSecret(s, c.format, e); err != nil || c.JSON {
		return err
	}
	fmt.Fprintf(s.Err, "next: %s webhooks test %s\n", s.program(), clean(e.ID))
	return nil
}

type webhooksShowCmd struct {
	ID string `arg:"" help:"Id of the endpoint, from webhooks list."`
	format
}

// Run implements the command.
func (c *webhooksShowCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	e, err := client.WebhookEndpoint(ctx, c.ID)
	if err != nil {
		return err
	}
	return showEndpoint(s, c.format, e)
}

type webhooksSetCmd struct {
	ID          string   `arg:"" help:"Id of the endpoint, from webhooks list."`
	URL         *string  `help:"New URL."`
	Type        []string `help:"Only these types (repeat, or with commas); \"all\" for all."`
	Stream      []string `help:"Only these streams (repeat, or with commas); \"all\" for all."`
	Description *string  `help:"A note for people, such as who owns it."`
	endpointSecrets
	NoHeaders bool `help:"Stop sending headers."`
	Enable    bool `xor:"turn" help:"Send events to it again; use webhooks replay for those that it missed."`
	Disable   bool `xor:"turn" help:"Stop sending events to it."`
	format
}

// Help implements kong.HelpProvider.
func (*webhooksSetCmd) Help() string {
	return `Settings that are not named stay as they are.

Examples:

  sendgate webhooks set 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --url https://shop.example.com/v2/mail-events
  sendgate webhooks set 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --type all --enable`
}

// Run implements the command.
func (c *webhooksSetCmd) Run(ctx context.Context, s *Streams) error {
	req := api.WebhookEndpointRequest{URL: c.URL, Description: c.Description, Types: listOrAll(c.Type), Streams: listOrAll(c.Stream)}
	if c.Enable || c.Disable {
		req.Disabled = &c.Disable
	}
	if c.NoHeaders {
		req.Headers = &map[string]string{}
	}
	if err := c.into(ctx, s, &req); err != nil {
		return err
	}
	if req == (api.WebhookEndpointRequest{}) {
		return usagef("nothing to change: give --url, --type, --stream, --header, --basic-auth, --description, --enable or --disable")
	}
	client, err := s.caller()
	if err != nil {
		return err
	}
	e, err := client.PatchWebhookEndpoint(ctx, c.ID, req)
	if err != nil {
		return err
	}
	return showEndpoint(s, c.format, e)
}

// listOrAll reads a list of a change. No values give nil, which leaves the list as it is; "all" gives an empty list.
func listOrAll(list []string) *[]string {
	switch {
	case len(list) == 0:
		return nil
	case slices.Equal(list, []string{"all"}):
		return &[]string{}
	default:
		return &list
	}
}

type webhooksRemoveCmd struct {
	ID string `arg:"" help:"Id of the endpoint, from webhooks list."`
	format
}

// Run implements the command.
func (c *webhooksRemoveCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	if err := client.DeleteWebhookEndpoint(ctx, c.ID); err != nil {
		return err
	}
	return c.show(s, map[string]string{"removed": c.ID}, func(w io.Writer) { row(w, "removed", c.ID) })
}

type webhooksDeliveriesCmd struct {
	ID string `arg:"" help:"Id of the endpoint, from webhooks list."`
	paging
	format
}

// Help implements kong.HelpProvider.
func (*webhooksDeliveriesCmd) Help() string {
	return `Outcomes: delivered; retry (it is tried again); failed (it was given up); disabled (it waits until the endpoint is enabled).

Example:

  sendgate webhooks deliveries 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --limit 20`
}

// Run implements the command.
func (c *webhooksDeliveriesCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	page, err := client.WebhookDeliveries(ctx, c.ID, c.Cursor, c.Limit)
	if err != nil {
		return err
	}
	return c.showPage(s, page, page.NextCursor, func(w io.Writer) {
		head(w, "AT", "EVENT", "TRY", "OUTCOME", "STATUS", "TOOK", "ERROR")
		for _, d := range page.Data {
			row(w, stamp(d.At), d.EventID, strconv.Itoa(d.Try), d.Outcome, statusOf(d), millis(d.TookMS), orDash(shorten(d.Error, 80)))
		}
	})
}

func statusOf(d api.WebhookDelivery) string {
	if d.Status == 0 {
		return "-"
	}
	return strconv.Itoa(d.Status)
}
