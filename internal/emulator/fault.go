package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The fault modes; the package comment tells what each does.
const (
	modeLatency        = "latency"
	modeThrottle       = "throttle"
	modeError          = "error"
	modeDropBefore     = "drop_before"
	modeAcceptThenDrop = "accept_then_drop"
	modeAcceptThen500  = "accept_then_500"
	modeBlackHole      = "black_hole"
	modeSlow           = "slow"
	modePartial        = "partial"
)

// The modes that meet events on their way to a hook.
const (
	modeHookDuplicate    = "hook_duplicate"
	modeHookNewID        = "hook_new_id"
	modeHookDelay        = "hook_delay"
	modeHookShuffle      = "hook_shuffle"
	modeHookDrop         = "hook_drop"
	modeHookBadSignature = "hook_bad_signature"
	modeHookHold         = "hook_hold"
	modeHookSignatureV1  = "hook_signature_v1" // SES only
)

func hookModes() []string {
	return []string{
		modeHookDuplicate, modeHookNewID, modeHookDelay, modeHookShuffle, modeHookDrop, modeHookBadSignature, modeHookHold,
		modeHookSignatureV1,
	}
}

// The modes that meet look-ups alone, and the path of the others that do.
const (
	modeLookupDelay = "lookup_delay"
	modeLookupEmpty = "lookup_empty"
	pathLookup      = "lookup"
)

// The SMTP stages of an error.
const (
	stageMail = "mail"
	stageRcpt = "rcpt"
	stageData = "data"
)

// Fault is one line of a provider's script; see the package comment.
type Fault struct {
	Mode    string            `json:"mode"`
	Count   int               `json:"count"`           // requests it meets, 0 until deleted
	Match   string            `json:"match,omitempty"` // pattern for any recipient's address
	Latency Duration          `json:"latency,omitzero"`
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Seconds int               `json:"seconds,omitempty"` // throttle: how long from the first hit, 0..86400
	Stage   string            `json:"stage,omitempty"`   // SMTP error: mail, rcpt or data
	Path    string            `json:"path,omitempty"`    // "" or "send", or "lookup"
	Copies  int               `json:"copies,omitempty"`  // hook_duplicate: how many more, 1..100, 0 is 1
	Hits    int               `json:"hits"`              // requests met so far; only told, never taken
}

// Duration is a time.Duration written as "250ms".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as \"250ms\" or \"10s\"", b)
	}
	*d = Duration(v)
	return nil
}

// Ranges of a fault's numbers.
const (
	maxFaultCount   = 1_000_000_000
	maxFaultLatency = 10 * time.Minute
	maxFaultSeconds = 86_400
	maxFaultCopies  = 100
	maxScriptBytes  = 1 << 20
)

