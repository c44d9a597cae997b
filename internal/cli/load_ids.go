package cli

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// idLogEvery is the interval at which ids of accepted messages are written to disk.
const idLogEvery = 100 * time.Millisecond

// idLog appends the ids of accepted messages to a file, one per line, so that an audit can look up each of them after the
// server, or this program, was killed. The nil idLog ignores everything.
type idLog struct {
	file *os.File
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	pending []byte
	err     error
}

// openIDLog opens the log, or returns nil if name is empty.
func openIDLog(s *Streams, name string) (*idLog, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open id log: %w", err)
	}
	l := &idLog{file: f, stop: make(chan struct{}), done: make(chan struct{})}
	go l.loop()
	return l, nil
}

func (l *idLog) add(id []byte) {
	if l == nil {
		return
	}
	l.mu.Lock()
	l.pending = append(append(l.pending, id...), '\n')
	l.mu.Unlock()
}

func (l *idLog) loop() {
	defer close(l.done)
	t := time.NewTicker(idLogEvery)
	defer t.Stop()
	var spare []byte
	for {
		select {
		case <-t.C:
			spare = l.flush(spare)
		case <-l.stop:
			l.flush(spare)
			return
		}
	}
}

// flush writes and syncs the pending ids, and returns the written buffer for reuse.
func (l *idLog) flush(spare []byte) []byte {
	l.mu.Lock()
	out := l.pending
	l.pending = spare[:0]
	l.mu.Unlock()
	if len(out) == 0 {
		return out
	}
	_, err := l.file.Write(out)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.mu.Lock()
		l.err = fmt.Errorf("write id log: %w", err)
		l.mu.Unlock()
	}
	return out
}

// close writes the rest. It returns the last error of a write, or that of closing the file.
func (l *idLog) close() error {
	if l == nil {
		return nil
	}
	close(l.stop)
	<-l.done
	err := l.file.Close()
	if l.err != nil {
		return l.err
	}
	if err != nil {
		return fmt.Errorf("close id log: %w", err)
	}
	return nil
}
