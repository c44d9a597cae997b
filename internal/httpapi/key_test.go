package httpapi

import (
	"bytes"
	"crypto/sha256"
	"regexp"
	"strings"
	"testing"
)

func TestKeyRoundTrip(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^sg_[0-9a-f]{8}_[0-9A-Za-z]{38}$`)
	seen := map[string]bool{}
	for range 200 {
		id, full, hash := NewKey()
		if !form.MatchString(full) || !strings.HasPrefix(full, "sg_"+id+"_") || seen[full] {
			t.Fatalf("key %q of id %q has the wrong form or was made before", full, id)
		}
		seen[full] = true
		gotID, gotHash, err := ParseKey(full)
		if err != nil || gotID != id || !bytes.Equal(gotHash, hash) {
			t.Fatalf("ParseKey(NewKey()) = %q, %x, %v; want %q, %x", gotID, gotHash, err, id, hash)
		}
		want := sha256.Sum256([]byte(full[12:44]))
		if !bytes.Equal(hash, want[:]) {
			t.Fatal("hash is not SHA-256 of the secret part")
		}
	}
}

// The check is CRC-32 (IEEE) in base62, so that secret scanners can be told how to compute it.
func TestKeyCheckIsStable(t *testing.T) {
	t.Parallel()
	const key = "sg_0123abcd_" + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	if got, want := checkOf(key), "0TmBpR"; got != want {
		t.Errorf("check of %s = %s, want %s", key, got, want)
	}
}

func TestParseKeyRefusesEveryOneCharacterChange(t *testing.T) {
	t.Parallel()
	_, full, _ := NewKey()
	for i := range full {
		for _, c := range []byte("0aZ_-\x00") {
			changed := []byte(full)
			if changed[i] == c {
				continue
			}
			changed[i] = c
			if _, _, err := ParseKey(string(changed)); err == nil {
				t.Errorf("ParseKey took the key with byte %d changed to %q", i, c)
			}
		}
	}
	for _, bad := range []string{"", "sg_", full + "x", full[:len(full)-1], " " + full, strings.ToUpper(full)} {
		_, _, err := ParseKey(bad)
		if err == nil {
			t.Errorf("ParseKey(%q) = nil error", bad)
		}
		if err != nil && len(bad) > 20 && strings.Contains(err.Error(), bad[12:20]) {
			t.Error("the error holds the key")
		}
	}
}

func FuzzParseKey(f *testing.F) {
	_, full, _ := NewKey()
	f.Add(full)
	f.Add("sg_00000000_")
	f.Fuzz(func(t *testing.T, s string) {
		id, hash, err := ParseKey(s)
		if err == nil && (len(s) != keyLen || len(id) != keyIDLen || len(hash) != sha256.Size) {
			t.Errorf("ParseKey(%q) = %q, %x", s, id, hash)
		}
	})
}
