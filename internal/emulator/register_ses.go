package emulator

import (
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
)

// sesSet is a configuration set with its event destinations.
type sesSet struct{ destinations []*sesDestination }

type sesDestination struct {
	Name               string
	Enabled            bool
	MatchingEventTypes []string
	SnsDestination     *struct {
		TopicArn string //nolint:revive // the name on the wire
	} `json:",omitempty"`
}

// topicSubscription is an HTTP endpoint of a topic. Nothing is published to it before it is confirmed.
type topicSubscription struct {
	target
	endpoint  string
	token     string
	confirmed bool
}

// sesTargets lists the confirmed subscriptions to the topics of a message's configuration set; the caller holds the lock.
func (r *registry) sesTargets(h *happening) []*target {
	set := r.sets[h.of.stream]
	if set == nil {
		return nil
	}
	_, matching := sesNames(h.what)
	var all []*target
	for _, d := range set.destinations {
		if !d.Enabled || d.SnsDestination == nil || !slices.Contains(d.MatchingEventTypes, matching) {
			continue
		}
		for _, s := range r.topics {
			if s.confirmed && s.TopicARN == d.SnsDestination.TopicArn {
				all = append(all, &s.target)
			}
		}
	}
	return all
}

func sesMissing(set string) *reply {
	return sesFailure(http.StatusNotFound, "NotFoundException", "Configuration set <"+set+"> does not exist.")
}

func (g ses) listSets(*http.Request, []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	return jsonReply(http.StatusOK, map[string]any{"ConfigurationSets": slices.Sorted(maps.Keys(r.sets))})
}

func (g ses) createSet(_ *http.Request, body []byte) *reply {
	var in struct{ ConfigurationSetName string }
	if json.Unmarshal(body, &in) != nil {
		return sesBadRequest("Unable to parse the request body.")
	}
	name := in.ConfigurationSetName
	if name == "" || len(name) > sesMaxConfigSet || !sesTagChars(name) {
		return sesBadRequest("Invalid configuration set name <%s>.", name)
	}
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sets[name] != nil {
		return sesFailure(http.StatusBadRequest, "AlreadyExistsException", "Configuration set <"+name+"> already exists.")
	}
	r.sets[name] = &sesSet{}
	return jsonReply(http.StatusOK, struct{}{})
}

func (g ses) getSet(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	name := req.PathValue("set")
	if r.sets[name] == nil {
		return sesMissing(name)
	}
	return jsonReply(http.StatusOK, map[string]any{
		"ConfigurationSetName": name, "SendingOptions": map[string]bool{"SendingEnabled": true},
	})
}

func (g ses) listDestinations(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	set := r.sets[req.PathValue("set")]
	if set == nil {
		return sesMissing(req.PathValue("set"))
	}
	return jsonReply(http.StatusOK, map[string]any{"EventDestinations": append([]*sesDestination{}, set.destinations...)})
}

func (g ses) createDestination(req *http.Request, body []byte) *reply {
	var in struct {
		EventDestinationName string
		EventDestination     sesDestination
	}
	if json.Unmarshal(body, &in) != nil || in.EventDestinationName == "" {
		return sesBadRequest("Unable to parse the request body.")
	}
	d := &in.EventDestination
	d.Name = in.EventDestinationName
	return g.storeDestination(req.PathValue("set"), d, func(exists bool) *reply {
		if exists {
			return sesFailure(http.StatusBadRequest, "AlreadyExistsException", "Event destination <"+d.Name+"> already exists.")
		}
		return nil
	})
}

func (g ses) updateDestination(req *http.Request, body []byte) *reply {
	var in struct{ EventDestination sesDestination }
	if json.Unmarshal(body, &in) != nil {
		return sesBadRequest("Unable to parse the request body.")
	}
	d := &in.EventDestination
	d.Name = req.PathValue("name")
	return g.storeDestination(req.PathValue("set"), d, func(exists bool) *reply {
		if !exists {
			return sesFailure(http.StatusNotFound, "NotFoundException", "Event destination <"+d.Name+"> does not exist.")
		}
		return nil
	})
}

func (g ses) storeDestination(name string, d *sesDestination, refuse func(exists bool) *reply) *reply {
	if len(d.MatchingEventTypes) == 0 || d.SnsDestination == nil || !strings.HasPrefix(d.SnsDestination.TopicArn, "arn:") {
		return sesBadRequest("An event destination needs MatchingEventTypes and an SnsDestination.")
	}
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.sets[name]
	if set == nil {
		return sesMissing(name)
	}
	i := slices.IndexFunc(set.destinations, func(o *sesDestination) bool { return o.Name == d.Name })
	if p := refuse(i >= 0); p != nil {
		return p
	}
	if i >= 0 {
		set.destinations[i] = d
	} else {
		set.destinations = append(set.destinations, d)
		g.e.greetTopic(d.SnsDestination.TopicArn)
	}
	return jsonReply(http.StatusOK, struct{}{})
}

