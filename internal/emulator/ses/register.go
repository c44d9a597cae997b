package ses

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// set is a configuration set.
type set struct{ name string }

// destination is an event destination of a configuration set.
type destination struct {
	set                string
	Name               string
	Enabled            bool
	MatchingEventTypes []string
	SnsDestination     *struct {
		TopicArn string //nolint:revive // the name on the wire
	} `json:",omitempty"`
}

// subscription is an HTTP endpoint of a topic. SNS publishes nothing to it until it is confirmed.
type subscription struct {
	target    *emulator.Target
	token     string
	confirmed bool
}

func (s *subscription) topic() string { return s.target.Hook["topic_arn"] }

func (a *api) registrations() {
	s := &a.sets
	s.ID = func(v *set) string { return v.name }
	s.Path = func(r *http.Request) string { return r.PathValue("set") }
	s.Gone = func(id string) *emulator.Reply { return missing("Configuration set", id) }
	s.Exists = func(v *set) *emulator.Reply { return exists("Configuration set", v.name) }
	s.Show = func(did emulator.Action, v *set) *emulator.Reply {
		if did == emulator.Created {
			return nothing()
		}
		return emulator.JSON(http.StatusOK, map[string]any{
			"ConfigurationSetName": v.name, "SendingOptions": map[string]bool{"SendingEnabled": true},
		})
	}
	s.Read = readSet

	d := &a.destinations
	d.ID = func(v *destination) string { return v.set + "/" + v.Name }
	d.Path = func(r *http.Request) string { return r.PathValue("set") + "/" + r.PathValue("name") }
	d.Gone = func(id string) *emulator.Reply {
		name, one, _ := strings.Cut(id, "/")
		if a.sets.Find(name) == nil {
			return missing("Configuration set", name)
		}
		return missing("Event destination", one)
	}
	d.Exists = func(v *destination) *emulator.Reply { return exists("Event destination", v.Name) }
	d.Show = func(did emulator.Action, v *destination) *emulator.Reply {
		if did == emulator.Created {
			a.greet(v.SnsDestination.TopicArn)
		}
		return nothing()
	}
	d.Read = a.readDestination

	a.subscriptions.ID = func(v *subscription) string { return v.topic() + " " + v.target.Hook["url"] }

	h := a.host
	const base = "/v2/email/configuration-sets"
	h.Handle("GET "+base, h.Call(a.listSets))
	h.Handle("POST "+base, h.Call(s.Create))
	h.Handle("GET "+base+"/{set}", h.Call(s.Get))
	h.Handle("GET "+base+"/{set}/event-destinations", h.Call(a.listDestinations))
	h.Handle("POST "+base+"/{set}/event-destinations", h.Call(d.Create))
	h.Handle("PUT "+base+"/{set}/event-destinations/{name}", h.Call(d.Update))
	// If the base URL of a service has no path, the certificate and the confirmation are at the root.
	for _, root := range []string{"/", "/ses/"} {
		h.HandleRoot("GET "+root+"{name}", h.Open(a.certificate))
		h.HandleRoot("GET "+root+"{$}", h.Open(a.query))
		h.HandleRoot("POST "+root+"{$}", h.Open(a.query))
	}
	h.HandleRoot("GET /ses", h.Open(a.query))
	h.HandleRoot("POST /ses", h.Open(a.query))
}

func nothing() *emulator.Reply { return emulator.JSON(http.StatusOK, struct{}{}) }

func missing(what, name string) *emulator.Reply {
	return refuse(http.StatusNotFound, "NotFoundException", what+" <"+name+"> does not exist.")
}

func exists(what, name string) *emulator.Reply {
	return refuse(http.StatusBadRequest, "AlreadyExistsException", what+" <"+name+"> already exists.")
}

// Registered lists the confirmed subscriptions to the topics of a message's configuration set.
func (a *api) Registered(v *emulator.Event) []*emulator.Target {
	var all []*emulator.Target
	for _, s := range a.subscriptions.All() {
		if v == nil || s.confirmed && slices.ContainsFunc(a.destinations.All(), func(d *destination) bool { return d.wants(v, s.topic()) }) {
			all = append(all, s.target)
		}
	}
	return all
}

// wants reports whether the destination publishes the event to the topic.
func (d *destination) wants(v *emulator.Event, topic string) bool {
	matches := func(name string) bool { return strings.EqualFold(strings.ReplaceAll(name, "_", ""), names[v.Type]) }
	return d.Enabled && d.set == v.Message.Channel && d.SnsDestination.TopicArn == topic && slices.ContainsFunc(d.MatchingEventTypes, matches)
}

func (a *api) Forget() {
	a.sets.Forget()
	a.destinations.Forget()
	a.subscriptions.Forget()
}

func (a *api) listSets(*http.Request, []byte) *emulator.Reply {
	names := []string{}
	for _, s := range a.sets.All() {
		names = append(names, s.name)
	}
	slices.Sort(names)
	return emulator.JSON(http.StatusOK, map[string]any{"ConfigurationSets": names})
}

func readSet(_ *http.Request, body []byte, _ *set) (*set, *emulator.Reply) {
	var in struct{ ConfigurationSetName string }
	if json.Unmarshal(body, &in) != nil {
		return nil, badRequest("Unable to parse the request body.")
	}
	name := in.ConfigurationSetName
	if name == "" || len(name) > maxConfigSet || !tagChars(name) {
		return nil, badRequest("Invalid configuration set name <%s>.", name)
	}
	return &set{name}, nil
}

func (a *api) listDestinations(r *http.Request, _ []byte) *emulator.Reply {
	name := r.PathValue("set")
	if a.sets.Find(name) == nil {
		return missing("Configuration set", name)
	}
	list := []*destination{}
	for _, d := range a.destinations.All() {
		if d.set == name {
			list = append(list, d)
		}
	}
	return emulator.JSON(http.StatusOK, map[string]any{"EventDestinations": list})
}

