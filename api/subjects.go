package api

import (
	"context"
	"encoding/json"
	"net/http"
)

// SubjectRequest names a person by address, and optionally one tenant. Cursor continues an export.
type SubjectRequest struct {
	Address string `json:"address"`
	Tenant  string `json:"tenant,omitempty"`
	Cursor  string `json:"cursor,omitempty"`
}

// SubjectErasure is a step of an erasure. CancelWaiting cancels messages that wait; without it they refuse the erasure.
type SubjectErasure struct {
	Address       string `json:"address"`
	Tenant        string `json:"tenant,omitempty"`
	Cursor        string `json:"cursor,omitempty"`
	CancelWaiting bool   `json:"cancel_waiting,omitempty"`
}

// SubjectCount is what is stored about an address.
type SubjectCount struct {
	Messages     int              `json:"messages"`
	Open         int              `json:"open"` // those of them that wait, are being sent, or have no known outcome
	Suppressions int              `json:"suppressions"`
	Events       int              `json:"events"` // that belong to no message
	Accounts     []SubjectAccount `json:"accounts"`
}

// SubjectAccount says what a provider keeps that was asked to send messages to an address, and how to erase it there.
type SubjectAccount struct {
	Account  string   `json:"account"`
	Kind     string   `json:"kind"`
	Messages int      `json:"messages"`
	Keeps    string   `json:"keeps"`
	Erase    string   `json:"erase"`
	Sources  []string `json:"sources"`
	Read     string   `json:"read"` // the day on which the sources were read
}

// SubjectPage is one page of an export. Cursor is empty at the end.
type SubjectPage struct {
	Data   []SubjectRow `json:"data"`
	Cursor string       `json:"cursor,omitempty"`
}

// SubjectRow is one row as it is stored.
type SubjectRow struct {
	Kind string          `json:"kind"`
	Row  json.RawMessage `json:"row"`
}

// SubjectErased is what a step of an erasure did. Cursor is empty at the end.
type SubjectErased struct {
	Cancelled int    `json:"cancelled"` // messages that were cancelled, or go without the address
	Messages  int    `json:"messages"`
	Events    int    `json:"events"`
	Open      int    `json:"open"` // messages that were left because they are open
	Cursor    string `json:"cursor,omitempty"`
}

// CountSubject counts what is stored about an address.
func (c *Client) CountSubject(ctx context.Context, r SubjectRequest) (*SubjectCount, error) {
	return into[SubjectCount](ctx, c, call{method: http.MethodPost, path: admin + "/subjects/count", body: r})
}

// ExportSubject returns one page of what is stored about an address.
func (c *Client) ExportSubject(ctx context.Context, r SubjectRequest) (*SubjectPage, error) {
	return into[SubjectPage](ctx, c, call{method: http.MethodPost, path: admin + "/subjects/export", body: r})
}

// EraseSubject does one step of an erasure.
func (c *Client) EraseSubject(ctx context.Context, r SubjectErasure) (*SubjectErased, error) {
	return into[SubjectErased](ctx, c, call{method: http.MethodPost, path: admin + "/subjects/erase", body: r})
}
