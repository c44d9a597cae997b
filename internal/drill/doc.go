// Package drill proves the promises under fault. Each drill builds the real program, runs two or three of it as processes
// on a private PostgreSQL, beside emulated providers whose ledger is on disk before they answer and clients that write
// every 202 to disk; it does one thing that goes wrong in production, makes sure that it really is wrong, mends it, waits
// until the service has healed, and has an auditor hold clients' log, providers' ledger and database against each other.
//
//	go test -v -tags drill -parallel 3 -timeout 30m ./internal/drill               all, the short form
//	go test -tags drill ./internal/drill -run D05 -seed 42 -duration 60s -v    one, for longer, as it was
//
// A drill ends in one line, and all of them in a table:
//
//	drill=D05 seed=42 accepted=20000 lost=0 twins=0 unknown=3 p99_accept=41ms heal=6.2s PASS
//
// accepted counts 202s; lost those without a message, or with one that never ended; twins the mails beyond the first of a
// message (under on_ambiguous "resend" one for each call without an answer is allowed, elsewhere none); unknown the calls
// without an answer; heal is the time from the end of the fault until everything has ended. What counts is decided by
// counts. A figure beyond its bound is printed with the bound and fails a drill only with -strict: machines are shared.
//
// The auditor believes nobody: it reads the clients' logs and the ledger from their files and the tables by statements of
// its own. A newcomer's likeliest mistake is a drill whose fault was never on; each drill proves that it was.
//
// All is traffic of this machine to itself, bounded in count and time, and ends with the processes that were started.
package drill
