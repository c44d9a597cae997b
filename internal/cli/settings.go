package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

// request builds a request from the flags that add and change share.
func (f *accountFlags) request(ctx context.Context, s *Streams) (api.AccountRequest, error) {
	req := api.AccountRequest{Concurrency: f.Concurrency}
	if len(f.Set) > 0 {
		settings, err := mergeSettings(nil, f.Set)
		if err != nil {
			return req, err
		}
		req.Settings = settings
	}
	if len(f.Secret) > 0 {
		secrets, err := readSecrets(ctx, s, f.Secret)
		if err != nil {
			return req, err
		}
		req.Secrets = secrets
	}
	return req, nil
}

// mergeSettings puts KEY=VALUE (text) and KEY:=JSON into a copy of the settings. The kind decides which keys exist.
func mergeSettings(old json.RawMessage, list []string) (json.RawMessage, error) {
	settings := map[string]json.RawMessage{}
	if len(old) > 0 {
		if err := json.Unmarshal(old, &settings); err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
	}
	for _, pair := range list {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || strings.TrimSuffix(key, ":") == "" {
			return nil, usagef("--set wants KEY=VALUE or KEY:=JSON, got %d characters without \"=\"", len(pair))
		}
		name, raw := strings.CutSuffix(key, ":")
		if !raw {
			quoted, err := json.Marshal(value)
			if err != nil {
				return nil, fmt.Errorf("setting %s: %w", name, err)
			}
			value = string(quoted)
		}
		if !json.Valid([]byte(value)) {
			return nil, usagef("--set %s:= wants JSON, such as 587, true or [\"a\"]", name)
		}
		settings[name] = json.RawMessage(value)
	}
	out, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	return out, nil
}

// parseLimits reads N/PER/UNIT. The server checks the ranges.
func parseLimits(list []string) ([]api.Limit, error) {
	limits := make([]api.Limit, 0, len(list))
	for _, text := range list {
		parts := strings.Split(text, "/")
		if len(parts) != 3 {
			return nil, usagef("a limit is N/PER/UNIT, such as 100/5m/requests, got %q", text)
		}
		n, err := strconv.Atoi(parts[0])
		if err != nil || n < 1 {
			return nil, usagef("limit %q: N must be a whole number from 1", text)
		}
		if _, err := time.ParseDuration(parts[1]); err != nil {
			return nil, usagef("limit %q: PER must be a time such as 1s, 5m or 24h", text)
		}
		limits = append(limits, api.Limit{N: n, Per: parts[1], Unit: parts[2]})
	}
	return limits, nil
}

// capabilities returns a line for each known capability. Of a list it gives only the length.
func capabilities(raw json.RawMessage) []string {
	var caps map[string]any
	if json.Unmarshal(raw, &caps) != nil {
		return nil
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(caps)) {
		label := strings.ReplaceAll(name, "_", " ")
		switch v := caps[name].(type) {
		case float64:
			if v != 0 {
				lines = append(lines, label+" "+strconv.FormatFloat(v, 'f', -1, 64))
			}
		case bool:
			lines = append(lines, label+" "+strconv.FormatBool(v))
		case []any:
			lines = append(lines, fmt.Sprintf("%s: %d (see --json)", label, len(v)))
		}
	}
	return lines
}
