package ses

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

const (
	// confirmFor is how long after Register a subscription is confirmed: time for a human to run a command.
	confirmFor = time.Hour

	// defaultSet is the configuration set of accounts without one. SES publishes nothing without one.
	defaultSet = "sendgate"

	maxDestination = 64 // API reference, CreateConfigurationSetEventDestination
)

// Register implements provider.Registrar. The SES API makes SES publish to a topic. The topic calls our URL through an SNS
// subscription. That needs rights that a sender's key seldom has, so a human runs those commands.
func (c *Client) Register(ctx context.Context, hook string) (provider.Registration, error) {
	u, err := url.Parse(hook)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.ContainsRune(hook, '\'') {
		return provider.Registration{}, &provider.Error{Class: provider.Rejected, Code: "url", Detail: "the URL is not an absolute http or https URL"}
	}
	reg := provider.Registration{
		Settings: map[string]any{"sns_confirm_until": time.Now().UTC().Add(confirmFor).Format(time.RFC3339)},
	}
	if len(c.config.SNSTopicARNs) == 0 {
		reg.Steps = append(c.topicSteps(), subscribeSteps("TOPIC_ARN", c.config.Region, u)...)
		return reg, nil
	}
	arn := c.config.SNSTopicARNs[0]
	at, _ := parseTopic(arn) // Validate has checked it
	set := cmp.Or(c.config.ConfigurationSet, defaultSet)
	if reg.Done, err = c.publish(ctx, set, at); err != nil {
		return provider.Registration{}, err
	}
	if c.config.ConfigurationSet == "" {
		reg.Settings["configuration_set"] = set
	}
	reg.Steps = subscribeSteps(arn, at.region, u)
	return reg, nil
}

// publish makes the configuration set, if it is missing, and its event destination for the topic. It keeps the destinations
// of others: ours is named after the topic.
func (c *Client) publish(ctx context.Context, set string, at topic) (done []string, err error) {
	made, err := c.call(ctx, "create configuration set", func(ctx context.Context) error {
		_, err := c.api.CreateConfigurationSet(ctx, &sesv2.CreateConfigurationSetInput{ConfigurationSetName: aws.String(set)})
		return err
	})
	if err != nil {
		return nil, err
	}
	if made {
		done = append(done, "created configuration set "+set)
	}
	name, events := destinationName(at), destination(at)
	made, err = c.call(ctx, "create event destination", func(ctx context.Context) error {
		_, err := c.api.CreateConfigurationSetEventDestination(ctx, &sesv2.CreateConfigurationSetEventDestinationInput{
			ConfigurationSetName: aws.String(set), EventDestinationName: aws.String(name), EventDestination: events,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if made {
		return append(done, "configuration set "+set+" publishes its events to "+at.arn+", by event destination "+name+"; SES counts opens and clicks from now on"), nil
	}
	_, err = c.call(ctx, "update event destination", func(ctx context.Context) error {
		_, err := c.api.UpdateConfigurationSetEventDestination(ctx, &sesv2.UpdateConfigurationSetEventDestinationInput{
			ConfigurationSetName: aws.String(set), EventDestinationName: aws.String(name), EventDestination: events,
		})
		return err
	})
	return append(done, "event destination "+name+" of configuration set "+set+" was there and publishes every event to "+at.arn), err
}

// call makes one call of the SES API and reports whether it made something; false if that existed already. The error is a
// *provider.Error.
func (c *Client) call(ctx context.Context, what string, do func(context.Context) error) (made bool, err error) {
	ctx, tr := esphttp.Track(ctx)
	err = do(ctx)
	if exists := (*types.AlreadyExistsException)(nil); err == nil || errors.As(err, &exists) {
		return err == nil, nil
	}
	e := c.classify(&provider.Send{Message: &mail.Message{}}, tr, err)
	e.Detail = provider.Cut(what + ": " + e.Detail)
	return false, e
}

func destination(at topic) *types.EventDestinationDefinition {
	return &types.EventDestinationDefinition{
		Enabled: true,
		MatchingEventTypes: []types.EventType{
			types.EventTypeSend, types.EventTypeDelivery, types.EventTypeBounce, types.EventTypeComplaint,
			types.EventTypeReject, types.EventTypeOpen, types.EventTypeClick, types.EventTypeRenderingFailure,
			types.EventTypeDeliveryDelay, types.EventTypeSubscription,
		},
		SnsDestination: &types.SnsDestination{TopicArn: aws.String(at.arn)},
	}
}

func destinationName(at topic) string {
	name := "sendgate-" + at.name
	return name[:min(len(name), maxDestination)]
}

func (c *Client) topicSteps() []string {
	return []string{
		"Create a topic, and have it sign by SHA-256; the first command answers with its TOPIC_ARN:",
		"aws sns create-topic --region " + c.config.Region + " --name sendgate-events",
		"aws sns set-topic-attributes --region " + c.config.Region + " --topic-arn TOPIC_ARN --attribute-name SignatureVersion --attribute-value 2",
		"Put the TOPIC_ARN into the account's setting sns_topic_arns, register the webhooks again, and then subscribe:",
	}
}

// deliveryPolicy makes SNS try for 55 minutes, 60 times; by default it gives up after one minute (developer guide, "Amazon SNS
// message delivery retries"; the total may be at most 3,600 seconds).
const deliveryPolicy = `{"DeliveryPolicy":"{\"healthyRetryPolicy\":{\"minDelayTarget\":10,\"maxDelayTarget\":100,\"numRetries\":60}}"}`

func subscribeSteps(arn, region string, hook *url.URL) []string {
	return []string{
		"Let the topic sign by SHA-256, if it does not yet:",
		fmt.Sprintf("aws sns set-topic-attributes --region %s --topic-arn %s --attribute-name SignatureVersion --attribute-value 2", region, arn),
		"Subscribe within the hour, in which the subscription is confirmed by itself; raw message delivery stays off:",
		fmt.Sprintf("aws sns subscribe --region %s --topic-arn %s --protocol %s --notification-endpoint '%s' --attributes '%s'",
			region, arn, hook.Scheme, hook, deliveryPolicy),
		"Keep what can't be delivered for an hour: make an SQS queue that the topic may write to, and name it in the subscription's RedrivePolicy:",
		fmt.Sprintf(`aws sns set-subscription-attributes --region %s --subscription-arn SUBSCRIPTION_ARN --attribute-name RedrivePolicy --attribute-value '{"deadLetterTargetArn":"QUEUE_ARN"}'`, region),
	}
}