// decodeScript reads the body of PUT /_faults strictly.
func decodeScript(r io.Reader) (map[string][]Fault, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxScriptBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read faults: %w", err)
	}
	if len(body) > maxScriptBytes {
		return nil, fmt.Errorf("faults are over %d bytes", maxScriptBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	var all map[string][]Fault
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("faults are {\"<provider>\": [{\"mode\": ...}]}: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("faults are followed by more data")
	}
	return all, checkScript(all)
}

// checkScript names the first thing that is wrong, and what is allowed there.
func checkScript(all map[string][]Fault) error {
	for kind, list := range all {
		if !slices.Contains(kinds(), kind) {
			return fmt.Errorf("provider %q is not one of %s", kind, strings.Join(kinds(), ", "))
		}
		for i := range list {
			if err := list[i].check(kind); err != nil {
				return fmt.Errorf("%s[%d].%w", kind, i, err)
			}
		}
	}
	return nil
}

func modesOf(kind string) []string {
	modes := []string{modeLatency, modeThrottle, modeError, modeDropBefore, modeAcceptThenDrop, modeBlackHole, modeSlow}
	if kind != kindSMTP {
		modes = append(modes, modeAcceptThen500)
	}
	if kind == kindSMTP || kind == kindPostmark {
		modes = append(modes, modePartial)
	}
	if looksUp(kind) {
		modes = append(modes, modeLookupDelay, modeLookupEmpty)
	}
	for _, m := range hookModes() {
		if m != modeHookSignatureV1 || kind == kindSES {
			modes = append(modes, m)
		}
	}
	return modes
}

// looksUp tells the providers that have an API to look up messages.
func looksUp(kind string) bool {
	return kind == kindSendGrid || kind == kindMailgun || kind == kindPostmark
}

func (f *Fault) isHook() bool { return strings.HasPrefix(f.Mode, "hook_") }

func (f *Fault) isLookup() bool { return f.Mode == modeLookupDelay || f.Mode == modeLookupEmpty }

// checkPath also completes the path of the modes that are for look-ups alone.
func (f *Fault) checkPath(kind string) error {
	if f.isLookup() && f.Path == "" {
		f.Path = pathLookup
	}
	if f.Path == momentSend && !f.isHook() {
		f.Path = ""
	}
	both := []string{modeLatency, modeThrottle, modeError}
	switch {
	case f.isLookup() && f.Path != pathLookup:
		return fmt.Errorf("path: mode %s is for %q only", f.Mode, pathLookup)
	case f.Path == "" || f.isLookup():
		return nil
	case f.Path != pathLookup || !slices.Contains(both, f.Mode):
		return fmt.Errorf("path: %q with mode %q; %q goes with %s", f.Path, f.Mode, pathLookup, strings.Join(both, ", "))
	case !looksUp(kind):
		return fmt.Errorf("path: %s has no look-ups", kind)
	}
	return nil
}

func (f *Fault) check(kind string) error {
	latency := time.Duration(f.Latency)
	switch {
	case !slices.Contains(modesOf(kind), f.Mode):
		return fmt.Errorf("mode: %q is not one of %s", f.Mode, strings.Join(modesOf(kind), ", "))
	case f.Count < 0 || f.Count > maxFaultCount:
		return fmt.Errorf("count: %d is not in 0..%d", f.Count, maxFaultCount)
	case latency < 0 || latency > maxFaultLatency:
		return fmt.Errorf("latency: %s is not in 0s..%s", latency, maxFaultLatency)
	case (f.Mode == modeLatency || f.Mode == modeHookDelay || f.Mode == modeLookupDelay) && latency == 0:
		return fmt.Errorf("latency: mode %s needs it, such as \"250ms\"", f.Mode)
	case f.isHook() && f.Mode != modeHookDelay && latency != 0:
		return fmt.Errorf("latency: is not for mode %s", f.Mode)
	case f.Copies != 0 && f.Mode != modeHookDuplicate || f.Copies < 0 || f.Copies > maxFaultCopies:
		return fmt.Errorf("copies: %d; 1..%d go with mode %s", f.Copies, maxFaultCopies, modeHookDuplicate)
	case f.Seconds < 0 || f.Seconds > maxFaultSeconds:
		return fmt.Errorf("seconds: %d is not in 0..%d", f.Seconds, maxFaultSeconds)
	case f.Seconds != 0 && f.Mode != modeThrottle:
		return errors.New("seconds: is for mode throttle only")
	case f.Hits != 0:
		return errors.New("hits: is told by GET and can't be set")
	}
	if err := f.checkPath(kind); err != nil {
		return err
	}
	if err := f.checkAnswer(kind); err != nil {
		return err
	}
	return f.checkStage(kind)
}

// checkAnswer checks what depends on whether the mode answers at all.
func (f *Fault) checkAnswer(kind string) error {
	answers := []string{modeError, modeAcceptThen500, modePartial}
	if !slices.Contains(answers, f.Mode) && (f.Status != 0 || f.Body != "" || len(f.Headers) != 0) {
		return fmt.Errorf("status, headers, body: are for modes %s only", strings.Join(answers, ", "))
	}
	lo, hi := 400, 599
	switch {
	case f.Mode == modePartial && kind == kindPostmark: // status is an ErrorCode
		lo, hi = 1, 9999
	case f.Mode == modeError && f.Status == 0:
		return fmt.Errorf("status: mode error needs one in %d..%d", lo, hi)
	}
	if f.Status != 0 && (f.Status < lo || f.Status > hi) {
		return fmt.Errorf("status: %d is not in %d..%d", f.Status, lo, hi)
	}
	if len(f.Headers) > 0 && (kind == kindSMTP || f.Mode == modePartial) {
		return errors.New("headers: are for HTTP errors only")
	}
	for name, value := range f.Headers {
		if !validHeaderName(name) || strings.ContainsAny(value, "\r\n\x00") {
			return fmt.Errorf("headers: %q is not a valid header", name)
		}
	}
	if kind == kindSMTP && strings.ContainsAny(f.Body, "\r\n\x00") {
		return errors.New("body: an SMTP reply is one line")
	}
	return nil
}

func validHeaderName(name string) bool {
	valid := func(r rune) bool {
		return strings.ContainsRune("!#$%&'*+-.^_`|~", r) || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	return name != "" && http.CanonicalHeaderKey(name) != "Content-Length" && strings.IndexFunc(name, func(r rune) bool { return !valid(r) }) < 0
}

func (f *Fault) checkStage(kind string) error {
	stages := []string{stageMail, stageRcpt, stageData}
	needs := kind == kindSMTP && f.Mode == modeError
	switch {
	case needs && !slices.Contains(stages, f.Stage):
		return fmt.Errorf("stage: %q is not one of %s", f.Stage, strings.Join(stages, ", "))
	case !needs && f.Stage != "":
		return errors.New("stage: is for mode error of smtp only")
	case f.Stage == stageMail && f.Match != "":
		return errors.New("match: no recipient is known at stage mail")
	}
	return nil
}

// matches reports whether any of the addresses fits the pattern.
func (f *Fault) matches(to []string) bool {
	return f.Match == "" || slices.ContainsFunc(to, f.matchesOne)
}

func (f *Fault) matchesOne(addr string) bool {
	return glob(strings.ToLower(f.Match), strings.ToLower(addr))
}

// glob matches s against a pattern in which * stands for any run of characters and nothing else is special.
func glob(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for star {
		head, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, head)
		}
		i := strings.Index(s, head)
		if i < 0 {
			return false
		}
		s = s[i+len(head):]
	}
	return s == ""
}
