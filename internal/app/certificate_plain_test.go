//go:build drill

package app

import (
	"strings"
	"testing"
)

// Not parallel: a signal is for the whole process.
func TestSIGHUPWithoutTLSDoesNothing(t *testing.T) {
	b := newBench(t, benchOptions{})
	log := b.serveHere(t)
	hangUp(t)
	eventually(t, settleTime, "it is told", func() bool { return strings.Contains(log.String(), "SIGHUP ignored") })
}
