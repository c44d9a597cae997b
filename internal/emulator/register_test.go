package emulator_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

func paced() emulator.Options {
	return emulator.Options{EventPace: time.Millisecond, DeferFor: time.Millisecond, RetryPace: time.Millisecond}
}

// sendGridHooks calls the API for webhooks.
func (b *server) sendGridHooks(t *testing.T, method, path string, body any) (int, object) {
	t.Helper()
	a := b.do(t, method, "/sendgrid/v3/user/webhooks/event/settings"+path, toJSON(t, body), b.sendGridHeader())
	var m object
	if a.body != "" {
		fromJSON(t, a.body, &m)
	}
	return a.status, m
}

// sendGridHook registers a webhook and gives its id.
func (b *server) sendGridHook(t *testing.T, url string) string {
	t.Helper()
	status, made := b.sendGridHooks(t, "POST", "", object{"url": url, "enabled": true, "delivered": true, "bounce": true, "friendly_name": "gw"})
	id, _ := made["id"].(string)
	if status != 201 || id == "" || made["delivered"] != true || made["processed"] != false {
		t.Fatalf("POST = %d %v", status, made)
	}
	return id
}

func TestSendGridRegistersAWebhook(t *testing.T) {
	t.Parallel()
	b, in := start(t, paced()), newInbox(t, nil)
	id := b.sendGridHook(t, in.URL)
	if _, all := b.sendGridHooks(t, "GET", "/all", nil); len(all["webhooks"].([]any)) != 1 {
		t.Errorf("all = %v", all)
	}
	if status, m := b.sendGridHooks(t, "PATCH", "/"+id, object{"enabled": false}); status != 200 || m["enabled"] != false || m["delivered"] != true {
		t.Errorf("PATCH = %d %v", status, m)
	}
	if status, m := b.sendGridHooks(t, "GET", "/"+id, nil); status != 200 || m["url"] != in.URL || m["enabled"] != false {
		t.Errorf("GET = %d %v", status, m)
	}
	if status, _ := b.sendGridHooks(t, "DELETE", "/"+id, nil); status != 204 {
		t.Errorf("DELETE = %d", status)
	}
	if status, _ := b.sendGridHooks(t, "GET", "/"+id, nil); status != 404 {
		t.Errorf("GET after DELETE = %d, want 404", status)
	}
}

func TestSendGridSignsForAWebhookThatAsksForIt(t *testing.T) {
	t.Parallel()
	b, in := start(t, paced()), newInbox(t, nil)
	id := b.sendGridHook(t, in.URL)
	b.sendGrid(t, sendGridTo("ann@example.org"))
	if c := in.wait(t, 1)[0]; c.header.Get("X-Twilio-Email-Event-Webhook-Signature") != "" {
		t.Error("it signs though nobody asked for it")
	}
	status, signed := b.sendGridHooks(t, "PATCH", "/signed/"+id, object{"enabled": true})
	if status != 200 || signed["public_key"] != b.HookKeys()["sendgrid_public_key"] {
		t.Fatalf("PATCH signed = %d %v", status, signed)
	}
	b.sendGrid(t, sendGridTo("ann@example.org"))
	calls := in.wait(t, 2)
	if events := sendGridEvents(t, calls); len(events) != 2 || events[1]["event"] != "delivered" || !sendGridVerifies(t, b.HookKeys()["sendgrid_public_key"], calls[1]) {
		t.Errorf("events = %v", events)
	}
}

func TestSendGridRefusesAWebhook(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	const url = "http://127.0.0.1:1/hooks/x"
	id := b.sendGridHook(t, url)
	if status, m := b.sendGridHooks(t, "POST", "", object{"url": url, "enabled": true}); status != 400 || m["errors"].([]any)[0].(object)["id"] != id {
		t.Errorf("a second webhook with the URL = %d %v", status, m)
	}
	for _, tc := range []struct {
		method, path string
		body         any
		want         int
	}{
		{"POST", "", object{"url": "https://gw.example.org/", "enabled": true}, 400},
		{"POST", "", object{"url": 1}, 400},
		{"GET", "/nothing", nil, 404},
		{"GET", "/signed/nothing", nil, 404},
	} {
		if status, _ := b.sendGridHooks(t, tc.method, tc.path, tc.body); status != tc.want {
			t.Errorf("%s %s %v = %d, want %d", tc.method, tc.path, tc.body, status, tc.want)
		}
	}
}

