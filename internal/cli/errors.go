package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/sendgate/sendgate/api"
)

// usageError is a mistake in the command line: exit code 2.
type usageError struct{ text string }

// Error implements error.
func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errShown ends a command with exit code 1 after it has printed why.
var errShown = errors.New("already shown")

var (
	errNoAPIKey = errors.New("no API key: set SENDGATE_API_KEY, or run this where \"sendgate dev\" left ./" + devEnv +
		" (make a key: sendgate keys create NAME --scope send,read)")
	errNoServer = errors.New("no server to talk to: set SENDGATE_URL (and SENDGATE_API_KEY or SENDGATE_ADMIN_KEY), " +
		"or run this in the directory where \"sendgate dev\" runs, which leaves them in ./" + devEnv)
	errNoAdminKey = errors.New("no admin key: set SENDGATE_ADMIN_KEY, or run this where \"sendgate dev\" left ./" + devEnv)
)

// parseError turns an error of kong into a usage error that names the help to read.
func parseError(err error) error {
	var wrong *usageError
	if errors.As(err, &wrong) { // of a command's Validate
		return wrong
	}
	help := "sendgate --help"
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil && parse.Context.Selected() != nil {
		help = parse.Context.Selected().FullPath() + " --help"
	}
	return usagef("%v (see %s)", err, help)
}

// fail prints an error and a hint, and returns the exit code.
func fail(s Streams, err error) int {
	var wrong *usageError
	if errors.As(err, &wrong) {
		fmt.Fprintln(s.Err, "sendgate:", clean(wrong.text))
		return exitUsage
	}
	if errors.Is(err, errShown) {
		return exitFailed
	}
	var problem *api.Problem
	if errors.As(err, &problem) {
		printProblem(s, problem)
		return exitFailed
	}
	for _, line := range problems(err) {
		fmt.Fprintln(s.Err, "sendgate:", oneLine(line))
	}
	if hint := connectionHint(err); hint != "" {
		fmt.Fprintln(s.Err, "  ", hint)
	}
	return exitFailed
}

// problems returns one line for each of several joined errors. An error that wraps two in one text stays whole.
func problems(err error) []string {
	lines := splitErrors(err)
	if strings.Join(lines, "\n") != err.Error() {
		return []string{err.Error()}
	}
	return lines
}

// connectionHint says what to do if a sendgate server gave no answer at all. Errors of other connections, such as those to
// the database, contain their own hint.
func connectionHint(err error) string {
	var call *url.Error
	var dns *net.DNSError
	switch {
	case !errors.As(err, &call):
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens there. Is the server running? To start one for a trial: sendgate dev"
	case errors.As(err, &dns):
		return "The host name of SENDGATE_URL can't be found."
	case errors.Is(err, context.DeadlineExceeded):
		return "The server did not answer in time. Look at its log and at: sendgate queue"
	default:
		return ""
	}
}

// printProblem prints an API error: title and detail, each field, then what to do.
func printProblem(s Streams, p *api.Problem) {
	line := p.Title
	if p.Detail != "" {
		line += ": " + p.Detail
	}
	if line == "" {
		line = fmt.Sprintf("status %d", p.Status)
	}
	fmt.Fprintln(s.Err, "sendgate:", clean(line))
	for _, f := range p.Errors {
		fmt.Fprintf(s.Err, "   %s: %s\n", clean(f.Field), clean(f.Message))
	}
	if advice := adviceFor(p); advice != "" {
		fmt.Fprintln(s.Err, "  ", advice)
	}
	if p.RequestID != "" && p.Status >= 500 {
		fmt.Fprintln(s.Err, "   request", clean(p.RequestID), "(the server's log has the cause under this id)")
	}
}

// adviceFor says what a person can do about a status.
func adviceFor(p *api.Problem) string {
	switch status := p.Status; {
	case status == 401:
		return "Check SENDGATE_API_KEY (or SENDGATE_ADMIN_KEY for operations). The key may be revoked or expired, or it may belong to another server."
	case status == 403:
		return "This key may not do that. \"sendgate keys list\" shows scopes and sender domains; keys create makes another key."
	case status == 412:
		return "Somebody else changed it meanwhile. Look at it again and repeat the command."
	case status == 422 && len(p.Errors) > 0:
		return "Correct " + fieldList(p.Errors) + " and repeat the command. Nothing was changed."
	case (status == 429 || status == 503) && p.RetryAfter > 0:
		return "Repeat the command after " + shortDuration(p.RetryAfter) + "."
	default:
		return ""
	}
}

func fieldList(fields []api.FieldProblem) string {
	names := make([]string, 0, len(fields))
	for _, f := range fields {
		names = append(names, f.Field)
	}
	return clean(strings.Join(names, ", "))
}
