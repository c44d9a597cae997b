package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// unknown returns an error for each unknown SENDGATE_ variable: without it, a misspelt setting would silently keep its
// default.
func unknown(values map[string]string) []error {
	known := append(names(), Elsewhere()...)
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !strings.HasPrefix(name, Prefix) || slices.Contains(known, name) || serviceLink(name, values[name]) {
			continue
		}
		if near := nearest(name, known); near != "" {
			problems = append(problems, fmt.Errorf("%s: unknown setting; did you mean %s?", name, near))
			continue
		}
		problems = append(problems, fmt.Errorf("%s: unknown setting; unset it", name))
	}
	return problems
}

// serviceLink reports whether Kubernetes made the variable. A Service named sendgate gives every pod of its namespace
// SENDGATE_SERVICE_HOST, SENDGATE_SERVICE_PORT_…, SENDGATE_PORT=tcp://… and SENDGATE_PORT_8025_TCP_… (Kubernetes
// documentation, "Accessing the Service", environment variables).
func serviceLink(name, value string) bool {
	if strings.HasSuffix(name, "_PORT") && !strings.HasSuffix(name, "_SERVICE_PORT") {
		for _, scheme := range []string{"tcp://", "udp://", "sctp://"} {
			if strings.HasPrefix(value, scheme) {
				return true
			}
		}
	}
	link := regexp.MustCompile(`^SENDGATE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	return link.MatchString(name)
}

// nearest returns the known name that differs from name by a typing error or a missing last word, or "".
func nearest(name string, known []string) string {
	best, at := "", len(name)
	for _, k := range known {
		d := distance(name, k)
		if strings.HasPrefix(k, name+"_") {
			d = 1
		}
		if d < at || d == at && len(k) < len(best) {
			best, at = k, d
		}
	}
	if at > max(2, (len(name)-len(Prefix))/3) {
		return ""
	}
	return best
}

// distance counts the insertions, deletions and replacements between two names (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
