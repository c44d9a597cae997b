package deliver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

// keyed makes account a one that takes a repeated call of one message for the same call, and several messages in a call.
func keyed(in *claimInput) {
	in.view.accounts[1].keyed, in.view.accounts[1].batch = true, provider.BatchSpec{Max: 9, NoAttachments: true}
}

func resent(d *queue.Due) { d.Resends, d.Attempts = 1, 1 }

func files(d *queue.Due) { d.Facts.Attachments = 1 }

// The key of a message stands for a call with that message alone.
func TestMessagesTravelTogetherUnlessTheProviderMayKnowTheirKey(t *testing.T) {
	t.Parallel()
	const alone, joins = "to account 1 in 0s", "joins it"
	for name, tc := range map[string]struct {
		due   []queue.Due
		fates []string
	}{
		"first calls":                             {dues(3), []string{alone, "2 times: " + joins}},
		"one was refused before":                  {[]queue.Due{testDue(), testDue(func(d *queue.Due) { d.Attempts = 2 })}, []string{alone, joins}},
		"one was resent, and would join":          {[]queue.Due{testDue(), testDue(resent), testDue()}, []string{"2 times: " + alone, joins}},
		"one was resent, and would be the first":  {[]queue.Due{testDue(resent), testDue(), testDue()}, []string{"2 times: " + alone, joins}},
		"one has files, and would join":           {[]queue.Due{testDue(), testDue(files), testDue()}, []string{"2 times: " + alone, joins}},
		"one has files, and would be the first":   {[]queue.Due{testDue(files), testDue(), testDue()}, []string{"2 times: " + alone, joins}},
		"all have files, and each has its call":   {[]queue.Due{testDue(files), testDue(files)}, []string{"2 times: " + alone}},
		"all were resent, and each has its call":  {[]queue.Due{testDue(resent), testDue(resent)}, []string{"2 times: " + alone}},
		"one is repeated, and others share calls": {[]queue.Due{testDue(), testDue(repeating(noon().Add(time.Second))), testDue()}, []string{"2 times: " + alone, joins}},
	} {
		in := testInput(tc.due...)
		keyed(&in)
		if diff := cmp.Diff(tc.fates, fates(in, planClaim(in))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	in := testInput(testDue(), testDue(resent), testDue(files))
	in.view.accounts[1].batch = upTo(9)
	if diff := cmp.Diff([]string{alone, "2 times: " + joins}, fates(in, planClaim(in))); diff != "" {
		t.Errorf("without keys and with files (-want +got):\n%s", diff)
	}
}

// Whoever finds a call after its replica died sees from the claim whether the call may be repeated.
func TestAClaimSaysWhichCallsMustNotBeRepeated(t *testing.T) {
	t.Parallel()
	elsewhere := map[string]queue.Avoid{"b": {Final: true, Why: "too large"}, "a": {Until: noon().Add(-time.Minute), Why: "503"}}
	due := []queue.Due{testDue(), testDue(avoiding(elsewhere)), testDue(files), testDue(inStream("news"))}
	in := testInput(due...)
	keyed(&in)
	p := planClaim(in)
	over := &queue.Repeat{Over: true}
	want := []map[string]queue.Avoid{
		{"a": {Repeat: over}},
		{"a": {Until: noon().Add(-time.Minute), Why: "503", Repeat: over}, "b": elsewhere["b"]},
		nil, nil,
	}
	for i, a := range p.Take {
		if diff := cmp.Diff(want[i], a.Due.Avoid); diff != "" {
			t.Errorf("message %d avoids (-want +got):\n%s", i, diff)
		}
		if a.Account == 1 && i < 2 && a.Due.Avoid["a"].Repeat == nil {
			t.Errorf("message %d may be repeated", i)
		}
	}
	for _, it := range p.items { // what is requeued has nothing to do with a crash
		for _, one := range it.all() {
			if one.due.Avoid["a"].Repeat != nil {
				t.Errorf("the message carries %+v on", one.due.Avoid)
			}
		}
	}
	if elsewhere["a"].Repeat != nil {
		t.Error("the avoid list of the message itself was changed")
	}
	in = testInput(dues(3)...)
	in.view.accounts[1].batch = upTo(9)
	for i, a := range planClaim(in).Take {
		if a.Due.Avoid != nil {
			t.Errorf("without keys message %d avoids %+v", i, a.Due.Avoid)
		}
	}
}

// A call of several messages whose answer is lost is decided by evidence and by on_ambiguous. A call that lost all but one of its
// messages before it was made had the key of that one.
func TestOnlyACallWithOneMessageIsRepeated(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		open   int // messages whose intent is committed
		repeat bool
	}{
		"all three": {3, false}, "two of three": {2, false}, "the first alone": {1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lostAnswer := errors.New("unexpected EOF")
			p := &batchProvider{answer: func(int) error { return lostAnswer }}
			p.fakeProvider = func(context.Context) (provider.Receipt, error) { return provider.Receipt{}, lostAnswer }
			at := map[mail.ID]int{}
			e, store, all := callOf(t, 3, p, func(id mail.ID) (bool, error) { return at[id] < tc.open, nil })
			e.Policy.Repeats = defaultRepeats()
			all[0].acc.within = 23 * time.Hour
			loads := map[mail.ID]queue.Loaded{}
			for i, it := range all {
				at[it.due.ID], it.due.OnAmbiguous = i, mail.Never
				loads[it.due.ID] = loadedFor(it.due.ID)
			}
			e.carry(all[0], loads)
			if n := len(store.recorded); n != tc.open {
				t.Fatalf("%d results, want %d", n, tc.open)
			}
			for range tc.open {
				r := <-store.recorded
				if r.Unknown == nil {
					t.Fatalf("result = %+v, want it unknown", r)
				}
				repeat := r.Unknown.Avoid["ses-eu"].Repeat
				if repeats := r.Unknown.Policy == queue.Repeating; repeats != tc.repeat || repeat == nil || repeat.Over == tc.repeat {
					t.Errorf("policy %s, repeat %+v; want it repeated: %t", r.Unknown.Policy, repeat, tc.repeat)
				}
				if !tc.repeat && r.Unknown.Policy != mail.Never {
					t.Errorf("policy = %s, want that of the message", r.Unknown.Policy)
				}
			}
		})
	}
}

// What is known of other accounts stays known. A message of whose call nothing was taken may be repeated when it goes alone.
func TestASharedCallForgetsNothing(t *testing.T) {
	t.Parallel()
	c := repeatCall(nil)
	c.shared = true
	c.due.Avoid = map[string]queue.Avoid{"other": {Final: true, Why: "too large"}}
	r, _ := next(c, provider.Receipt{}, lost(), repeatPolicy(), noon(), 0.5)
	if r.Unknown == nil || !r.Unknown.Avoid["other"].Final || !r.Unknown.Avoid[c.name].Repeat.Over || len(c.due.Avoid) != 1 {
		t.Errorf("unknown = %+v, want what it avoids, and no repeat", r.Unknown)
	}
	for _, failure := range []*provider.Error{
		{Class: provider.Throttled, RetryAfter: time.Second}, {Class: provider.Transient, Shared: true}, {Class: provider.Transient, Again: true},
	} {
		r, _ := next(c, provider.Receipt{}, failure, repeatPolicy(), noon(), 0.5)
		if r.Requeue == nil || r.Requeue.Avoid[c.name].Repeat != nil {
			t.Errorf("%v: requeued %+v, want it without a note on repeats", failure, r.Requeue)
		}
	}
}