func TestMailgunRegistersWebhooks(t *testing.T) {
	t.Parallel()
	b, in, other := start(t, paced()), newInbox(t, nil), newInbox(t, nil)
	mg := b.mailgunSDK()
	if err := mg.CreateWebhook(t.Context(), "delivered", []string{in.URL, other.URL}); err != nil {
		t.Fatal(err)
	}
	all, err := mg.ListWebhooks(t.Context())
	if diff := cmp.Diff(map[string][]string{"delivered": {in.URL, other.URL}}, all); diff != "" || err != nil {
		t.Errorf("webhooks (-want +got):\n%s%v", diff, err)
	}
	b.mailgunTo(t, "ann@example.org")
	if p := mailgunPayloads(t, in.wait(t, 1))[0]; p.Event["event"] != "delivered" || !p.verifies(b.HookKeys()["mailgun_signing_key"]) {
		t.Errorf("event = %v", p.Event)
	}
	other.wait(t, 1)
	if err := mg.UpdateWebhook(t.Context(), "delivered", []string{in.URL}); err != nil {
		t.Error(err)
	}
	if urls, err := mg.GetWebhook(t.Context(), "delivered"); err != nil || len(urls) != 1 {
		t.Errorf("GetWebhook = %v, %v", urls, err)
	}
	if err := mg.DeleteWebhook(t.Context(), "delivered"); err != nil {
		t.Error(err)
	}
	if _, err := mg.GetWebhook(t.Context(), "delivered"); err == nil {
		t.Error("a deleted webhook is there")
	}
}

func TestMailgunRefusesAWebhook(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	mg := b.mailgunSDK()
	const url = "http://127.0.0.1:1/hooks/x"
	if err := mg.CreateWebhook(t.Context(), "delivered", []string{url}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"one that is there":         mg.CreateWebhook(t.Context(), "delivered", []string{url}),
		"one of an unknown name":    mg.CreateWebhook(t.Context(), "nonsense", []string{url}),
		"one with four URLs":        mg.CreateWebhook(t.Context(), "opened", []string{url, url, url, url}),
		"a change of one not there": mg.UpdateWebhook(t.Context(), "opened", []string{url}),
	} {
		if err == nil {
			t.Errorf("it takes %s", what)
		}
	}
	if a := b.mailgunGet(t, "/v3/domains/other.example.com/webhooks"); a.status != 404 {
		t.Errorf("another domain = %d, want 404", a.status)
	}
}

func TestMailgunShowsItsSigningKey(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	var key map[string]string
	fromJSON(t, b.mailgunGet(t, "/v5/accounts/http_signing_key").body, &key)
	if key["http_signing_key"] != b.HookKeys()["mailgun_signing_key"] {
		t.Errorf("signing key = %v", key)
	}
}

// postmarkHooks calls the API for webhooks.
func (b *server) postmarkHooks(t *testing.T, method, path string, body any) (int, object) {
	t.Helper()
	a := b.do(t, method, "/postmark/webhooks"+path, toJSON(t, body), postmarkHeader(key("postmark", "server_token")))
	var m object
	fromJSON(t, a.body, &m)
	return a.status, m
}

// postmarkHook is a webhook with a password and a header.
func postmarkHook(url string) object {
	return object{
		"Url": url, "HttpAuth": object{"Username": "u", "Password": "p"}, "HttpHeaders": []any{object{"Name": "X-A", "Value": "b"}},
		"Triggers": object{"Delivery": object{"Enabled": true}, "Bounce": object{"Enabled": true, "IncludeContent": false}, "Open": object{"Enabled": false}},
	}
}

func TestPostmarkVerifiesAWebhookBeforeItSavesIt(t *testing.T) {
	t.Parallel()
	b := start(t, paced())
	deaf := newInbox(t, func(int, hookCall) int { return 401 })
	if code, m := b.postmarkHooks(t, "POST", "", postmarkHook(deaf.URL)); code != 422 || m["ErrorCode"] != 1364.0 {
		t.Errorf("POST with a receiver that refuses = %d %v", code, m)
	}
	in := newInbox(t, nil)
	if code, m := b.postmarkHooks(t, "POST", "", postmarkHook(in.URL)); code != 200 {
		t.Fatalf("POST = %d %v", code, m)
	}
	kinds := map[any]bool{}
	for _, e := range postmarkEvents(t, in.got()) {
		kinds[e["RecordType"]] = true
	}
	if diff := cmp.Diff(map[any]bool{"Delivery": true, "Bounce": true}, kinds); diff != "" {
		t.Errorf("it was verified with (-want +got):\n%s", diff)
	}
	b.postmark(t, "/email", postmarkBody("To", "open@example.org"))
	b.postmark(t, "/email", postmarkBody("MessageStream", "news"))
	b.settled(t, "postmark", func(s emulator.HookStats) bool { return s.Events == 1 })
	last := in.wait(t, 3)[2]
	user, password, _ := (&http.Request{Header: last.header}).BasicAuth()
	if user != "u" || password != "p" || last.header.Get("X-A") != "b" {
		t.Errorf("header = %v", last.header)
	}
}

