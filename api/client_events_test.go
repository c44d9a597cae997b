package api

import (
	"bufio"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEventReaderReadsWhatServersMaySend(t *testing.T) {
	t.Parallel()
	const stream = "retry: 2000\nid: 1\n\n:comment\nid:2\nevent: opened\ndata:{\"type\":\"opened\"}\n\nunknown: field\ndata: {\"type\":\"clicked\"}\n\ndata: {\"type\":\"lost\"}\n"
	s := eventReader{lines: bufio.NewScanner(strings.NewReader(stream)), heard: func() {}}
	var got []string
	for {
		e, err := s.next()
		if err != nil {
			break
		}
		got = append(got, s.id+" "+e.Type)
	}
	if diff := cmp.Diff([]string{"2 opened", "2 clicked"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func FuzzEventReader(f *testing.F) {
	f.Add("id: 1\nevent: opened\ndata: {\"type\":\"opened\"}\n\n")
	f.Add(": beat\nid: 2\n\ndata: {\n\n")
	f.Fuzz(func(t *testing.T, stream string) {
		lines := 0
		s := eventReader{lines: bufio.NewScanner(strings.NewReader(stream)), heard: func() { lines++ }}
		for {
			if _, err := s.next(); err != nil {
				break
			}
		}
		if lines > strings.Count(stream, "\n")+1 || strings.Contains(s.id, "\n") {
			t.Errorf("%q: %d lines, id %q", stream, lines, s.id)
		}
	})
}
