package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
)

// AuditLink is one link of the chain of the audit. Hash is SHA-256, in hex, of the hash before it as bytes (none for the first link),
// N in decimal, and Content.
type AuditLink struct {
	N       int64  `json:"n"`
	ID      int64  `json:"id"` // of the entry
	Hash    string `json:"hash"`
	Content string `json:"content"` // the entry as a JSON array; empty if it is gone
}

// AuditChainPage is one page of GET /admin/v1/audit/chain, by N.
type AuditChainPage struct {
	Data       []AuditLink `json:"data"`
	Unlinked   []int64     `json:"unlinked"` // entries that have no link, at most 20
	NextCursor string      `json:"next_cursor,omitempty"`
}

// AuditFault is a place where the chain of the audit does not hold.
type AuditFault struct {
	Kind   string `json:"kind"`         // changed, reordered, missing, unlinked, cut_off
	N      int64  `json:"n,omitempty"`  // the link; 0 if it is about none
	ID     int64  `json:"id,omitempty"` // the entry; 0 if it is about none
	Detail string `json:"detail"`
}

// AuditVerifier verifies the chain of the audit, from its pages alone: whoever changes the database can't keep it from noticing,
// except by making all hashes anew from there on. Expect notices that. The zero value is ready.
type AuditVerifier struct {
	Expect string // the hash of a link that was seen earlier, in hex; "" for none

	n      int64
	hash   []byte
	seen   bool
	waits  *AuditLink // the first link, if it is not number 1: an entry must say that those before it were dropped
	faults []AuditFault
}

// Links and Head return the number of the last link that was read, and its hash in hex: keep the latter as what to expect next time.
func (v *AuditVerifier) Links() int64 { return v.n }

// Head returns the hash of the last link.
func (v *AuditVerifier) Head() string { return hex.EncodeToString(v.hash) }

// Add verifies the next page.
func (v *AuditVerifier) Add(p *AuditChainPage) {
	broken := map[int][]byte{} // indexes of links whose hash does not fit, with the hash before them
	for i := range p.Data {
		if before, ok := v.link(&p.Data[i]); !ok {
			broken[i] = before
		}
	}
	for i := range p.Data {
		if before, ok := broken[i]; ok {
			v.explain(p.Data, i, before, broken)
		}
	}
	for _, id := range p.Unlinked {
		v.faults = append(v.faults, AuditFault{Kind: "unlinked", ID: id, Detail: "this entry has no link: it was added without the service, or its link was deleted"})
	}
}

// link reads one link. If its hash does not fit, it returns false and the hash before it.
func (v *AuditVerifier) link(l *AuditLink) (before []byte, ok bool) {
	before = v.hash
	known := true // the hash before this link
	switch {
	case v.n == 0 && l.N > 1:
		first := *l
		v.waits, known = &first, false
	case l.N != v.n+1:
		v.faults = append(v.faults, AuditFault{Kind: "missing", N: v.n + 1, Detail: fmt.Sprintf("links %d to %d are missing", v.n+1, l.N-1)})
		known = false
	}
	hash, err := hex.DecodeString(l.Hash)
	v.n, v.hash = l.N, hash
	v.seen = v.seen || l.Hash == v.Expect
	if l.Content == "" {
		v.faults = append(v.faults, AuditFault{Kind: "missing", N: l.N, ID: l.ID, Detail: "the entry of this link is missing"})
		return before, true
	}
	v.dropped(l.Content)
	return before, err == nil && (!known || bytes.Equal(hash, linkHash(before, l.N, l.Content)))
}

func linkHash(before []byte, n int64, content string) []byte {
	h := sha256.New()
	h.Write(before)
	h.Write([]byte(strconv.FormatInt(n, 10)))
	h.Write([]byte(content))
	return h.Sum(nil)
}

// dropped looks for the entry which says that the links before the first were dropped by the service, and verifies the first.
func (v *AuditVerifier) dropped(content string) {
	var entry []json.RawMessage // 6 is the action, 8 the detail
	var action string
	var detail struct {
		Through int64
		Hash    string
	}
	if v.waits == nil || json.Unmarshal([]byte(content), &entry) != nil || len(entry) < 9 || json.Unmarshal(entry[6], &action) != nil ||
		action != "audit.dropped" || json.Unmarshal(entry[8], &detail) != nil || detail.Through != v.waits.N-1 {
		return
	}
	v.seen = v.seen || detail.Hash == v.Expect
	before, err := hex.DecodeString(detail.Hash)
	if first := v.waits; err != nil || first.Content != "" && hex.EncodeToString(linkHash(before, first.N, first.Content)) != first.Hash {
		v.faults = append(v.faults, AuditFault{Kind: "changed", N: first.N, ID: first.ID, Detail: "the entry or its link was changed"})
	}
	v.waits = nil
}

// explain says what is wrong with a link whose hash does not fit.
func (v *AuditVerifier) explain(links []AuditLink, i int, before []byte, broken map[int][]byte) {
	l := &links[i]
	f := AuditFault{Kind: "changed", N: l.N, ID: l.ID, Detail: "the entry or its link was changed"}
	const tried = 100 // a page that is all wrong must not cost the square of its length
	for j := range broken {
		other := &links[j]
		if h := hex.EncodeToString(linkHash(before, l.N, other.Content)); len(broken) <= tried && j != i && (h == l.Hash || h == other.Hash) {
			f.Kind, f.Detail = "reordered", fmt.Sprintf("here belongs entry %d", other.ID)
		}
	}
	v.faults = append(v.faults, f)
}

// Faults returns what is wrong, after the last page.
func (v *AuditVerifier) Faults() []AuditFault {
	faults := append([]AuditFault{}, v.faults...)
	if v.waits != nil {
		faults = append(faults, AuditFault{Kind: "cut_off", N: v.waits.N, Detail: fmt.Sprintf("links 1 to %d are missing, and no entry says that they were dropped", v.waits.N-1)})
	}
	if v.Expect != "" && !v.seen {
		faults = append(faults, AuditFault{Kind: "cut_off", Detail: "no link has the hash that you expect: the end was cut off, or links were made anew, or that entry was dropped since because of its age"})
	}
	return faults
}