func TestPostmarkRegistersAWebhook(t *testing.T) {
	t.Parallel()
	b, in := start(t, paced()), newInbox(t, nil)
	code, made := b.postmarkHooks(t, "POST", "", postmarkHook(in.URL))
	if code != 200 || made["ID"] == nil || made["MessageStream"] != "outbound" {
		t.Fatalf("POST = %d %v", code, made)
	}
	id := fmt.Sprint(made["ID"])
	if code, m := b.postmarkHooks(t, "PUT", "/"+id, object{"Triggers": object{"Click": object{"Enabled": true}}}); code != 200 || m["Url"] != in.URL ||
		m["HttpAuth"].(object)["Password"] != "p" || m["Triggers"].(object)["Click"].(object)["Enabled"] != true {
		t.Errorf("PUT = %d %v", code, m)
	}
	if _, m := b.postmarkHooks(t, "GET", "?MessageStream=outbound", nil); len(m["Webhooks"].([]any)) != 1 {
		t.Errorf("GET = %v", m)
	}
	if _, m := b.postmarkHooks(t, "GET", "?MessageStream=news", nil); len(m["Webhooks"].([]any)) != 0 {
		t.Errorf("GET of another stream = %v", m)
	}
	if code, _ := b.postmarkHooks(t, "DELETE", "/"+id, nil); code != 200 {
		t.Errorf("DELETE = %d", code)
	}
	if code, _ := b.postmarkHooks(t, "GET", "/"+id, nil); code != 422 {
		t.Errorf("GET after DELETE = %d", code)
	}
}

// sns makes a signed call to SNS.
func (b *server) sns(t *testing.T, form url.Values) answer {
	t.Helper()
	body := []byte(form.Encode())
	req, err := http.NewRequest(http.MethodPost, b.URL()+"/ses/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sum := sha256.Sum256(body)
	cred := aws.Credentials{AccessKeyID: key("ses", "access_key_id"), SecretAccessKey: key("ses", "secret_access_key")}
	if err := v4.NewSigner().SignHTTP(t.Context(), cred, req, hex.EncodeToString(sum[:]), "sns", key("ses", "region"), time.Now()); err != nil {
		t.Fatal(err)
	}
	head := map[string]string{}
	for name := range req.Header {
		head[name] = req.Header.Get(name)
	}
	return b.do(t, "POST", "/ses/", string(body), head)
}

// sesDestination publishes events of the configuration set tx to a topic.
func sesDestination(topic, name string, events ...types.EventType) *sesv2.CreateConfigurationSetEventDestinationInput {
	return &sesv2.CreateConfigurationSetEventDestinationInput{
		ConfigurationSetName: aws.String("tx"), EventDestinationName: &name, EventDestination: &types.EventDestinationDefinition{
			Enabled: true, MatchingEventTypes: events, SnsDestination: &types.SnsDestination{TopicArn: &topic},
		},
	}
}

func TestSESKeepsEventDestinations(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	c, topic := b.sesSDK(), b.HookKeys()["sns_topic_arn"]
	gw := sesDestination(topic, "gw", types.EventTypeDelivery, types.EventTypeBounce)
	set := &sesv2.CreateConfigurationSetInput{ConfigurationSetName: aws.String("tx")}
	if _, err := c.CreateConfigurationSetEventDestination(t.Context(), gw); !strings.Contains(fmt.Sprint(err), "NotFoundException") {
		t.Errorf("a destination of no set = %v", err)
	}
	for _, want := range []string{"<nil>", "AlreadyExistsException"} {
		if _, err := c.CreateConfigurationSet(t.Context(), set); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("CreateConfigurationSet = %v, want %s", err, want)
		}
	}
	for _, want := range []string{"<nil>", "AlreadyExistsException"} {
		if _, err := c.CreateConfigurationSetEventDestination(t.Context(), gw); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("CreateConfigurationSetEventDestination = %v, want %s", err, want)
		}
	}
	if _, err := c.CreateConfigurationSetEventDestination(t.Context(), sesDestination(topic, "opens", types.EventTypeOpen)); err != nil {
		t.Error(err)
	}
	gw.EventDestination.Enabled = false
	if _, err := c.UpdateConfigurationSetEventDestination(t.Context(), &sesv2.UpdateConfigurationSetEventDestinationInput{
		ConfigurationSetName: gw.ConfigurationSetName, EventDestinationName: gw.EventDestinationName, EventDestination: gw.EventDestination,
	}); err != nil {
		t.Error(err)
	}
	out, err := c.GetConfigurationSetEventDestinations(t.Context(), &sesv2.GetConfigurationSetEventDestinationsInput{ConfigurationSetName: aws.String("tx")})
	if err != nil || len(out.EventDestinations) != 2 || *out.EventDestinations[0].SnsDestination.TopicArn != topic || out.EventDestinations[0].Enabled {
		t.Errorf("destinations = %+v, %v", out, err)
	}
}