func (a *api) readDestination(r *http.Request, body []byte, old *destination) (*destination, *emulator.Reply) {
	var in struct {
		EventDestinationName string
		EventDestination     destination
	}
	if json.Unmarshal(body, &in) != nil || old == nil && in.EventDestinationName == "" {
		return nil, badRequest("Unable to parse the request body.")
	}
	d := &in.EventDestination
	d.set, d.Name = r.PathValue("set"), in.EventDestinationName
	if old != nil {
		d.Name = old.Name
	}
	switch {
	case len(d.MatchingEventTypes) == 0 || d.SnsDestination == nil || !strings.HasPrefix(d.SnsDestination.TopicArn, "arn:"):
		return nil, badRequest("An event destination needs MatchingEventTypes and an SnsDestination.")
	case a.sets.Find(d.set) == nil:
		return nil, missing("Configuration set", d.set)
	}
	return d, nil
}

// greet publishes the message with which SES tests that it may publish to a topic.
func (a *api) greet(topic string) {
	for _, s := range a.subscriptions.All() {
		if s.confirmed && s.topic() == topic {
			a.publish(s, &snsMessage{Type: snsNotification, Message: "Successfully validated SNS topic for Amazon SES event publishing."})
		}
	}
}

// publish posts a message that is not an event.
func (a *api) publish(s *subscription, n *snsMessage) {
	n.MessageID, n.TopicARN, n.Timestamp, n.version = uuid.NewString(), s.topic(), timeText(a.host.Now()), "2"
	body, header, err := a.sign(n)
	if err != nil {
		a.host.Log().Error("message not published", "provider", "ses", "error", err)
		return
	}
	a.host.Publish(s.target, header, body)
}

// subscribe makes an HTTP endpoint a subscriber of a topic and posts a SubscriptionConfirmation to it. After the endpoint has
// confirmed by the action ConfirmSubscription, it gets the events of the configuration sets that have an event destination with
// this topic.
func (a *api) subscribe(topic, endpoint string) *emulator.Reply {
	if err := a.host.CheckURL(endpoint); err != nil {
		return snsError(http.StatusBadRequest, "InvalidParameter", "Endpoint: "+err.Error())
	}
	if !strings.HasPrefix(topic, "arn:") {
		return snsError(http.StatusBadRequest, "InvalidParameter", "TopicArn: a topic looks like arn:aws:sns:REGION:ACCOUNT:NAME")
	}
	s := &subscription{target: &emulator.Target{Hook: emulator.Hook{"url": endpoint, "topic_arn": topic}}, token: emulator.RandomHex(64)}
	a.subscriptions.Put(s)
	a.publish(s, &snsMessage{
		Type: snsConfirmation, Token: s.token,
		Message: "You have chosen to subscribe to the topic " + topic + ".\nTo confirm the subscription, visit the SubscribeURL " +
			"included in this message.",
		SubscribeURL: a.host.At() + "/?Action=ConfirmSubscription&TopicArn=" + url.QueryEscape(topic) + "&Token=" + s.token,
	})
	return snsResult("Subscribe", "pending confirmation")
}

// query serves the actions of SNS, which uses the AWS Query protocol: parameters in the URL or a form, answers in XML.
func (a *api) query(r *http.Request, body []byte) *emulator.Reply {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return snsError(http.StatusBadRequest, "InvalidParameter", "request can't be read")
	}
	param := func(name string) string { return form.Get(name) + r.URL.Query().Get(name) }
	switch param("Action") {
	case "ConfirmSubscription": // anyone with the token may confirm
		return a.confirm(param("TopicArn"), param("Token"))
	case "Subscribe":
		if code, message := a.verify(r, body, "sns"); code != "" {
			return snsError(http.StatusForbidden, code, message)
		}
		return a.subscribe(param("TopicArn"), param("Endpoint")+param("NotificationEndpoint"))
	}
	return snsError(http.StatusBadRequest, "InvalidAction", "the action is not one of Subscribe, ConfirmSubscription")
}

// confirm confirms the subscription that the token belongs to.
func (a *api) confirm(topic, token string) *emulator.Reply {
	for _, s := range a.subscriptions.All() {
		if s.topic() == topic && emulator.Same(token, s.token) {
			confirmed := *s
			confirmed.confirmed = true
			a.subscriptions.Put(&confirmed)
			return snsResult("ConfirmSubscription", topic+":"+uuid.NewString())
		}
	}
	return snsError(http.StatusBadRequest, "InvalidParameter", "Invalid parameter: Token")
}

// xmlText escapes text between tags.
func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder accepts everything
	return b.String()
}

func xmlReply(status int, body string) *emulator.Reply {
	return emulator.Text(status, body).With("Content-Type", "text/xml")
}

const snsNamespace = `xmlns="http://sns.amazonaws.com/doc/2010-03-31/"`

func snsResult(action, arn string) *emulator.Reply {
	return xmlReply(http.StatusOK, fmt.Sprintf("<%[1]sResponse %[2]s><%[1]sResult><SubscriptionArn>%[3]s</SubscriptionArn></%[1]sResult>"+
		"<ResponseMetadata><RequestId>%[4]s</RequestId></ResponseMetadata></%[1]sResponse>", action, snsNamespace, xmlText(arn), uuid.NewString()))
}

func snsError(status int, code, message string) *emulator.Reply {
	return xmlReply(status, fmt.Sprintf("<ErrorResponse %s><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>"+
		"<RequestId>%s</RequestId></ErrorResponse>", snsNamespace, code, xmlText(message), uuid.NewString()))
}