// greetTopic publishes what SES says to a topic that it is allowed to publish to; the caller holds the lock.
func (e *Emulator) greetTopic(topic string) {
	for _, s := range e.hooks.topics {
		if s.confirmed && s.TopicARN == topic {
			e.publish(&s.target, &snsMessage{
				Type: snsNotification, Message: "Successfully validated SNS topic for Amazon SES event publishing.",
			})
		}
	}
}

// publish posts a message that is not an event.
func (e *Emulator) publish(t *target, n *snsMessage) {
	n.MessageID, n.TopicARN, n.Timestamp, n.version = uuid.NewString(), t.TopicARN, snsTime(e.now()), "2"
	body, header, err := e.envelope(n)
	if err != nil {
		e.log.Error("message not published", "provider", kindSES, "error", err)
		return
	}
	e.lanes[kindSES].add(false, &errand{due: e.now(), again: &post{target: t, body: body, header: header}})
}

// Subscribe makes an HTTP endpoint a subscriber of an SNS topic, as the action Subscribe does: it is posted a
// SubscriptionConfirmation, and once it has confirmed by the action ConfirmSubscription it gets the events of the
// configuration sets that have an event destination with this topic. It works after Start.
func (e *Emulator) Subscribe(topicARN, endpoint string) error {
	h := Hook{URL: endpoint, TopicARN: topicARN}
	if err := h.check(kindSES, e.opt.AllowRemote); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if topicARN == "" || e.URL() == "" {
		return errors.New("subscribe: needs a topic, and a started emulator")
	}
	s := &topicSubscription{target: target{Hook: h}, endpoint: endpoint, token: randomHex(64)}
	e.hooks.mu.Lock()
	e.hooks.topics = append(slices.DeleteFunc(e.hooks.topics, func(o *topicSubscription) bool {
		return o.endpoint == endpoint && o.TopicARN == topicARN
	}), s)
	e.hooks.mu.Unlock()
	e.publish(&s.target, &snsMessage{
		Type: snsConfirmation, Token: s.token,
		Message: "You have chosen to subscribe to the topic " + topicARN + ".\nTo confirm the subscription, visit the SubscribeURL " +
			"included in this message.",
		SubscribeURL: e.URL() + "/ses/?Action=ConfirmSubscription&TopicArn=" + url.QueryEscape(topicARN) + "&Token=" + s.token,
	})
	return nil
}

// query serves the actions of SNS, which speaks the AWS Query protocol: parameters in the URL or a form, answers in XML.
func (g ses) query(r *http.Request) *reply {
	body, err := readBody(nil, r, maxAPIBody)
	if err != nil {
		return snsError(http.StatusBadRequest, "InvalidParameter", "request can't be read")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return snsError(http.StatusBadRequest, "InvalidParameter", "request can't be read")
	}
	param := func(name string) string { return form.Get(name) + r.URL.Query().Get(name) }
	switch param("Action") {
	case "ConfirmSubscription": // whoever has the token may
		return g.confirm(param("TopicArn"), param("Token"))
	case "Subscribe":
		c := g.e.opt.Credentials
		if code, message := verifySigV4(r, body, c.AWSAccessKeyID, c.AWSSecretAccessKey, scope{c.AWSRegion, "sns"}, g.e.now()); code != "" {
			return snsError(http.StatusForbidden, code, message)
		}
		endpoint := param("Endpoint") + param("NotificationEndpoint")
		if err := g.e.Subscribe(param("TopicArn"), endpoint); err != nil {
			return snsError(http.StatusBadRequest, "InvalidParameter", err.Error())
		}
		return snsResult("Subscribe", "pending confirmation")
	}
	return snsError(http.StatusBadRequest, "InvalidAction", "the action is not one of Subscribe, ConfirmSubscription")
}

func (g ses) confirm(topic, token string) *reply {
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.topics {
		if s.TopicARN == topic && same(token, s.token) {
			s.confirmed = true
			return snsResult("ConfirmSubscription", topic+":"+uuid.NewString())
		}
	}
	return snsError(http.StatusBadRequest, "InvalidParameter", "Invalid parameter: Token")
}

// xmlText escapes what stands between tags.
func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}

func xmlReply(status int, body string) *reply {
	return &reply{status, map[string]string{"Content-Type": "text/xml"}, []byte(body)}
}

const snsNamespace = `xmlns="http://sns.amazonaws.com/doc/2010-03-31/"`

func snsResult(action, arn string) *reply {
	return xmlReply(http.StatusOK, fmt.Sprintf("<%[1]sResponse %[2]s><%[1]sResult><SubscriptionArn>%[3]s</SubscriptionArn></%[1]sResult>"+
		"<ResponseMetadata><RequestId>%[4]s</RequestId></ResponseMetadata></%[1]sResponse>", action, snsNamespace, xmlText(arn), uuid.NewString()))
}

func snsError(status int, code, message string) *reply {
	return xmlReply(status, fmt.Sprintf("<ErrorResponse %s><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error>"+
		"<RequestId>%s</RequestId></ErrorResponse>", snsNamespace, code, xmlText(message), uuid.NewString()))
}