func TestSESPublishesToAConfirmedSubscription(t *testing.T) {
	t.Parallel()
	b, in := start(t, paced()), newInbox(t, nil)
	c, topic := b.sesSDK(), b.HookKeys()["sns_topic_arn"]
	if _, err := c.CreateConfigurationSet(t.Context(), &sesv2.CreateConfigurationSetInput{ConfigurationSetName: aws.String("tx")}); err != nil {
		t.Fatal(err)
	}
	publish := func(name string, events ...types.EventType) {
		t.Helper()
		if _, err := c.CreateConfigurationSetEventDestination(t.Context(), sesDestination(topic, name, events...)); err != nil {
			t.Fatal(err)
		}
	}
	publish("gw", types.EventTypeDelivery, types.EventTypeBounce)
	if a := b.sns(t, url.Values{"Action": {"Subscribe"}, "TopicArn": {topic}, "Protocol": {"http"}, "Endpoint": {in.URL}}); a.status != 200 ||
		!strings.Contains(a.body, "<SubscribeResult><SubscriptionArn>pending confirmation<") {
		t.Fatalf("Subscribe = %d %s", a.status, a.body)
	}
	var m map[string]string
	fromJSON(t, in.wait(t, 1)[0].body, &m)
	if m["Type"] != "SubscriptionConfirmation" || !b.snsVerifies(t, m) {
		t.Fatalf("message = %v", m)
	}
	send := func(set string) {
		if _, err := c.SendEmail(t.Context(), sesInput(func(in *sesv2.SendEmailInput) { in.ConfigurationSetName = aws.String(set) })); err != nil {
			t.Fatal(err)
		}
	}
	confirm := func(token string) answer {
		return b.do(t, "GET", "/ses/?Action=ConfirmSubscription&Version=2010-03-31&TopicArn="+url.QueryEscape(topic)+"&Token="+token, "", nil)
	}
	if a := confirm("wrong"); a.status != 400 {
		t.Errorf("a wrong token = %d", a.status)
	}
	send("tx")
	if s := b.settled(t, "ses", func(s emulator.HookStats) bool { return true }); s.Posted != 1 {
		t.Errorf("before the confirmation: %+v", s)
	}
	if a := confirm(m["Token"]); a.status != 200 || !strings.Contains(a.body, "<ConfirmSubscriptionResult><SubscriptionArn>"+topic+":") {
		t.Fatalf("ConfirmSubscription = %d %s", a.status, a.body)
	}
	publish("opens", types.EventTypeOpen)
	fromJSON(t, in.wait(t, 2)[1].body, &m)
	if !strings.HasPrefix(m["Message"], "Successfully validated SNS topic") {
		t.Errorf("message = %v", m)
	}
	send("other")
	send("tx")
	calls := in.wait(t, 3)
	b.settled(t, "ses", func(emulator.HookStats) bool { return true })
	records := b.sesRecords(t, calls[2:])
	if len(records) != 1 || records[0]["eventType"] != "Delivery" ||
		cmp.Diff([]any{"tx"}, records[0]["mail"].(object)["tags"].(object)["ses:configuration-set"]) != "" {
		t.Errorf("records = %v", records)
	}
	if v := b.hooksView(t, ""); cmp.Diff(map[string][]string{"ses": {in.URL}}, v.Registered) != "" {
		t.Errorf("registered = %v", v.Registered)
	}
}

func TestSNSRefuses(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	for _, tc := range []struct {
		form url.Values
		want string
	}{
		{url.Values{"Action": {"Subscribe"}, "TopicArn": {"arn:aws:sns:x"}, "Endpoint": {"https://gw.example.org/"}}, "loopback"},
		{url.Values{"Action": {"Subscribe"}, "Endpoint": {"http://127.0.0.1/"}}, "topic"},
		{url.Values{"Action": {"Publish"}}, "InvalidAction"},
	} {
		if a := b.sns(t, tc.form); a.status != 400 || !strings.Contains(a.body, tc.want) {
			t.Errorf("%v = %d %s, want ...%s...", tc.form, a.status, a.body, tc.want)
		}
	}
	if a := b.do(t, "POST", "/ses/", "Action=Subscribe&TopicArn=arn:x&Endpoint=http://127.0.0.1/", nil); a.status != 403 {
		t.Errorf("an unsigned Subscribe = %d, want 403", a.status)
	}
	if a := b.do(t, "GET", "/ses/SimpleNotificationService-00000000000000000000000000000000.pem", "", nil); a.status != 404 {
		t.Errorf("another certificate = %d, want 404", a.status)
	}
}
