// Command ogen sends a mail with the client that ogen generates from the contract, and reads it back. That client checks
// each answer against the contract.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"example.com/clients/ogen/gen"
	"github.com/go-faster/jx"
	"github.com/google/uuid"
)

type keys struct{}

func (keys) Key(context.Context, gen.OperationName) (gen.Key, error) {
	return gen.Key{Token: os.Getenv("SENDGATE_API_KEY")}, nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	c, err := gen.NewClient(os.Getenv("SENDGATE_URL"), keys{})
	if err != nil {
		return err
	}
	mail := &gen.SendRequest{
		From:    gen.NewAddressTextAddress("Shop <shop@example.com>"),
		To:      gen.NewNamedAddressSendRequestTo(gen.NamedAddress{Email: "ann@example.org"}),
		Subject: gen.NewOptNilString("Your order"), Text: gen.NewOptNilString("It is on its way."),
	}
	res, err := c.Send(ctx, mail, gen.SendParams{IdempotencyKey: gen.NewOptString("order-ogen")})
	if err != nil {
		return err
	}
	sent, ok := res.(*gen.SendResultHeaders)
	if !ok {
		return fmt.Errorf("send: %+v", res)
	}
	mail.To = gen.NewAddressTextSendRequestTo("nobody")
	res, err = c.Send(ctx, mail, gen.SendParams{})
	if p, ok := res.(*gen.Problem); err != nil || !ok || p.Code != "invalid" {
		return fmt.Errorf("send to nobody: %+v, %w", res, err)
	}
	item, err := mail.MarshalJSON()
	if err != nil {
		return err
	}
	results, err := c.SendBatch(ctx, &gen.BatchRequest{Messages: []jx.Raw{item}}, gen.SendBatchParams{})
	if b, ok := results.(*gen.BatchResult); err != nil || !ok || b.Results[0].BatchError.Error.Status != 422 {
		return fmt.Errorf("batch to nobody: %+v, %w", results, err)
	}
	id := uuid.UUID(sent.Response.ID).String()
	for {
		shown, err := c.GetMessage(ctx, gen.GetMessageParams{ID: id})
		if err != nil {
			return err
		}
		m, ok := shown.(*gen.MessageDetail)
		if !ok {
			return fmt.Errorf("show: %+v", shown)
		}
		if m.Status == gen.StatusSent || m.Status == gen.StatusDelivered {
			fmt.Println(id, m.Status, len(m.Attempts), m.Text.Value)
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}
