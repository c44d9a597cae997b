package cli

import "testing"

func TestShowTellsTheMessageIDOfEachAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET /v1/messages/" + someID: {200, nil, `{"id":"` + someID + `","status":"sent","from":{"email":"a@example.com"},
		"attempts":[{"n":1,"account":"ses-eu","provider":"ses","class":"accepted","started_at":"2026-11-30T10:00:00Z",
		"provider_message_id":"0102","message_id_header":"<0102@eu-west-1.amazonses.com>"}],"events":[]}`}})
	w.run("messages", "show", someID).want(t, 0, "Message-ID: <0102@eu-west-1.amazonses.com>", "")
}
