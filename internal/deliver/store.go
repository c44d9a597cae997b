package deliver

import (
	"context"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// Store is what the engine needs of the database.
type Store interface {
	queueStore
	leaseStore
	configStore
	upkeepStore
	lookupStore
}

// queueStore moves messages. Claim runs decide inside its transaction; Intend and Record are group commits.
type queueStore interface {
	Lanes(ctx context.Context) ([]queue.Lane, error)
	Claim(ctx context.Context, owner mail.ID, lanes []queue.LaneQuota,
		decide func(now time.Time, due []queue.Due, limits map[int32]*limit.Account) queue.Claim) error
	End(ctx context.Context, endings []queue.Ending) error
	Lapse(ctx context.Context, lapses []queue.Lapse, wait map[mail.Policy]time.Duration) error
	Load(ctx context.Context, ids []mail.ID) (map[mail.ID]queue.Loaded, error)
	Intend(ctx context.Context, owner mail.ID, in queue.Intent) (queue.Announced, error)
	Record(ctx context.Context, owner mail.ID, r queue.Result) (bool, error)
}

// lookupStore settles unknown messages by look-ups.
type lookupStore interface {
	DueLookups(ctx context.Context, schedule []time.Duration, accounts []int32, limit int) ([]record.Lookup, error)
	ReturnLookup(ctx context.Context, id mail.ID, n int, repeat bool, wait time.Duration) error
	Resolve(ctx context.Context, v record.Verdict) (settled bool, err error)
}

// leaseStore keeps replicas apart.
type leaseStore interface {
	Register(ctx context.Context, id mail.ID, host string, lease time.Duration) error
	Heartbeat(ctx context.Context, id mail.ID, lease time.Duration) (replicas int, err error)
	Report(ctx context.Context, id mail.ID, r record.ReplicaReport) error
	Unregister(ctx context.Context, id mail.ID) error
	Rescue(ctx context.Context, wait map[mail.Policy]time.Duration) (unstarted, started int, err error)
	Orphans(ctx context.Context, owner mail.ID, known []mail.ID, wait map[mail.Policy]time.Duration) (int, error)
}

// configStore reads what operators set.
type configStore interface {
	ConfigVersion(ctx context.Context) (int64, error)
	Config(ctx context.Context) (*route.Config, error)
	Secrets(ctx context.Context, account int32) (map[string]seal.Secret, error)
	Tenants(ctx context.Context) ([]record.Tenant, error)
	Blocks(ctx context.Context) (map[int32]time.Duration, error)
	TakeProbes(ctx context.Context, lease time.Duration) (map[int32][]string, error)
}

// upkeepStore does periodic work.
type upkeepStore interface {
	RepeatUnknown(ctx context.Context, rule queue.RepeatRule) (repeated int, err error)
	DecideUnknown(ctx context.Context, resendAfterReconcile bool, most int) (resent, failed int, err error)
	FreeHeld(ctx context.Context, limit int) (all bool, err error)
	Relane(ctx context.Context, after mail.ID, limit int, lane func(*mail.Facts) int32) (last mail.ID, err error)
	Queue(ctx context.Context) (record.QueueState, error)
	AccountingAlone(ctx context.Context) (a queue.Accounting, done bool, err error)
	TallyCalls(ctx context.Context, tallies []record.CallTally) error
	NoteBooks(ctx context.Context, a *queue.Accounting) error
	EnsurePartitions(ctx context.Context) (int, error)
	DropPartitions(ctx context.Context, table string, before time.Time) (int, error)
	// RetentionNow returns the time for retention. A clock that jumps ahead must not delete messages.
	RetentionNow(ctx context.Context) (time.Time, error)
	Sweep(ctx context.Context) (int, error)
	// DropAudit deletes the entries of the audit from before a time, some thousand at once.
	DropAudit(ctx context.Context, before time.Time) (int, error)
	MatchOrphans(ctx context.Context, limit int) (matched int, err error)
	DropKeys(ctx context.Context, age time.Duration) (int, error)
	ForgetSecrets(ctx context.Context) (int, error)
}
