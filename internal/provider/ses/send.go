package ses

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/provider/mime"
	"github.com/sendgate/sendgate/internal/seal"
)

// Caps of the API reference: Message, MessageHeader, MessageTag, Attachment. Lengths are in bytes of ASCII.
const (
	maxHeaders     = 15
	maxHeaderName  = 126
	maxHeaderValue = 995
	maxHeader      = 996 // name and value together
	maxTag         = 256
	maxTags        = 50
	maxFilename    = 255
	maxContentType = 78
	maxContentID   = 78
)

// input builds the request.
func (c *Client) input(s *provider.Send) (*sesv2.SendEmailInput, *provider.Error) {
	content := simple(s.Message)
	if partial(s) || !fitsSimple(s.Message) {
		var refusal *provider.Error
		if content, refusal = raw(s.Message); refusal != nil {
			return nil, refusal
		}
	}
	in := &sesv2.SendEmailInput{
		FromEmailAddress: aws.String(address(s.Message.From)),
		Destination: &types.Destination{
			ToAddresses: addresses(s.To), CcAddresses: addresses(s.Cc), BccAddresses: addresses(s.Bcc),
		},
		Content:   content,
		EmailTags: tagList(s.Message),
	}
	if content.Simple != nil {
		in.ReplyToAddresses = addresses(s.Message.ReplyTo)
	}
	if c.config.ConfigurationSet != "" {
		in.ConfigurationSetName = aws.String(c.config.ConfigurationSet)
	}
	return in, nil
}

// simple is the content of ordinary mail; SES makes its MIME.
func simple(m *mail.Message) *types.EmailContent {
	return &types.EmailContent{Simple: &types.Message{
		Subject: text(m.Subject), Body: body(m), Headers: headerList(m.Headers), Attachments: attachmentList(m.Attachments),
	}}
}

func body(m *mail.Message) *types.Body {
	b := &types.Body{}
	if m.HTML != "" {
		b.Html = text(m.HTML)
	}
	if m.Text != "" || m.HTML == "" {
		b.Text = text(m.Text)
	}
	return b
}

func text(s string) *types.Content {
	return &types.Content{Data: aws.String(s), Charset: aws.String("UTF-8")}
}

func addresses(list []mail.Address) []string {
	var out []string
	for _, a := range list {
		out = append(out, address(a))
	}
	return out
}

// address writes "Name" <local@domain>. SES accepts only ASCII, so other names become encoded words, and so do names that look
// like encoded words.
func address(a mail.Address) string {
	switch {
	case a.Name == "":
		return a.Email
	case isASCII(a.Name) && !mime.LooksEncoded(a.Name):
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Name) + `" <` + a.Email + ">"
	default:
		return mime.Words(a.Name) + " <" + a.Email + ">"
	}
}

// tagList puts our id first and then the metadata, by name, if name and value fit the charset of message tags and there is
// room. We keep the rest of the metadata and do not pass it on. The message's tags are not passed on either.
func tagList(m *mail.Message) []types.MessageTag {
	tags := []types.MessageTag{tag(provider.MessageKey, m.ID.String())}
	for _, name := range slices.Sorted(maps.Keys(m.Metadata)) {
		value := m.Metadata[name]
		if len(tags) == maxTags {
			break
		}
		if name != provider.MessageKey && isTag(name) && isTag(value) {
			tags = append(tags, tag(name, value))
		}
	}
	return tags
}

func tag(name, value string) types.MessageTag {
	return types.MessageTag{Name: aws.String(name), Value: aws.String(value)}
}

// isTag reports whether s may be the name or the value of a message tag.
func isTag(s string) bool {
	return s != "" && len(s) <= maxTag && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
}

func headerList(headers []mail.Header) []types.MessageHeader {
	var list []types.MessageHeader
	for _, h := range headers {
		list = append(list, types.MessageHeader{Name: aws.String(h.Name), Value: aws.String(mime.Value(h.Name, h.Value))})
	}
	return list
}

func attachmentList(files []mail.Attachment) []types.Attachment {
	var list []types.Attachment
	for _, f := range files {
		list = append(list, attachment(f))
	}
	return list
}

func attachment(f mail.Attachment) types.Attachment {
	a := types.Attachment{
		FileName:                aws.String(f.Filename),
		RawContent:              f.Content,
		ContentDisposition:      types.AttachmentContentDispositionAttachment,
		ContentTransferEncoding: types.AttachmentContentTransferEncodingBase64,
	}
	if f.Filename == "" {
		a.FileName = aws.String("attachment") // SES requires a name
	}
	if f.ContentType != "" {
		a.ContentType = aws.String(f.ContentType)
	}
	if f.ContentID != "" {
		a.ContentDisposition, a.ContentId = types.AttachmentContentDispositionInline, aws.String(f.ContentID)
	}
	return a
}

func refuse(code, detail string) *provider.Error {
	return &provider.Error{Class: provider.Rejected, Code: code, Detail: provider.Cut(detail), Elsewhere: true}
}

// isASCII reports whether s is printable ASCII.
func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// Client sends through one SES account in one region, and reads its events. It is safe for concurrent use.
type Client struct {
	config Config
	http   *esphttp.Client
	api    *sesv2.Client
	rules  []rule
	chain  *aws.CredentialsCache // nil with static keys
	sns    *http.Client          // calls SNS: certificates, confirmations
	certs  *certificates
}

// The engine finds these by a type assertion.
var (
	_ provider.EventParser   = (*Client)(nil)
	_ provider.HeaderChecker = (*Client)(nil)
	_ provider.Registrar     = (*Client)(nil)
)

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

// listen makes the parts that receive events. The address of a certificate comes in a request that is not verified yet, so it is
// called through a jail.
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

// options takes nothing from the environment. The SDK's default retryer would make three attempts and so three mails.
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

// bars allows port 80 too: certificates name the address of their issuer there.
func bars() jail.Options { return jail.Options{Ports: []uint16{80}, Timeout: snsTimeout} }

// loadTimeout caps the reading of AWS's shared configuration. That is local files, unless AWS_DEFAULTS_MODE=auto makes the SDK
// ask the instance that it runs on.
const loadTimeout = 5 * time.Second

// credentials returns the static keys, or the AWS default chain with a cache.
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
	c.chain = cache // a second cache around it would keep what Invalidate drops
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
