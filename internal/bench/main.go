// Command bench measures sendgate beside its ceilings, on this machine.
//
//	go run ./internal/bench -list
//	go run ./internal/bench -run 'accept|dispatch' -repeat 5
//
// Generator, PostgreSQL, sendgate and the providers are processes of their own, so that the cost of each can be told apart.
// PostgreSQL is a private server that syncs to disk. The providers listen on loopback only, and nothing is mailed.
//
// A ceiling is what the same machine does without the part that is measured: a bare handler instead of the API, a loop of
// POST requests instead of the engine. It is measured in the same run, right after its figure: machines are noisy, so the
// ratio of the two says more than either of them. With -repeat the table shows medians, and the lowest and the highest value.
//
// This program decides what is measured and how. It never fails for a slow result: it prints, and people judge. A newcomer's
// likeliest mistake is to compare figures of two runs: only ratios, and counts such as commits for each message, can be
// compared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	run         *regexp.Regexp
	repeat      int
	seconds     time.Duration // of each load
	rows        int           // messages of a backlog
	rate        float64       // messages a second that the whole way is offered
	concurrency int           // of the account of a backlog
	days        int           // of the past that have partitions already

	explain bool   // print what each statement costs
	kinds   string // of the providers that a backlog is sent to
	queued  int    // messages in the queue when memory is measured
	stored  string // how many messages are stored when growth is measured, one number after the other
	dir     string // for the server's data; "" is a temporary one
	program string // path of sendgate; "" is built from this tree
}

// bench is one measurement. It reports figures to the table as it goes.
type bench struct {
	name, about string
	run         func(ctx context.Context, s *stage, t *table) error
}

func benches() []bench {
	return []bench{
		{"accept", "POST /v1/send at 16, 64 and 256 clients, beside a bare handler with group commit", accept},
		{"accept-key", "the same with an Idempotency-Key, at 64 clients", acceptKeys},
		{"accept-half", "latency of POST /v1/send at half of the rate of 64 clients", acceptHalf},
		{"accept-batch", "POST /v1/send/batch by 100, at 16 clients", acceptBatch},
		{"dispatch", "a backlog to a provider that answers at once, for each kind (-kinds), beside a loop of POST requests", dispatch},
		{"together", "the same to SendGrid with mail that differs in the recipient only", together},
		{"pickup", "from the 202 to the first byte at the provider: idle, and beside 300 messages a second", pickup},
		{"whole", "messages of all kinds with signed events coming back, at a fixed rate", whole},
		{"events", "reports of providers by 100 and by 1, and from a report to the post to the caller's endpoint", events},
		{"replicas", "a backlog sent by 1, 2 and 4 replicas on one database, beside one", replicas},
		{"memory", "memory of sendgate: at rest, at load, and beside a queue (-queued)", memory},
		{"growth", "accepts, sends, look-ups and lists beside more and more stored messages (-stored)", growth},
		{"size", "bytes on disk and in the log for each message, by table", size},
	}
}

func main() {
	if role := os.Getenv(roleEnv); role != "" { // a process of a measurement
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		return
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure() error {
	var o options
	pattern := flag.String("run", ".", "regular expression of the names to measure")
	list := flag.Bool("list", false, "list the measurements and exit")
	flag.IntVar(&o.repeat, "repeat", 1, "how often each is measured; the table has medians")
	flag.DurationVar(&o.seconds, "duration", 5*time.Second, "how long each load lasts")
	flag.IntVar(&o.rows, "messages", 20_000, "messages of a backlog")
	flag.IntVar(&letterItems, "items", letterItems, "things that each message lists: 12 make 3.8 kB, and 130 make 30 kB")
	flag.Float64Var(&o.rate, "rate", 1500, "messages a second that the whole way is offered")
	flag.IntVar(&o.concurrency, "concurrency", 64, "calls at a time that the account of a backlog may have")
	flag.IntVar(&o.days, "days", 0, "days of the past that have partitions already, as after that time of use")
	flag.BoolVar(&o.explain, "statements", false, "print what each statement costs; needs pg_stat_statements, which Debian's package has")
	flag.StringVar(&o.kinds, "kinds", "sendgrid,mailgun,postmark,ses,resend,smtp", "the providers that a backlog is sent to, one after the other")
	flag.IntVar(&o.queued, "queued", 100_000, "messages in the queue when memory is measured")
	flag.StringVar(&o.stored, "stored", "10000,1000000", "how many messages are stored when growth is measured, ascending; 10000000 takes 12 GB of disk")
	flag.StringVar(&o.dir, "dir", "", "folder for the server's data, on the disk to be measured (default: a temporary one)")
	flag.StringVar(&o.program, "program", "", "path of a sendgate binary (default: built from this tree)")
	flag.Parse()
	if *list {
		for _, b := range benches() {
			_, _ = fmt.Fprintf(os.Stdout, "%-14s %s\n", b.name, b.about)
		}
		return nil
	}
	var err error
	if o.run, err = regexp.Compile("^(" + *pattern + ")$"); *pattern == "." {
		o.run, err = regexp.MustCompile(""), nil
	}
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := newStage(ctx, o)
	if err != nil {
		return err
	}
	t := newTable(os.Stderr)
	err = runAll(ctx, s, t)
	err = errors.Join(err, s.close())
	_, _ = fmt.Fprintf(os.Stdout, "%s, %d cores, PostgreSQL %s, %s\n", runtime.Version(), runtime.NumCPU(), s.version, time.Now().Format(time.DateOnly))
	t.print(os.Stdout)
	return err
}

// runAll goes round and round, so that a slow minute of the machine meets every measurement once and not one of them always.
func runAll(ctx context.Context, s *stage, t *table) error {
	for round := range s.repeat {
		for _, b := range benches() {
			if !s.run.MatchString(b.name) {
				continue
			}
			fmt.Fprintf(os.Stderr, "-- %s, round %d of %d\n", b.name, round+1, s.repeat)
			if err := b.run(ctx, s, t); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		}
	}
	return nil
}
