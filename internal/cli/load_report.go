package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sendgate/sendgate/api"
)

// loadResult is the output of load; the JSON names are its --json form.
type loadResult struct {
	Tag            string           `json:"tag"`
	Accepted       int64            `json:"accepted"`
	Failed         int64            `json:"failed"`
	Errors         map[string]int64 `json:"errors"`
	Seconds        float64          `json:"seconds"`
	AcceptedPerSec float64          `json:"accepted_per_second"`
	Calls          uint64           `json:"calls"`
	LatencyMS      latencies        `json:"latency_ms"`
	Drain          *drainResult     `json:"drain,omitempty"`
	Interrupted    bool             `json:"interrupted,omitempty"`
}

type latencies struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// drainResult says how fast the queue sent the accepted messages. Sent counts the messages that left the queue, with any
// result. FailedSeen is how many of them ended as failed, counted up to 200.
type drainResult struct {
	Sent       int64   `json:"sent"`
	SentPerSec float64 `json:"sent_per_second"`
	Seconds    float64 `json:"seconds"` // from the first call until the queue was empty
	Left       int64   `json:"left"`
	Unknown    int64   `json:"unknown"`
	FailedSeen int     `json:"failed_seen"`
	TimedOut   bool    `json:"timed_out,omitempty"`
}

func (g *generator) result(took time.Duration) *loadResult {
	g.mu.Lock()
	defer g.mu.Unlock()
	ms := func(q float64) float64 { return float64(g.latency.quantile(q).Microseconds()) / 1000 }
	return &loadResult{
		Tag: g.plan.tag, Accepted: g.accepted.Load(), Failed: g.failed.Load(), Errors: maps.Clone(g.errors),
		Seconds: took.Seconds(), AcceptedPerSec: float64(g.accepted.Load()) / max(took.Seconds(), 1e-9),
		Calls: g.latency.count, LatencyMS: latencies{P50: ms(.5), P90: ms(.9), P95: ms(.95), P99: ms(.99), Max: ms(1)},
	}
}

func (r *loadResult) print(s *Streams, asJSON bool) error {
	if asJSON {
		return printJSON(s.Out, r)
	}
	t := tabwriter.NewWriter(s.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "accepted\t%d messages in %.1f s\n", r.Accepted, r.Seconds)
	fmt.Fprintf(t, "rate\t%.1f accepted/s\n", r.AcceptedPerSec)
	fmt.Fprintf(t, "latency\tp50 %.1f  p90 %.1f  p95 %.1f  p99 %.1f  max %.1f ms, %d calls\n", r.LatencyMS.P50, r.LatencyMS.P90,
		r.LatencyMS.P95, r.LatencyMS.P99, r.LatencyMS.Max, r.Calls)
	fmt.Fprintf(t, "errors\t%s\n", errorList(r.Errors))
	if d := r.Drain; d != nil {
		fmt.Fprintf(t, "sent\t%d messages left the queue in %.1f s: %.1f sent/s\n", d.Sent, d.Seconds, d.SentPerSec)
		fmt.Fprintf(t, "ended badly\t%s\n", d.failures())
	}
	fmt.Fprintf(t, "tag\t%s\n", r.Tag)
	return flush(t)
}

func (d *drainResult) failures() string {
	failed := fmt.Sprint(d.FailedSeen)
	if d.FailedSeen >= maxPage {
		failed += " or more"
	}
	return fmt.Sprintf("%s failed, %d unknown, %d still waiting", failed, d.Unknown, d.Left)
}

// errorList returns "none", or a list such as "429: 12, timeout: 3".
func errorList(errs map[string]int64) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(errs)) {
		parts = append(parts, fmt.Sprintf("%s: %d", kind, errs[kind]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// progressLine returns a function for the progress line. Its rate is that since the last line.
func (g *generator) progressLine() func(since time.Duration) string {
	var last int64
	return func(since time.Duration) string {
		now := g.accepted.Load()
		rate := float64(now-last) / since.Seconds()
		last = now
		return fmt.Sprintf("%d accepted, %.0f/s, %d errors", now, rate, g.failed.Load())
	}
}

// maxPage is the longest page of a listing.
const maxPage = 200

// queueWatch has the figures of the queue before the load, so that drain does not wait for messages that were scheduled or
// unknown then.
type queueWatch struct {
	read      func(context.Context) (*api.Queue, error)
	failed    func(context.Context, string) (int, error)
	scheduled int64
	unknown   int64
}

// drain polls until the messages of the load have left the queue, and adds the figures to the result.
func (q *queueWatch) drain(ctx context.Context, progress io.Writer, began time.Time, r *loadResult) error {
	left, unknown := r.Accepted, int64(0) // until the first poll
	for reported := time.Now(); ; {
		now, err := q.read(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("read queue: %w", err)
		}
		if err == nil {
			left = now.Ready + now.Inflight + max(now.Scheduled-q.scheduled, 0)
			unknown = max(now.Unknown-q.unknown, 0)
		}
		if left == 0 && err == nil || !pause(ctx, 250*time.Millisecond) {
			break
		}
		if time.Since(reported) >= 5*time.Second {
			reported = time.Now()
			fmt.Fprintf(progress, "%d messages in the queue\n", left)
		}
	}
	took := time.Since(began).Seconds()
	sent := max(r.Accepted-left-unknown, 0)
	r.Drain = &drainResult{
		Sent: sent, SentPerSec: float64(sent) / max(took, 1e-9), Seconds: took, Left: left, Unknown: unknown, TimedOut: ctx.Err() != nil,
	}
	if r.Drain.TimedOut {
		return nil
	}
	seen, err := q.failed(ctx, r.Tag)
	if err != nil {
		return fmt.Errorf("count failed messages: %w", err)
	}
	r.Drain.FailedSeen = seen
	return nil
}
