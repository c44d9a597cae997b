package ses

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // SignatureVersion 1 is over SHA-1, and a topic's default
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
)

// The types of messages that SNS posts.
const (
	snsNotification = "Notification"
	snsConfirmation = "SubscriptionConfirmation"
)

// snsMessage is the body that SNS posts, in the order of the page "HTTP/HTTPS notification JSON format" of its Developer Guide.
type snsMessage struct {
	Type             string `json:"Type"`
	MessageID        string `json:"MessageId"`
	Token            string `json:"Token,omitempty"`
	TopicARN         string `json:"TopicArn"`
	Subject          string `json:"Subject,omitempty"`
	Message          string `json:"Message"`
	SubscribeURL     string `json:"SubscribeURL,omitempty"`
	Timestamp        string `json:"Timestamp"`
	SignatureVersion string `json:"SignatureVersion"`
	Signature        string `json:"Signature"`
	SigningCertURL   string `json:"SigningCertURL"`
	UnsubscribeURL   string `json:"UnsubscribeURL,omitempty"`

	version string // "1" or "2"
	forged  bool
}

// toSign is the string from the page "Verifying the signatures of Amazon SNS messages": names and values in byte order, each
// followed by a line end.
func (n *snsMessage) toSign() string {
	pairs := [][2]string{{"Message", n.Message}, {"MessageId", n.MessageID}}
	if n.Type == snsNotification {
		if n.Subject != "" {
			pairs = append(pairs, [2]string{"Subject", n.Subject})
		}
		pairs = append(pairs, [2]string{"Timestamp", n.Timestamp})
	} else {
		pairs = append(pairs, [2]string{"SubscribeURL", n.SubscribeURL}, [2]string{"Timestamp", n.Timestamp}, [2]string{"Token", n.Token})
	}
	pairs = append(pairs, [2]string{"TopicArn", n.TopicARN}, [2]string{"Type", n.Type})
	var b strings.Builder
	for _, p := range pairs {
		b.WriteString(p[0] + "\n" + p[1] + "\n")
	}
	return b.String()
}

// sign signs a message and makes a request from it.
func (a *api) sign(n *snsMessage) ([]byte, http.Header, error) {
	id, err := a.keys.sns()
	if err != nil {
		return nil, nil, err
	}
	base := a.host.At() + "/"
	n.SignatureVersion, n.SigningCertURL = n.version, base+a.keys.certName
	subscription := n.TopicARN + ":8f2b6c1e-0000-4000-8000-000000000001"
	if n.Type == snsNotification {
		n.UnsubscribeURL = base + "?Action=Unsubscribe&SubscriptionArn=" + url.QueryEscape(subscription)
	}
	text := n.toSign()
	if n.forged {
		text += "x"
	}
	hash, digest := crypto.SHA256, sha256.Sum256([]byte(text))
	sum := digest[:]
	if n.version == "1" {
		old := sha1.Sum([]byte(text)) //nolint:gosec // as above
		hash, sum = crypto.SHA1, old[:]
	}
	signature, err := rsa.SignPKCS1v15(nil, id.key, hash, sum)
	if err != nil {
		return nil, nil, fmt.Errorf("sign sns message: %w", err)
	}
	n.Signature = base64.StdEncoding.EncodeToString(signature)
	body, err := json.Marshal(n)
	if err != nil {
		return nil, nil, fmt.Errorf("encode sns message: %w", err)
	}
	h := http.Header{
		"Content-Type": {"text/plain; charset=UTF-8"}, "User-Agent": {"Amazon Simple Notification Service Agent"},
	}
	h.Set("x-amz-sns-message-type", n.Type)
	h.Set("x-amz-sns-message-id", n.MessageID)
	h.Set("x-amz-sns-topic-arn", n.TopicARN)
	if n.Type == snsNotification {
		h.Set("x-amz-sns-subscription-arn", subscription)
	}
	return body, h, nil
}
