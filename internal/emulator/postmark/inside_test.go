package postmark

import (
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

// The value is the number of repetitions; -1 stands for an answer that says that the receiver has it.
func TestAnswersAreUnderstoodAsDocumented(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what   emulator.EventType
		status int
		want   int
	}{
		{emulator.Bounced, 200, -1},
		{emulator.Bounced, 403, 0},
		{emulator.Bounced, 201, 10},
		{emulator.Deferred, 500, 10},
		{emulator.Delivered, 401, 3},
		{emulator.Delivered, 0, 3},
		{emulator.Complained, 500, 3},
	} {
		taken, pauses := (*api)(nil).Answered(&emulator.Post{Events: []emulator.Event{{Type: tc.what}}}, tc.status)
		got := len(pauses)
		if taken {
			got = -1
		}
		if got != tc.want {
			t.Errorf("%s answered %d: %d repetitions, want %d", tc.what, tc.status, got, tc.want)
		}
	}
}
