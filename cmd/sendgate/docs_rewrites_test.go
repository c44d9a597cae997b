//go:build drill

package main

import "regexp"

// rewrites replace values in a block that a document can't know: an id that exists, an address that is free, a load that
// ends.
var rewrites = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`go run \./cmd/sendgate `), "sendgate "},
	{regexp.MustCompile(`(messages show|route explain) [0-9a-f-]{36}`), "$1 $$SENT"},
	{regexp.MustCompile(`(messages cancel) [0-9a-f-]{36}`), "$1 $$SCHEDULED"},
	{regexp.MustCompile(`(messages resend) [0-9a-f-]{36}`), "$1 $$FAILED"},
	{regexp.MustCompile(`(webhooks [a-z]+) [0-9a-f-]{36}`), "$1 $$ENDPOINT"},
	{regexp.MustCompile(`(keys (?:change|rotate|revoke)) [0-9a-f]{8}`), "$1 $$KEYID"},
	{regexp.MustCompile(`--messages [0-9]+ --batch 100`), "--messages 20 --batch 10"},
	{regexp.MustCompile(`--duration 1m --rate 500`), "--duration 1s --rate 20"},
	{regexp.MustCompile(`sendgate emulate`), "sendgate emulate --listen 127.0.0.1:0 --smtp-listen 127.0.0.1:0"},
	{regexp.MustCompile(`postgres://sendgate@db/sendgate`), "$$DATABASE"},
	{regexp.MustCompile(`/run/secrets/sendgate`), "$$SECRETFILE"},
	{regexp.MustCompile(`https://send\.example\.com`), "$$HERE"},
	{regexp.MustCompile(`https://ops\.example\.com/sendgate`), "$$RECEIVER"},
	{regexp.MustCompile(`(?m)(--secret [a-z_]+)( |$)`), "$1=env:ASKED$2"}, // no terminal is there to ask for it
	{regexp.MustCompile(`(?m)(sendgate restore --since \S+)$`), "$1 --yes"},
	{regexp.MustCompile(`MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\.\.\.`), publicKey},
	{regexp.MustCompile(`(?m)^(curl -N .*)$`), "$1 | head -n 5"},
}

// publicKey replaces a key that a document shows only in part.
const publicKey = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEHGDgc7nkP+PN59tPYQAqrMX55nBwBhKPQD+5tXM4mzQLueoBD3cUvu+5Ud+8d7lmyJgbNSwXdIgOuViRrdYq9Q=="
