package api

import (
	"context"
	"net/http"
	"time"
)

// BulkRequest is the body of POST /admin/v1/messages/bulk: an action on all messages that match a filter. First send it with
// DryRun, which counts; then with the Cursor of the answer, page by page, until there is none.
type BulkRequest struct {
	Action string `json:"action"` // cancel, fail, requeue, resend

	Tenant  string    `json:"tenant,omitempty"` // absent: all tenants
	Status  string    `json:"status,omitempty"`
	To      string    `json:"to,omitempty"`
	From    string    `json:"from,omitempty"`
	Tag     string    `json:"tag,omitempty"`
	Stream  string    `json:"stream,omitempty"`
	Account string    `json:"account,omitempty"`
	Since   time.Time `json:"since,omitzero"` // accepted at this time or later
	Until   time.Time `json:"until,omitzero"` // accepted before this time
	All     bool      `json:"all,omitempty"`  // required if there is no filter

	Force  bool   `json:"force,omitempty"` // also messages that a provider may have sent
	DryRun bool   `json:"dry_run,omitempty"`
	Cursor string `json:"cursor,omitempty"`
}

// BulkResult is one page of a BulkRequest.
type BulkResult struct {
	Matched   int    `json:"matched"`            // by the dry run
	AtLeast   bool   `json:"at_least,omitempty"` // there are more than Matched
	Done      int    `json:"done"`               // in this page
	MaybeSent int    `json:"maybe_sent"`         // left alone in this page: a provider may have sent them, and there is no Force
	Skipped   int    `json:"skipped"`            // left alone in this page, because their state changed
	Cursor    string `json:"cursor,omitempty"`   // absent: done
}

// Bulk does one page of an action on many messages, or counts them. A page that failed can be repeated.
func (c *Client) Bulk(ctx context.Context, r BulkRequest) (*BulkResult, error) {
	return into[BulkResult](ctx, c, call{method: http.MethodPost, path: admin + "/messages/bulk", body: r})
}
