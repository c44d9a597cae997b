package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The fault modes; the package comment says what each does.
const (
	ModeLatency        = "latency"
	ModeThrottle       = "throttle"
	ModeError          = "error"
	ModeDropBefore     = "drop_before"
	ModeAcceptThenDrop = "accept_then_drop"
	ModeAcceptThen500  = "accept_then_500"
	ModeBlackHole      = "black_hole"
	ModeSlow           = "slow"
	ModePartial        = "partial"

	modeLookupDelay = "lookup_delay"
	modeLookupEmpty = "lookup_empty"

	modeHookDuplicate    = "hook_duplicate"
	modeHookNewID        = "hook_new_id"
	modeHookDelay        = "hook_delay"
	modeHookShuffle      = "hook_shuffle"
	modeHookDrop         = "hook_drop"
	modeHookBadSignature = "hook_bad_signature"
	modeHookHold         = "hook_hold"
)

// The queues in which faults wait for each other: one for sends and one for look-ups. Each mode of events has its own queue,
// because one event may meet several.
const (
	queueSend   = "send"
	queueLookup = "lookup"
)

// The SMTP stages of an error.
const (
	StageMail = "mail"
	StageRcpt = "rcpt"
	StageData = "data"
)

// Fault is one line of a provider's script; see the package comment.
type Fault struct {
	Mode    string            `json:"mode"`
	Count   int               `json:"count"`           // number of requests that it applies to, 0 until deleted
	Match   string            `json:"match,omitempty"` // pattern for any recipient's address
	Latency Duration          `json:"latency,omitzero"`
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Seconds int               `json:"seconds,omitempty"` // throttle: how long from the first hit, 0..86400
	Stage   string            `json:"stage,omitempty"`   // SMTP error: mail, rcpt or data
	Path    string            `json:"path,omitempty"`    // "" or "send", or "lookup"
	Copies  int               `json:"copies,omitempty"`  // hook_duplicate: number of extra copies, 1..100, 0 is 1
	Hits    int               `json:"hits"`              // requests so far; shown only
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

// Limits of the numbers in a fault.
const (
	maxFaultCount   = 1_000_000_000
	maxFaultLatency = 10 * time.Minute
	maxFaultSeconds = 86_400
	maxFaultCopies  = 100
)

// checkFaults names the first error, and what is allowed there.
func (e *Emulator) checkFaults(all map[string][]Fault) error {
	for kind, list := range all {
		h, err := e.host(kind)
		if err != nil {
			return err
		}
		for i := range list {
			if err := list[i].check(h.kind); err != nil {
				return fmt.Errorf("%s[%d].%w", kind, i, err)
			}
		}
	}
	return nil
}

// modes lists the fault modes of the kind.
func (k *Kind) modes() []string {
	modes := []string{ModeLatency, ModeThrottle, ModeError, ModeDropBefore, ModeAcceptThenDrop, ModeBlackHole, ModeSlow}
	if !k.SMTP {
		modes = append(modes, ModeAcceptThen500)
	}
	if k.Partial != [2]int{} {
		modes = append(modes, ModePartial)
	}
	if k.Lookups {
		modes = append(modes, modeLookupDelay, modeLookupEmpty)
	}
	modes = append(modes, modeHookDuplicate, modeHookNewID, modeHookDelay, modeHookShuffle, modeHookDrop, modeHookBadSignature, modeHookHold)
	return append(modes, k.HookModes...)
}

func (f *Fault) isHook() bool { return strings.HasPrefix(f.Mode, "hook_") }

func (f *Fault) isLookup() bool { return f.Mode == modeLookupDelay || f.Mode == modeLookupEmpty }

// queue names the queue of faults in which it waits.
func (f *Fault) queue() string {
	switch {
	case f.isHook():
		return f.Mode
	case f.Path == "":
		return queueSend
	}
	return f.Path
}

// checkPath checks the path. It also sets the path of the modes that are only for look-ups.
func (f *Fault) checkPath(k *Kind) error {
	if f.isLookup() && f.Path == "" {
		f.Path = queueLookup
	}
	if f.Path == queueSend && !f.isHook() {
		f.Path = ""
	}
	both := []string{ModeLatency, ModeThrottle, ModeError}
	switch {
	case f.isLookup() && f.Path != queueLookup:
		return fmt.Errorf("path: mode %s is for %q only", f.Mode, queueLookup)
	case f.Path == "" || f.isLookup():
		return nil
	case f.Path != queueLookup || !slices.Contains(both, f.Mode):
		return fmt.Errorf("path: %q with mode %q; %q goes with %s", f.Path, f.Mode, queueLookup, strings.Join(both, ", "))
	case !k.Lookups:
		return fmt.Errorf("path: %s has no look-ups", k.Name)
	}
	return nil
}

// check names the first field that is not allowed for the kind and the mode. It also sets the path if the mode implies it.
func (f *Fault) check(k *Kind) error {
	latency := time.Duration(f.Latency)
	switch {
	case !slices.Contains(k.modes(), f.Mode):
		return fmt.Errorf("mode: %q is not one of %s", f.Mode, strings.Join(k.modes(), ", "))
	case f.Count < 0 || f.Count > maxFaultCount:
		return fmt.Errorf("count: %d is not in 0..%d", f.Count, maxFaultCount)
	case latency < 0 || latency > maxFaultLatency:
		return fmt.Errorf("latency: %s is not in 0s..%s", latency, maxFaultLatency)
	case (f.Mode == ModeLatency || f.Mode == modeHookDelay || f.Mode == modeLookupDelay) && latency == 0:
		return fmt.Errorf("latency: mode %s needs it, such as \"250ms\"", f.Mode)
	case f.isHook() && f.Mode != modeHookDelay && latency != 0:
		return fmt.Errorf("latency: is not for mode %s", f.Mode)
	case f.Copies != 0 && f.Mode != modeHookDuplicate || f.Copies < 0 || f.Copies > maxFaultCopies:
		return fmt.Errorf("copies: %d; 1..%d go with mode %s", f.Copies, maxFaultCopies, modeHookDuplicate)
	case f.Seconds < 0 || f.Seconds > maxFaultSeconds:
		return fmt.Errorf("seconds: %d is not in 0..%d", f.Seconds, maxFaultSeconds)
	case f.Seconds != 0 && f.Mode != ModeThrottle:
		return errors.New("seconds: is for mode throttle only")
	case f.Hits != 0:
		return errors.New("hits: is shown by GET and can't be set")
	}
	return cmp.Or(f.checkPath(k), f.checkAnswer(k), f.checkStage(k))
}

// checkAnswer checks the fields that depend on whether the mode answers at all.
func (f *Fault) checkAnswer(k *Kind) error {
	answers := []string{ModeError, ModeAcceptThen500, ModePartial}
	if !slices.Contains(answers, f.Mode) && (f.Status != 0 || f.Body != "" || len(f.Headers) != 0) {
		return fmt.Errorf("status, headers, body: are for modes %s only", strings.Join(answers, ", "))
	}
	lo, hi := 400, 599
	switch {
	case f.Mode == ModePartial:
		lo, hi = k.Partial[0], k.Partial[1]
	case f.Mode == ModeError && f.Status == 0:
		return fmt.Errorf("status: mode error needs one in %d..%d", lo, hi)
	}
	if f.Status != 0 && (f.Status < lo || f.Status > hi) {
		return fmt.Errorf("status: %d is not in %d..%d", f.Status, lo, hi)
	}
	if len(f.Headers) > 0 && (k.SMTP || f.Mode == ModePartial) {
		return errors.New("headers: are for HTTP errors only")
	}
	for name, value := range f.Headers {
		if !ValidHeader(name, value) {
			return fmt.Errorf("headers: %q is not a valid header", name)
		}
	}
	if k.SMTP && strings.ContainsAny(f.Body, "\r\n\x00") {
		return errors.New("body: an SMTP reply is one line")
	}
	return nil
}

// checkStage checks the stage, which only SMTP errors have.
func (f *Fault) checkStage(k *Kind) error {
	stages := []string{StageMail, StageRcpt, StageData}
	needs := k.SMTP && f.Mode == ModeError
	switch {
	case needs && !slices.Contains(stages, f.Stage):
		return fmt.Errorf("stage: %q is not one of %s", f.Stage, strings.Join(stages, ", "))
	case !needs && f.Stage != "":
		return errors.New("stage: is for mode error of smtp only")
	case f.Stage == StageMail && f.Match != "":
		return errors.New("match: no recipient is known at stage mail")
	}
	return nil
}

// Matches reports whether any of the addresses fits the pattern.
func (f *Fault) Matches(to []string) bool {
	return f.Match == "" || slices.ContainsFunc(to, func(addr string) bool {
		return glob(strings.ToLower(f.Match), strings.ToLower(addr))
	})
}

// glob matches s against a pattern, in which only * is special: it stands for any sequence of characters.
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
