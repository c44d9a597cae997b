package ses

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
)

const hookURL = "https://mail.example.com/hooks/ses-eu"

// control is the part of the SES API that registering takes: configuration sets and their event destinations.
type control struct {
	mu           sync.Mutex
	sets         map[string]bool
	destinations map[string]string // by set/name, as JSON
	calls        []string
	fail         string // code of the answer to everything
	failPut      string // to an update
}

func newControl(t *testing.T) (c *control, url string) {
	t.Helper()
	c = &control{sets: map[string]bool{}, destinations: map[string]string{}}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	return c, srv.URL
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	c.calls = append(c.calls, r.Method+" "+r.URL.Path)
	if code := c.answer(r, body); code != "" {
		w.Header().Set("X-Amzn-ErrorType", code)
		w.WriteHeader(cmp.Or(map[string]int{"NotFoundException": 404, "AccessDeniedException": 403}[code], 400))
		_, _ = io.WriteString(w, `{"message":"said SES"}`)
		return
	}
	_, _ = io.WriteString(w, "{}")
}

// answer returns the code of an error.
func (c *control) answer(r *http.Request, body []byte) string {
	var in struct {
		ConfigurationSetName, EventDestinationName string
		EventDestination                           json.RawMessage
	}
	_ = json.Unmarshal(body, &in)
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/email/configuration-sets")
	parts := strings.Split(rest, "/")
	switch {
	case c.fail != "":
		return c.fail
	case !ok:
		return "NotFoundException"
	case len(parts) == 1:
		if c.sets[in.ConfigurationSetName] {
			return "AlreadyExistsException"
		}
		c.sets[in.ConfigurationSetName] = true
	case !c.sets[parts[1]]:
		return "NotFoundException"
	case r.Method == http.MethodPost:
		key := parts[1] + "/" + in.EventDestinationName
		if c.destinations[key] != "" {
			return "AlreadyExistsException"
		}
		c.destinations[key] = string(in.EventDestination)
	case r.Method == http.MethodPut && c.failPut != "":
		return c.failPut
	case r.Method == http.MethodPut:
		c.destinations[parts[1]+"/"+parts[3]] = string(in.EventDestination)
	}
	return ""
}

// allEvents is the destination that registering makes.
const allEvents = `{"Enabled":true,"MatchingEventTypes":["SEND","DELIVERY","BOUNCE","COMPLAINT","REJECT","OPEN","CLICK","RENDERING_FAILURE","DELIVERY_DELAY","SUBSCRIPTION"],"SnsDestination":{"TopicArn":"` + testTopic + `"}}`

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal([]byte(got), &g), json.Unmarshal([]byte(want), &w)); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if diff := gocmp.Diff(w, g); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

func TestRegisterPublishesToTheTopic(t *testing.T) {
	t.Parallel()
	api, url := newControl(t)
	api.destinations["tx/theirs"] = `{"Enabled":true}`
	config := testConfig(url)
	config.SNSTopicARNs = []string{testTopic, "arn:aws:sns:eu-west-1:123456789012:second"}
	client := newClient(t, config)
	before := time.Now()

	got, err := client.Register(t.Context(), hookURL)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	if diff := gocmp.Diff([]string{
		"created configuration set tx",
		"configuration set tx publishes its events to " + testTopic + ", by event destination sendgate-ses-events; SES counts opens and clicks from now on",
	}, got.Done); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	sameJSON(t, api.destinations["tx/sendgate-ses-events"], allEvents)
	wantConfirmation(t, got, before)
	if _, ok := got.Settings["configuration_set"]; ok || got.Again || got.Secrets != nil {
		t.Errorf("registration = %+v, want no other setting, no secret and no second round", got)
	}
	wantStep(t, got.Steps, "aws sns subscribe --region eu-west-1 --topic-arn "+testTopic+" --protocol https --notification-endpoint '"+hookURL+"' --attributes '{\"DeliveryPolicy\"")
	wantStep(t, got.Steps, "--topic-arn "+testTopic+" --attribute-name SignatureVersion --attribute-value 2")
	wantStep(t, got.Steps, "RedrivePolicy")

	// Again, after somebody turned it off: it is mended, and theirs stays.
	api.destinations["tx/sendgate-ses-events"] = `{"Enabled":false}`
	again, err := client.Register(t.Context(), hookURL)
	if err != nil {
		t.Fatalf("second Register: %v", err)
	}
	if diff := gocmp.Diff([]string{"event destination sendgate-ses-events of configuration set tx was there and publishes every event to " + testTopic}, again.Done); diff != "" {
		t.Errorf("done the second time (-want +got):\n%s", diff)
	}
	sameJSON(t, api.destinations["tx/sendgate-ses-events"], allEvents)
	sameJSON(t, api.destinations["tx/theirs"], `{"Enabled":true}`)
	if len(api.destinations) != 2 || len(api.sets) != 1 {
		t.Errorf("%d destinations in %d sets, want 2 in 1", len(api.destinations), len(api.sets))
	}
}

