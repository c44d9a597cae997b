package dash

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"math"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

//go:embed templates
var templateFiles embed.FS

// parsePages parses each page together with the parts that pages share.
func parsePages() (map[string]*template.Template, error) {
	entries, err := templateFiles.ReadDir("templates")
	if err != nil {
		return nil, err
	}
	pages := map[string]*template.Template{}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), path.Ext(e.Name()))
		if name == "parts" {
			continue
		}
		t, err := template.New(e.Name()).Funcs(helpers).ParseFS(templateFiles, "templates/parts.html", "templates/"+e.Name())
		if err != nil {
			return nil, fmt.Errorf("page %s: %w", name, err)
		}
		pages[name] = t.Lookup(e.Name())
	}
	return pages, nil
}

var helpers = template.FuncMap{
	"static": func(name string) string { return "/dash/static/" + hashed[name] },
	"stamp":  stamp, "iso": iso, "since": since, "tone": tone, "pretty": pretty, "share": percent, "list": strings.Join,
	"ms": millis, "bounces": bounces, "quantiles": quantiles, "pick": func(pairs ...any) map[string]any { return picked(pairs) },
	"figure": func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) },
	"part":   func(n int, of float64) float64 { return float64(n) * of },
	"weight": func(w float64) string { return strconv.FormatFloat(w, 'f', -1, 64) },
}

// picked makes the argument of a part from names and values.
func picked(pairs []any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m
}

// moment returns the time in a time.Time or in a *time.Time, the zero time for nil.
func moment(v any) time.Time {
	switch t := v.(type) {
	case time.Time:
		return t.UTC()
	case *time.Time:
		if t != nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

func stamp(v any) string {
	t := moment(v)
	if t.IsZero() {
		return "–"
	}
	return t.Format("2006-01-02 15:04:05")
}

func iso(v any) string { return moment(v).Format(time.RFC3339) }

// since says how far a time is from now: "3 min ago", "in 2 h".
func since(now time.Time, v any) string {
	t := moment(v)
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

// span rounds a duration to its largest unit.
func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int(math.Round(d.Seconds()))) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(math.Round(d.Minutes()))) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(math.Round(d.Hours()))) + " h"
	}
	return strconv.Itoa(int(math.Round(d.Hours()/24))) + " days"
}

func millis(v any) string {
	r := reflect.Indirect(reflect.ValueOf(v))
	if !r.IsValid() || !r.CanInt() {
		return "–"
	}
	switch n := r.Int(); {
	case n < 1000:
		return strconv.FormatInt(n, 10) + " ms"
	case n < 120_000:
		return strconv.FormatFloat(float64(n)/1000, 'f', 1, 64) + " s"
	default:
		return span(time.Duration(n) * time.Millisecond)
	}
}

// bounces adds up the bounces of all classes, and names those that there are.
func bounces(byClass map[string]int64) string {
	var sum int64
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(byClass)) {
		if n := byClass[class]; n > 0 {
			sum += n
			parts = append(parts, strconv.FormatInt(n, 10)+" "+class)
		}
	}
	if sum == 0 {
		return "0"
	}
	return strconv.FormatInt(sum, 10) + " (" + strings.Join(parts, ", ") + ")"
}

// quantiles formats a latency; 0 means that nothing was measured.
func quantiles(q api.Quantiles) string {
	if q.P95 == 0 {
		return "–"
	}
	return millis(q.P50) + " / " + millis(q.P95)
}

// percent formats a part of a whole, 0 to 1.
func percent(f float64) string { return strconv.FormatFloat(100*f, 'f', 1, 64) + " %" }

// tone is the class of a word of the API: good, busy, bad, or none.
func tone(word string) string {
	switch word {
	case "sent", "delivered", "accepted", "active", "opened", "clicked":
		return "good"
	case "queued", "scheduled", "sending", "deferred", "throttled", "transient", "paused", "draining", "invited", "unknown", "uncertain", "retry":
		return "busy"
	case "failed", "failed_unknown", "bounced", "complained", "rejected", "parked", "bad_recipient", "misconfigured", "endpoint_disabled", "disabled":
		return "bad"
	}
	return ""
}

// pretty indents JSON; other text stays as it is.
func pretty(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}
