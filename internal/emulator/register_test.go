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

func TestSendGridRegistersAWebhook(t *testing.T) {
	t.Parallel()
	b, in := start(t, paced()), newInbox(t, nil)
	call := func(method, path string, body any) (int, object) {
		a := b.do(t, method, "/sendgrid/v3/user/webhooks/event/settings"+path, toJSON(t, body), b.sendGridHeader())
		var m object
		if a.body != "" {
			fromJSON(t, a.body, &m)
		}
		return a.status, m
	}
	status, made := call("POST", "", object{"url": in.URL, "enabled": true, "delivered": true, "bounce": true, "friendly_name": "gw"})
	id, _ := made["id"].(string)
	if status != 201 || id == "" || made["delivered"] != true || made["processed"] != false {
		t.Fatalf("POST = %d %v", status, made)
	}
	if status, again := call("POST", "", object{"url": in.URL, "enabled": true}); status != 400 || again["errors"].([]any)[0].(object)["id"] != id {
		t.Errorf("a second webhook with the URL = %d %v", status, again)
	}
	b.sendGrid(t, sendGridTo("ann@example.org"))
	if c := in.wait(t, 1)[0]; c.header.Get("X-Twilio-Email-Event-Webhook-Signature") != "" {
		t.Error("it signs though nobody asked for it")
	}
	status, signed := call("PATCH", "/signed/"+id, object{"enabled": true})
	if status != 200 || signed["public_key"] != b.HookKeys()["sendgrid_public_key"] {
		t.Fatalf("PATCH signed = %d %v", status, signed)
	}
	b.sendGrid(t, sendGridTo("ann@example.org"))
	calls := in.wait(t, 2)
	if events := sendGridEvents(t, calls); len(events) != 2 || events[1]["event"] != "delivered" || !sendGridVerifies(t, b.HookKeys()["sendgrid_public_key"], calls[1]) {
		t.Errorf("events = %v", events)
	}
	if _, all := call("GET", "/all", nil); len(all["webhooks"].([]any)) != 1 {
		t.Errorf("all = %v", all)
	}
	if status, m := call("PATCH", "/"+id, object{"enabled": false}); status != 200 || m["enabled"] != false || m["delivered"] != true {
		t.Errorf("PATCH = %d %v", status, m)
	}
	if status, m := call("GET", "/"+id, nil); status != 200 || m["url"] != in.URL {
		t.Errorf("GET = %d %v", status, m)
	}
	if status, _ := call("POST", "", object{"url": "https://gw.example.org/", "enabled": true}); status != 400 {
		t.Errorf("a remote URL = %d, want 400", status)
	}
	if status, _ := call("POST", "", object{"url": 1}); status != 400 {
		t.Errorf("a URL that is a number = %d, want 400", status)
	}
	for _, path := range []string{"/nothing", "/signed/nothing"} {
		if status, _ := call("GET", path, nil); status != 404 {
			t.Errorf("GET %s = %d, want 404", path, status)
		}
	}
	if status, _ := call("DELETE", "/"+id, nil); status != 204 {
		t.Errorf("DELETE = %d", status)
	}
}

