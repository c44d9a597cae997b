package ses

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// Client sends through one SES account in one region, and reads its events. It is safe for concurrent use.
type Client struct {
	config Config
	http   *esphttp.Client
	api    *sesv2.Client
	rules  []rule
	chain  *aws.CredentialsCache // nil with keys of our own
	sns    *http.Client          // calls SNS: certificates, confirmations
	certs  *certificates
}

// New makes a Client. It opens no connection; with use_default_credentials it reads the environment and the shared
// files of AWS, and asks for credentials at the first Send.
func New(c Config) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	client := &Client{config: c, rules: rules()}
	creds, err := client.credentials()
	if err != nil {
		return nil, err
	}
	client.http = esphttp.New(esphttp.Options{
		Concurrency: cmp.Or(c.Concurrency, concurrency), BaseURL: c.BaseURL, Reach: c.Reach,
		Secrets: []seal.Secret{c.AccessKeyID, c.SecretAccessKey, c.SessionToken},
	})
	client.api = sesv2.New(client.options(creds))
	client.listen()
	return client, nil
}

// listen makes what receiving takes. The address of a certificate comes with a request that nobody has vouched for yet,
// so it is called from a jail.
func (c *Client) listen() {
	if c.config.SNSBaseURL == "" {
		c.sns = jail.New(bars())
		c.certs = &certificates{http: c.sns, issuers: true}
		return
	}
	c.sns = esphttp.New(esphttp.Options{BaseURL: c.config.SNSBaseURL, Reach: c.config.Reach}).HTTP()
	c.certs = &certificates{http: c.sns}
	if c.config.SNSCAPEM != "" {
		c.certs.roots = x509.NewCertPool()
		c.certs.roots.AppendCertsFromPEM([]byte(c.config.SNSCAPEM))
	}
}

// options leaves nothing to the environment. The SDK's default retryer would make three attempts and so three mails.
func (c *Client) options(creds aws.CredentialsProvider) sesv2.Options {
	o := sesv2.Options{
		AppID:       "sendgate",
		Region:      c.config.Region,
		Credentials: creds,
		HTTPClient:  c.http.HTTP(),
		Retryer:     aws.NopRetryer{},
	}
	if c.config.BaseURL != "" {
		o.BaseEndpoint = aws.String(c.config.BaseURL)
	}
	return o
}

// bars leaves port 80 open: it is where certificates name the one of their issuer.
func bars() jail.Options { return jail.Options{Ports: []uint16{80}, Timeout: snsTimeout} }

// loadTimeout caps the reading of AWS's shared configuration, which is local files unless AWS_DEFAULTS_MODE=auto makes
// the SDK ask the instance where it runs.
const loadTimeout = 5 * time.Second

func (c *Client) credentials() (aws.CredentialsProvider, error) {
	if !c.config.UseDefaultCredentials {
		return credentials.NewStaticCredentialsProvider(
			c.config.AccessKeyID.Reveal(), c.config.SecretAccessKey.Reveal(), c.config.SessionToken.Reveal()), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	loaded, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(c.config.Region))
	if err != nil {
		return nil, fmt.Errorf("use_default_credentials: read AWS configuration: %w", err)
	}
	cache, ok := loaded.Credentials.(*aws.CredentialsCache)
	if !ok {
		cache = aws.NewCredentialsCache(loaded.Credentials)
	}
	c.chain = cache // a cache around the cache would keep what Invalidate drops
	return c.chain, nil
}

// Send implements provider.Provider by one SendEmail call.
func (c *Client) Send(ctx context.Context, s *provider.Send) (provider.Receipt, error) {
	in, refusal := c.input(s)
	if refusal != nil {
		return provider.Receipt{}, refusal
	}
	ctx, tr := esphttp.Track(ctx)
	out, err := c.api.SendEmail(ctx, in)
	if err != nil {
		return provider.Receipt{}, c.classify(s, tr, err)
	}
	id := aws.ToString(out.MessageId)
	if id == "" {
		return provider.Receipt{}, &provider.Error{
			Class: provider.Uncertain, Status: tr.Status(), Code: "NoMessageId",
			Detail: "answer without a MessageId",
		}
	}
	return provider.Receipt{ProviderMessageID: id}, nil
}

// Close implements provider.Provider.
func (c *Client) Close() error {
	c.sns.CloseIdleConnections()
	return c.http.Close()
}
