package cli

import (
	"fmt"
	"io"
	"time"
)

// progress shows a progress line. On a terminal it overwrites the line every second; elsewhere it prints a new line every five
// seconds.
type progress struct{ stopped, done chan struct{} }

// startProgress starts the display. It calls line for the text, with the time since the last line, until stop returns.
func startProgress(w io.Writer, line func(since time.Duration) string) *progress {
	p := &progress{stopped: make(chan struct{}), done: make(chan struct{})}
	if isTTY(w) {
		go p.loop(w, line, time.Second, "\r\x1b[K", "")
	} else {
		go p.loop(w, line, 5*time.Second, "", "\n")
	}
	return p
}

func (p *progress) loop(w io.Writer, line func(time.Duration) string, every time.Duration, begin, end string) {
	defer close(p.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprint(w, begin+line(every)+end)
		case <-p.stopped:
			fmt.Fprint(w, begin) // leaves an empty line on a terminal
			return
		}
	}
}

func (p *progress) stop() {
	close(p.stopped)
	<-p.done
}
