package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Entry is one accepted message.
type Entry struct {
	Provider          string    `json:"provider"`
	At                time.Time `json:"at"`                  // arrival of the request, UTC, to the microsecond
	MessageID         string    `json:"message_id"`          // the sender's own id: gw_msg, SMTP the local part of Message-ID; may be ""
	ProviderMessageID string    `json:"provider_message_id"` // the id in the answer and in later events
	From              string    `json:"from"`                // bare address of the From header
	To                []string  `json:"to"`                  // the whole accepted envelope, bare addresses
	Subject           string    `json:"subject"`
	Outcome           string    `json:"outcome"`
	Stream            string    `json:"stream,omitempty"`   // Postmark's message stream, if it is not "outbound"
	Calendar          string    `json:"calendar,omitempty"` // method of the invitation, if clients would show it as one; else why not
}

// atLayout is RFC 3339 with exactly six digits after the second, so that lines compare as text.
const atLayout = "2006-01-02T15:04:05.000000Z07:00"

// MarshalJSON writes At with microseconds.
func (n Entry) MarshalJSON() ([]byte, error) {
	type plain Entry
	return json.Marshal(struct {
		plain
		At string `json:"at"`
	}{plain(n), n.At.UTC().Format(atLayout)})
}

var errLedgerClosed = errors.New("ledger is closed")

// ledger keeps the entries. With a file, they are durable before append returns. Appends that wait at the same time share one
// write and one fsync: the committer takes all pending ones, without a timer.
type ledger struct {
	io   sync.Mutex // held over a write with its fsync, over clear and over close
	file *os.File   // nil in memory; guarded by io
	size int64      // bytes that are known to be valid; guarded by io

	mu      sync.Mutex
	entries []Entry // only appended to, or replaced as a whole
	pending []*commit
	broken  error // set when a write or an fsync failed: from then on nothing can be promised
	wake    chan struct{}
	quit    chan struct{} // closed by close
	done    chan struct{} // closed when the committer has ended; nil in memory
}

type commit struct {
	entries []Entry
	lines   []byte
	result  chan error
}

func newLedger() *ledger {
	return &ledger{wake: make(chan struct{}, 1), quit: make(chan struct{})}
}

// open reads the file, cuts off an incomplete last line and starts the committer. An empty path means a ledger in memory.
func (l *ledger) open(path string) error {
	if path == "" {
		return nil
	}
	file, entries, size, err := openLedgerFile(path)
	if err != nil {
		return err
	}
	l.file, l.entries, l.size = file, entries, size
	l.done = make(chan struct{})
	go l.commitLoop()
	return nil
}

// append adds the entries. When it returns nil, they are on disk and visible.
func (l *ledger) append(entries []Entry) error {
	if l.done == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.broken == nil {
			l.entries = append(l.entries, entries...)
		}
		return l.broken
	}
	c := &commit{entries: entries, result: make(chan error, 1)}
	var err error
	if c.lines, err = encodeLines(entries); err != nil {
		return err
	}
	l.mu.Lock()
	if l.broken != nil {
		l.mu.Unlock()
		return l.broken
	}
	l.pending = append(l.pending, c)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return <-c.result
}

func encodeLines(entries []Entry) ([]byte, error) {
	var b []byte
	for i := range entries {
		line, err := json.Marshal(entries[i])
		if err != nil {
			return nil, fmt.Errorf("encode ledger entry: %w", err)
		}
		b = append(append(b, line...), '\n')
	}
	return b, nil
}

// commitLoop writes pending appends until close. It then writes the last ones and ends.
func (l *ledger) commitLoop() {
	defer close(l.done)
	for {
		select {
		case <-l.wake:
			l.commitPending()
		case <-l.quit:
			l.commitPending()
			return
		}
	}
}

// commitPending writes all pending appends in one batch and gives each its result.
func (l *ledger) commitPending() {
	l.io.Lock()
	defer l.io.Unlock()
	l.mu.Lock()
	batch, err := l.pending, l.broken
	l.pending = nil
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	if err == nil || errors.Is(err, errLedgerClosed) {
		err = l.write(batch)
	}
	l.mu.Lock()
	if err == nil {
		for _, c := range batch {
			l.entries = append(l.entries, c.entries...)
		}
	} else {
		l.broken = err
	}
	l.mu.Unlock()
	for _, c := range batch {
		c.result <- err
	}
}

// write makes a batch durable. After an error the file is cut back to its last valid line. The ledger stays broken, because the
// kernel may have dropped the pages of a failed fsync.
func (l *ledger) write(batch []*commit) error {
	var b bytes.Buffer
	for _, c := range batch {
		b.Write(c.lines)
	}
	_, err := l.file.Write(b.Bytes())
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write ledger: %w", err), l.file.Truncate(l.size))
	}
	l.size += int64(b.Len())
	return nil
}

// snapshot returns the entries so far. The slice is shared and read-only.
func (l *ledger) snapshot() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entries[:len(l.entries):len(l.entries)]
}

// clear removes everything, also from the file. Appends in progress come after it.
func (l *ledger) clear() error {
	l.io.Lock()
	defer l.io.Unlock()
	if l.file != nil {
		if err := errors.Join(l.file.Truncate(0), l.file.Sync()); err != nil {
			return fmt.Errorf("clear ledger: %w", err)
		}
		l.size = 0
	}
	l.mu.Lock()
	l.entries = nil
	l.mu.Unlock()
	return nil
}

// close writes the pending entries and closes the file. Later appends fail; snapshot still works.
func (l *ledger) close() error {
	l.mu.Lock()
	if l.broken == nil {
		l.broken = errLedgerClosed
	}
	l.mu.Unlock()
	if l.done == nil {
		return nil
	}
	close(l.quit)
	<-l.done
	l.io.Lock()
	defer l.io.Unlock()
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close ledger: %w", err)
	}
	return nil
}
