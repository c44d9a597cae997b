package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

// failure is how an error is printed with --json: one line on standard error. An error of the API has the members of its problem
// document. An error that arose here has no status, and one of the codes below.
type failure struct {
	Title      string             `json:"title"`
	Status     int                `json:"status,omitempty"`
	Detail     string             `json:"detail,omitempty"`
	Code       string             `json:"code"`
	Type       string             `json:"type,omitempty"`
	RequestID  string             `json:"request_id,omitempty"`
	Errors     []api.FieldProblem `json:"errors,omitempty"`
	RetryAfter int                `json:"retry_after_seconds,omitempty"`
	Hint       string             `json:"hint,omitempty"` // what to do, for people
}

// The codes of errors that did not come from the API.
const (
	codeUsage       = "usage"       // exit code 2
	codeUnreachable = "unreachable" // no answer from a server
	codeFailed      = "failed"      // anything else
)

// wantsJSON reports whether a command line asks for JSON. It looks at the words, because a line with a mistake can't be parsed.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json")
}

// failJSON prints an error as JSON and returns the exit code.
func failJSON(w io.Writer, err error) int {
	f, code := asFailure(err)
	if f != nil {
		if err := printLine(w, map[string]*failure{"error": f}); err != nil {
			return exitFailed
		}
	}
	return code
}

// asFailure describes an error. It returns nil if the command has shown why it failed.
func asFailure(err error) (*failure, int) {
	var wrong *usageError
	var problem *api.Problem
	var call *url.Error
	switch {
	case errors.As(err, &wrong):
		return &failure{Title: "Wrong usage", Code: codeUsage, Detail: wrong.text}, exitUsage
	case errors.Is(err, errShown):
		return nil, exitFailed
	case errors.As(err, &problem):
		return &failure{
			Title: problem.Title, Status: problem.Status, Detail: problem.Detail, Code: problem.Code, Type: problem.Type,
			RequestID: problem.RequestID, Errors: problem.Errors, RetryAfter: int(problem.RetryAfter / time.Second), Hint: adviceFor(problem),
		}, exitFailed
	case errors.As(err, &call):
		return &failure{Title: "No answer", Code: codeUnreachable, Detail: err.Error(), Hint: connectionHint(err)}, exitFailed
	default:
		return &failure{Title: "Failed", Code: codeFailed, Detail: strings.Join(problems(err), "\n")}, exitFailed
	}
}

// printLine prints a value as JSON in one line.
func printLine(w io.Writer, v any) error {
	if err := encoder(w).Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