// wantConfirmation checks that subscriptions are confirmed for an hour from now.
func wantConfirmation(t *testing.T, got provider.Registration, before time.Time) {
	t.Helper()
	text, _ := got.Settings["sns_confirm_until"].(string)
	until, err := time.Parse(time.RFC3339, text)
	if err != nil || until.Before(before.Add(time.Hour-time.Second)) || until.After(time.Now().Add(time.Hour)) {
		t.Errorf("sns_confirm_until = %q, want an hour from now", text)
	}
	settings, _ := json.Marshal(map[string]any{"region": "eu-west-1", "use_default_credentials": true, "sns_confirm_until": text})
	if _, err := ParseConfig(settings, nil); err != nil {
		t.Errorf("the settings that follow are not valid: %v", err)
	}
}

func wantStep(t *testing.T, steps []string, part string) {
	t.Helper()
	for _, s := range steps {
		if strings.Contains(s, part) {
			return
		}
	}
	t.Errorf("no step with %s in:\n%s", part, strings.Join(steps, "\n"))
}

func TestRegisterChoosesASetWhereThereIsNone(t *testing.T) {
	t.Parallel()
	api, url := newControl(t)
	config := testConfig(url)
	config.ConfigurationSet, config.SNSTopicARNs = "", []string{testTopic}
	got, err := newClient(t, config).Register(t.Context(), hookURL)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	if got.Settings["configuration_set"] != "sendgate" || api.destinations["sendgate/sendgate-ses-events"] == "" {
		t.Errorf("settings = %v, destinations = %v; want the set sendgate", got.Settings, api.destinations)
	}
}

func TestRegisterWithoutATopicIsForAHuman(t *testing.T) {
	t.Parallel()
	api, url := newControl(t)
	before := time.Now()
	got, err := newClient(t, testConfig(url)).Register(t.Context(), hookURL)
	if err != nil {
		t.Fatalf("Register: %v", err)
	}
	wantConfirmation(t, got, before)
	for _, part := range []string{
		"aws sns create-topic --region eu-west-1", "SignatureVersion --attribute-value 2", "sns_topic_arns",
		"--protocol https --notification-endpoint '" + hookURL + "'", "numRetries", "RedrivePolicy",
	} {
		wantStep(t, got.Steps, part)
	}
	if len(got.Done) != 0 || len(api.calls) != 0 {
		t.Errorf("done %v by %v, want nothing", got.Done, api.calls)
	}
}

func TestRegisterFails(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]provider.Class{
		"AccessDeniedException": provider.Misconfigured, "TooManyRequestsException": provider.Throttled,
		"ConcurrentModificationException": provider.Transient, "BadRequestException": provider.Rejected,
	} {
		api, url := newControl(t)
		api.fail = code
		config := testConfig(url)
		config.SNSTopicARNs = []string{testTopic}
		_, err := newClient(t, config).Register(t.Context(), hookURL)
		var perr *provider.Error
		if !errors.As(err, &perr) || perr.Class != want || perr.Detail != "create configuration set: said SES" {
			t.Errorf("%s: Register = %v, want class %s and what was tried", code, err, want)
		}
		if len(api.calls) != 1 {
			t.Errorf("%s: calls = %v, want one", code, api.calls)
		}
	}
	api, url := newControl(t)
	config := testConfig(url)
	config.SNSTopicARNs = []string{testTopic}
	client := newClient(t, config)
	if _, err := client.Register(t.Context(), hookURL); err != nil {
		t.Fatalf("Register: %v", err)
	}
	api.failPut = "NotFoundException"
	_, err := client.Register(t.Context(), hookURL)
	if perr := (*provider.Error)(nil); !errors.As(err, &perr) || perr.Detail != "update event destination: said SES" {
		t.Errorf("Register = %v, want the failure of the update", err)
	}
}

func TestRegisterTakesNoOtherURL(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "mail.example.com", "ftp://x/", "https://", "https://x/'; rm -rf ~; '", "https://x/\n"} {
		api, url := newControl(t)
		config := testConfig(url)
		config.SNSTopicARNs = []string{testTopic}
		if reg, err := newClient(t, config).Register(t.Context(), address); err == nil || len(api.calls) != 0 {
			t.Errorf("Register(%q) = %+v, %v after %v; want a refusal before any call", address, reg, err, api.calls)
		}
	}
}

// The policy must stay within the limits of SNS, and the longest delay that it causes within our limit of age.
func TestDeliveryPolicyIsWithinTheHour(t *testing.T) {
	t.Parallel()
	var attributes struct{ DeliveryPolicy string }
	if err := json.Unmarshal([]byte(deliveryPolicy), &attributes); err != nil {
		t.Fatal(err)
	}
	var policy struct {
		HealthyRetryPolicy struct{ MinDelayTarget, MaxDelayTarget, NumRetries int }
	}
	if err := json.Unmarshal([]byte(attributes.DeliveryPolicy), &policy); err != nil {
		t.Fatal(err)
	}
	p := policy.HealthyRetryPolicy
	total := time.Duration(p.NumRetries*(p.MinDelayTarget+p.MaxDelayTarget)/2) * time.Second
	if p.NumRetries > 100 || total > time.Hour || total < 30*time.Minute || total > maxAge {
		t.Errorf("%d retries take %v, want at most 100 in half an hour to an hour", p.NumRetries, total)
	}
}

func TestNameOfTheDestinationFits(t *testing.T) {
	t.Parallel()
	at, ok := parseTopic(fmt.Sprintf("arn:aws:sns:eu-west-1:123456789012:%s", strings.Repeat("t", 256)))
	if name := destinationName(at); !ok || len(name) != 64 || !isTag(name) {
		t.Errorf("name = %q, want 64 characters that SES takes", name)
	}
}
