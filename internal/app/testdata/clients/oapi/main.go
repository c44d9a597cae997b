// Command oapi sends a mail with the client that oapi-codegen generates from the contract, and reads it back.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"example.com/clients/oapi/gen"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	bearer := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+os.Getenv("SENDGATE_API_KEY"))
		return nil
	}
	c, err := gen.NewClientWithResponses(os.Getenv("SENDGATE_URL"), gen.WithRequestEditorFn(bearer))
	if err != nil {
		return err
	}
	key, subject, text := "order-oapi", "Your order", "It is on its way."
	mail := gen.SendRequest{Subject: &subject, Text: &text}
	if err := mail.From.FromAddressText("Shop <shop@example.com>"); err != nil {
		return err
	}
	if err := mail.To.FromNamedAddress(gen.NamedAddress{Email: "ann@example.org"}); err != nil {
		return err
	}
	sent, err := c.SendWithResponse(ctx, &gen.SendParams{IdempotencyKey: &key}, mail)
	if err != nil {
		return err
	}
	if sent.JSON202 == nil {
		return fmt.Errorf("send: %s %s", sent.Status(), sent.Body)
	}
	if err := mail.To.FromAddressText("nobody"); err != nil {
		return err
	}
	refused, err := c.SendWithResponse(ctx, &gen.SendParams{}, mail)
	if err != nil {
		return err
	}
	if p := refused.ApplicationproblemJSON422; p == nil || p.Code != "invalid" {
		return fmt.Errorf("send to nobody: %s %s", refused.Status(), refused.Body)
	}
	batch, err := c.SendBatchWithResponse(ctx, nil, gen.BatchRequest{Messages: []any{mail}})
	if err != nil {
		return err
	}
	if batch.JSON202 == nil {
		return fmt.Errorf("batch: %s %s", batch.Status(), batch.Body)
	}
	if item, err := batch.JSON202.Results[0].AsBatchError(); err != nil || item.Error.Status != 422 {
		return fmt.Errorf("batch to nobody: %s %v", batch.Body, err)
	}
	for {
		shown, err := c.GetMessageWithResponse(ctx, sent.JSON202.Id.String())
		if err != nil {
			return err
		}
		m := shown.JSON200
		if m == nil {
			return fmt.Errorf("show: %s %s", shown.Status(), shown.Body)
		}
		if m.Status == gen.StatusSent || m.Status == gen.StatusDelivered {
			fmt.Println(m.Id, m.Status, len(m.Attempts), *m.Text)
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}
