package ses

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// Bounds of the Timestamp of a message. SNS retries for at most an hour (developer guide, "Amazon SNS message delivery
// retries") and does not change the timestamp for a retry.
const (
	maxAhead = 10 * time.Minute
	maxAge   = 2 * time.Hour
)

// snsTimeout caps one call to SNS. SNS waits 15 seconds for our answer, and two calls have to fit into that.
const snsTimeout = 6 * time.Second

// envelope is the body of an SNS POST, for all its types ("HTTP/HTTPS notification JSON format" and similar pages).
type envelope struct {
	Type             string
	MessageID        string `json:"MessageId"`
	TopicARN         string `json:"TopicArn"`
	Subject          *string
	Message          string
	Timestamp        string
	SignatureVersion string
	Signature        string
	SigningCertURL   string
	SubscribeURL     string
	Token            string
}

const (
	notification = "Notification"
	subscribed   = "SubscriptionConfirmation"
	unsubscribed = "UnsubscribeConfirmation"
)

// Receive implements provider.EventParser. SNS accepts a 4xx as final and retries after a 5xx (developer guide, "Amazon SNS
// message delivery retries"). So 403 is for requests that will never be right, and 503 for those that we could not check.
func (c *Client) Receive(ctx context.Context, h *provider.Hook) (provider.Batch, error) {
	e, at, err := c.admit(h)
	if err != nil {
		return provider.Batch{}, err
	}
	signer, err := c.certs.find(ctx, e.SigningCertURL, at, h.Now)
	if err != nil {
		return provider.Batch{}, err
	}
	if err := e.checkSignature(signer); err != nil {
		return provider.Batch{}, err
	}
	switch e.Type {
	case subscribed:
		return c.confirm(ctx, at, e.Token)
	case unsubscribed:
		return provider.Batch{Note: "subscription ended"}, nil
	default:
		return e.batch(), nil
	}
}

// validated is the plain text that SES publishes when an event destination is made.
const validated = "Successfully validated SNS topic"

func (e *envelope) batch() provider.Batch {
	if strings.HasPrefix(e.Message, validated) {
		return provider.Batch{Note: "topic validated"}
	}
	raw := []byte(e.Message)
	return provider.Batch{Payloads: []mail.Payload{{Raw: raw, Events: parse(raw)}}}
}

// admit makes every check that needs no call, so that a forged request causes no other traffic.
func (c *Client) admit(h *provider.Hook) (*envelope, topic, error) {
	if err := c.CheckHeader(h.Header, h.Now); err != nil {
		return nil, topic{}, err
	}
	var e envelope
	if err := json.Unmarshal(h.Body, &e); err != nil || !slices.Contains([]string{notification, subscribed, unsubscribed}, e.Type) {
		return nil, topic{}, forbid("signature", errors.New("the body is no message of SNS"))
	}
	at, ok := parseTopic(e.TopicARN)
	switch {
	case !ok || !slices.Contains(c.config.SNSTopicARNs, e.TopicARN):
		return nil, topic{}, forbid("topic", errors.New("the topic is not among sns_topic_arns"))
	case e.SignatureVersion != "2" && (e.SignatureVersion != "1" || c.config.SNSSignatureVersion != "1"):
		return nil, topic{}, forbid("version", errors.New("set SignatureVersion to 2 on the topic, or sns_signature_version to 1 here"))
	case !fresh(e.Timestamp, h.Now):
		return nil, topic{}, forbid("timestamp", fmt.Errorf("the message is not of the last %v", maxAge))
	case e.Type == subscribed && !h.Now.Before(c.config.SNSConfirmUntil):
		return nil, topic{}, forbid("confirmation", errors.New("sns_confirm_until is not set or over: register the account's webhooks again"))
	}
	at.endpoint = c.endpoint(at)
	if rest, ok := strings.CutPrefix(e.SigningCertURL, at.endpoint); !ok || !certPath.MatchString(rest) {
		return nil, topic{}, forbid("certificate", errors.New("the certificate is not where SNS of the topic's region keeps its own"))
	}
	return &e, at, nil
}

// CheckHeader implements provider.HeaderChecker. The signature is in the body, but SNS also names type and topic in the header
// ("HTTP/HTTPS headers").
func (c *Client) CheckHeader(header http.Header, _ time.Time) error {
	kind, arn := header.Get("X-Amz-Sns-Message-Type"), header.Values("X-Amz-Sns-Topic-Arn")
	switch {
	case strings.EqualFold(header.Get("X-Amz-Sns-Rawdelivery"), "true"):
		return forbid("raw_delivery", errors.New("raw message delivery has no signature: turn it off for the subscription"))
	case len(c.config.SNSTopicARNs) == 0:
		return forbid("unconfigured", errors.New("the account has no sns_topic_arns"))
	case !slices.Contains([]string{notification, subscribed, unsubscribed}, kind):
		return forbid("signature", errors.New("the header is none of SNS"))
	case len(arn) > 0 && !slices.Contains(c.config.SNSTopicARNs, arn[0]):
		return forbid("topic", errors.New("the topic is not among sns_topic_arns"))
	}
	return nil
}

