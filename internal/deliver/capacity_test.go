package deliver

import (
	"testing"

	"github.com/sendgate/sendgate/internal/capacity"
)

// Package capacity plans with how many messages share a call.
func TestPlansKnowWhatSharesACall(t *testing.T) {
	t.Parallel()
	if capacity.TransactionalPerCall != maxTogether || capacity.BytesPerCall != togetherBytes || capacity.AloneFrom != largeMessage {
		t.Errorf("package capacity has %d messages, %d bytes and %d bytes of a message that travels alone; here they are %d, %d and %d",
			capacity.TransactionalPerCall, capacity.BytesPerCall, capacity.AloneFrom, maxTogether, togetherBytes, largeMessage)
	}
}