func TestMailgunRegistersWebhooks(t *testing.T) {
	t.Parallel()
	b, in, other := start(t, paced()), newInbox(t, nil), newInbox(t, nil)
	mg := b.mailgunSDK()
	if err := mg.CreateWebhook(t.Context(), "delivered", []string{in.URL, other.URL}); err != nil {
		t.Fatal(err)
	}
	if err := mg.CreateWebhook(t.Context(), "delivered", []string{in.URL}); err == nil {
		t.Error("a webhook can be made twice")
	}
	if err := mg.CreateWebhook(t.Context(), "nonsense", []string{in.URL}); err == nil {
		t.Error("a webhook of an unknown name can be made")
	}
	if err := mg.CreateWebhook(t.Context(), "opened", []string{in.URL, in.URL, in.URL, in.URL}); err == nil {
		t.Error("a webhook takes four URLs")
	}
	if err := mg.UpdateWebhook(t.Context(), "opened", []string{in.URL}); err == nil {
		t.Error("a webhook that is not there can be changed")
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
	var key map[string]string
	fromJSON(t, b.mailgunGet(t, "/v5/accounts/http_signing_key").body, &key)
	if key["http_signing_key"] != b.HookKeys()["mailgun_signing_key"] {
		t.Errorf("signing key = %v", key)
	}
	if a := b.mailgunGet(t, "/v3/domains/other.example.com/webhooks"); a.status != 404 {
		t.Errorf("another domain = %d, want 404", a.status)
	}
}

func TestPostmarkVerifiesAWebhookBeforeItSavesIt(t *testing.T) {
	t.Parallel()
	status := 401
	b := start(t, paced())
	in := newInbox(t, func(int, hookCall) int { return status })
	call := func(method, path string, body any) (int, object) {
		a := b.do(t, method, "/postmark/webhooks"+path, toJSON(t, body), postmarkHeader(key("postmark", "server_token")))
		var m object
		fromJSON(t, a.body, &m)
		return a.status, m
	}
	body := object{
		"Url": in.URL, "HttpAuth": object{"Username": "u", "Password": "p"}, "HttpHeaders": []any{object{"Name": "X-A", "Value": "b"}},
		"Triggers": object{"Delivery": object{"Enabled": true}, "Bounce": object{"Enabled": true, "IncludeContent": false}, "Open": object{"Enabled": false}},
	}
	if code, m := call("POST", "", body); code != 422 || m["ErrorCode"] != 1364.0 {
		t.Fatalf("POST with a receiver that refuses = %d %v", code, m)
	}
	in.mu.Lock()
	status = 200
	in.calls = nil
	in.mu.Unlock()
	code, made := call("POST", "", body)
	if code != 200 || made["ID"] == nil || made["MessageStream"] != "outbound" {
		t.Fatalf("POST = %d %v", code, made)
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
	id := fmt.Sprint(made["ID"])
	if code, m := call("PUT", "/"+id, object{"Triggers": object{"Click": object{"Enabled": true}}}); code != 200 || m["Url"] != in.URL ||
		m["HttpAuth"].(object)["Password"] != "p" || m["Triggers"].(object)["Click"].(object)["Enabled"] != true {
		t.Errorf("PUT = %d %v", code, m)
	}
	if _, m := call("GET", "?MessageStream=outbound", nil); len(m["Webhooks"].([]any)) != 1 {
		t.Errorf("GET = %v", m)
	}
	if _, m := call("GET", "?MessageStream=news", nil); len(m["Webhooks"].([]any)) != 0 {
		t.Errorf("GET of another stream = %v", m)
	}
	if code, _ := call("DELETE", "/"+id, nil); code != 200 {
		t.Errorf("DELETE = %d", code)
	}
	if code, _ := call("GET", "/"+id, nil); code != 422 {
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

func TestSESPublishesToAConfirmedSubscription(t *testing.T) {
	t.Parallel()
	b, in := start(t, paced()), newInbox(t, nil)
	c, topic := b.sesSDK(), b.HookKeys()["sns_topic_arn"]
	destination := &types.EventDestinationDefinition{
		Enabled: true, MatchingEventTypes: []types.EventType{types.EventTypeDelivery, types.EventTypeBounce},
		SnsDestination: &types.SnsDestination{TopicArn: &topic},
	}
	create := &sesv2.CreateConfigurationSetEventDestinationInput{
		ConfigurationSetName: aws.String("tx"), EventDestinationName: aws.String("gw"), EventDestination: destination,
	}
	if _, err := c.CreateConfigurationSetEventDestination(t.Context(), create); !strings.Contains(fmt.Sprint(err), "NotFoundException") {
		t.Errorf("a destination of no set = %v", err)
	}
	for _, want := range []string{"<nil>", "AlreadyExistsException"} {
		_, err := c.CreateConfigurationSet(t.Context(), &sesv2.CreateConfigurationSetInput{ConfigurationSetName: aws.String("tx")})
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("CreateConfigurationSet = %v, want %s", err, want)
		}
	}
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
	if a := b.do(t, "GET", "/ses/?Action=ConfirmSubscription&Version=2010-03-31&TopicArn="+url.QueryEscape(topic)+"&Token=wrong", "", nil); a.status != 400 {
		t.Errorf("a wrong token = %d", a.status)
	}
	for _, want := range []string{"<nil>", "AlreadyExistsException"} {
		if _, err := c.CreateConfigurationSetEventDestination(t.Context(), create); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("CreateConfigurationSetEventDestination = %v, want %s", err, want)
		}
	}
	send("tx") // meets a subscription that is not confirmed
	if s := b.settled(t, "ses", func(s emulator.HookStats) bool { return true }); s.Posted != 1 {
		t.Errorf("before the confirmation: %+v", s)
	}
	a := b.do(t, "GET", "/ses/?Action=ConfirmSubscription&Version=2010-03-31&TopicArn="+url.QueryEscape(topic)+"&Token="+m["Token"], "", nil)
	if a.status != 200 || !strings.Contains(a.body, "<ConfirmSubscriptionResult><SubscriptionArn>"+topic+":") {
		t.Fatalf("ConfirmSubscription = %d %s", a.status, a.body)
	}
	greeted := *create
	greeted.EventDestinationName, greeted.EventDestination = aws.String("opens"), &types.EventDestinationDefinition{
		Enabled: true, MatchingEventTypes: []types.EventType{types.EventTypeOpen}, SnsDestination: destination.SnsDestination,
	}
	if _, err := c.CreateConfigurationSetEventDestination(t.Context(), &greeted); err != nil {
		t.Fatal(err)
	}
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
	out, err := c.GetConfigurationSetEventDestinations(t.Context(), &sesv2.GetConfigurationSetEventDestinationsInput{ConfigurationSetName: aws.String("tx")})
	if err != nil || len(out.EventDestinations) != 2 || *out.EventDestinations[0].SnsDestination.TopicArn != topic {
		t.Errorf("destinations = %+v, %v", out, err)
	}
	destination.Enabled = false
	if _, err := c.UpdateConfigurationSetEventDestination(t.Context(), &sesv2.UpdateConfigurationSetEventDestinationInput{
		ConfigurationSetName: aws.String("tx"), EventDestinationName: aws.String("gw"), EventDestination: destination,
	}); err != nil {
		t.Error(err)
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