func fresh(timestamp string, now time.Time) bool {
	at, err := time.Parse(time.RFC3339, timestamp)
	return err == nil && !at.After(now.Add(maxAhead)) && !at.Before(now.Add(-maxAge))
}

// certPath is compared with the part after the endpoint, so that only this one form of address is ever called. A pattern for the
// host would also match sns.s3-us-west-2.amazonaws.com, which is somebody's bucket.
var certPath = regexp.MustCompile(`^/SimpleNotificationService-[0-9a-f]{32}\.pem$`)

// topic is the meaning of an ARN.
type topic struct {
	arn, region, suffix, name string
	endpoint                  string // without a slash at its end
}

// arnForm is the ARN of a standard topic. FIFO topics, whose names end in .fifo, have no HTTP subscribers.
var arnForm = regexp.MustCompile(`^arn:(aws[a-z-]{0,16}):sns:([a-z0-9-]{1,32}):[0-9]{12}:([A-Za-z0-9_-]{1,256})$`)

// parseTopic reads an ARN whose partition and region match. Other partitions than these four belong to no public cloud.
func parseTopic(arn string) (topic, bool) {
	m := arnForm.FindStringSubmatch(arn)
	if m == nil || !isRegion(m[2]) {
		return topic{}, false
	}
	partition, suffix := "aws", "amazonaws.com"
	switch {
	case strings.HasPrefix(m[2], "cn-"):
		partition, suffix = "aws-cn", "amazonaws.com.cn"
	case strings.HasPrefix(m[2], "us-gov-"):
		partition = "aws-us-gov"
	case strings.HasPrefix(m[2], "eusc-"):
		partition, suffix = "aws-eusc", "amazonaws.eu"
	}
	return topic{arn: arn, region: m[2], suffix: suffix, name: m[3]}, partition == m[1]
}

// endpoint is the address of SNS in the topic's region (General Reference, "Amazon Simple Notification Service endpoints").
func (c *Client) endpoint(t topic) string {
	if c.config.SNSBaseURL != "" {
		return strings.TrimRight(c.config.SNSBaseURL, "/")
	}
	return "https://sns." + t.region + "." + t.suffix
}

// checkSignature checks the signature over the fields that it covers (developer guide, "Verifying the signatures of
// Amazon SNS messages"). SigningCertURL and SignatureVersion are not among them.
func (e *envelope) checkSignature(signer *x509.Certificate) error {
	signature, err := base64.StdEncoding.DecodeString(e.Signature)
	if err != nil {
		return forbid("signature", errors.New("the signature is not base64"))
	}
	algorithm := x509.SHA256WithRSA
	if e.SignatureVersion == "1" {
		algorithm = x509.SHA1WithRSA
	}
	if err := signer.CheckSignature(algorithm, e.signed(), signature); err != nil {
		return forbid("signature", err)
	}
	return nil
}

// signed is the string to sign: alternating names and decoded values, one per line, sorted by name.
func (e *envelope) signed() []byte {
	var b bytes.Buffer
	add := func(name, value string) { b.WriteString(name + "\n" + value + "\n") }
	add("Message", e.Message)
	add("MessageId", e.MessageID)
	if e.Type == notification {
		if e.Subject != nil {
			add("Subject", *e.Subject)
		}
		add("Timestamp", e.Timestamp)
	} else {
		add("SubscribeURL", e.SubscribeURL)
		add("Timestamp", e.Timestamp)
		add("Token", e.Token)
	}
	add("TopicArn", e.TopicARN)
	add("Type", e.Type)
	return b.Bytes()
}

// confirm subscribes us (API reference, ConfirmSubscription). The call is built from topic and token. With SubscribeURL, anyone
// who can publish could choose an address that we call.
func (c *Client) confirm(ctx context.Context, at topic, token string) (provider.Batch, error) {
	query := url.Values{"Action": {"ConfirmSubscription"}, "Version": {"2010-03-31"}, "TopicArn": {at.arn}, "Token": {token}}
	status, _, err := get(ctx, c.sns, at.endpoint+"/?"+query.Encode())
	switch {
	case err != nil:
		return provider.Batch{}, unavailable("confirmation_unavailable", err)
	case status/100 == 2:
		return provider.Batch{Note: "subscription confirmed"}, nil
	case transient(status):
		return provider.Batch{}, unavailable("confirmation_unavailable", fmt.Errorf("SNS answered ConfirmSubscription with status %d", status))
	default:
		return provider.Batch{}, forbid("confirmation", fmt.Errorf("SNS answered ConfirmSubscription with status %d", status))
	}
}

// transient reports whether a repeated GET may bring another answer.
func transient(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

func forbid(reason string, err error) error {
	return &provider.HookError{Status: http.StatusForbidden, Reason: reason, Err: err}
}

func unavailable(reason string, err error) error {
	return &provider.HookError{Status: http.StatusServiceUnavailable, Reason: reason, Err: err}
}
