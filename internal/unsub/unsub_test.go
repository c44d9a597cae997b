package unsub

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

const base = "https://mail.example.com"

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

func signer(t testing.TB, base string, keys ...[]byte) *Signer {
	t.Helper()
	s, err := New(keys[0], base, keys[1:]...)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return s
}

func ann() Token {
	return Token{Tenant: 7, Stream: "news", Message: mail.ID{1, 2, 3, 15: 9}, Email: "ann@example.org"}
}

// tokenOf takes the token out of the header fields.
func tokenOf(t testing.TB, s *Signer, tok Token) string {
	t.Helper()
	headers := s.Headers(tok)
	if len(headers) != 2 {
		t.Fatalf("headers of %+v = %v, want two", tok, headers)
	}
	token, ok := strings.CutPrefix(headers[0].Value, "<"+s.base+"/u/")
	token, closed := strings.CutSuffix(token, ">")
	if !ok || !closed {
		t.Fatalf("%s: %s, want a link under %s/u/", headers[0].Name, headers[0].Value, s.base)
	}
	return token
}

func TestHeadersAreThoseOfRFC8058(t *testing.T) {
	t.Parallel()
	s := signer(t, base, secret(1))
	got := s.Headers(ann())
	want := []mail.Header{
		{Name: "List-Unsubscribe", Value: "<" + base + "/u/" + tokenOf(t, s, ann()) + ">"},
		{Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if strings.Trim(tokenOf(t, s, ann()), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		t.Errorf("token %q does not fit a path", tokenOf(t, s, ann()))
	}
}

func TestOpenGivesBackWhatWasMeant(t *testing.T) {
	t.Parallel()
	s := signer(t, base, secret(1))
	for name, tok := range map[string]Token{
		"plain":     ann(),
		"no stream": {Tenant: 1, Message: mail.ID{1}, Email: "a@b.example"},
		"largest":   {Tenant: 1<<31 - 1, Stream: strings.Repeat("s", maxStream), Message: mail.ID{15: 1}, Email: strings.Repeat("é", maxEmail/2)},
		"odd":       {Tenant: -1, Stream: "news", Email: "-_+/=@example.org"},
	} {
		got, err := s.Open(tokenOf(t, s, tok))
		if err != nil {
			t.Errorf("%s: Open: %v", name, err)
		}
		if diff := cmp.Diff(tok, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestEveryAttemptHasTheSameToken(t *testing.T) {
	t.Parallel()
	token := tokenOf(t, signer(t, base, secret(1)), ann())
	if again := tokenOf(t, signer(t, base, secret(1)), ann()); again != token {
		t.Errorf("tokens of one recipient of one message differ: %s, %s", token, again)
	}
	seen := map[string]string{token: "ann"}
	for name, change := range map[string]func(*Token){
		"tenant":  func(x *Token) { x.Tenant++ },
		"stream":  func(x *Token) { x.Stream = "newsann" },
		"border":  func(x *Token) { x.Stream, x.Email = "newsa", "nn@example.org" },
		"message": func(x *Token) { x.Message[15]++ },
		"email":   func(x *Token) { x.Email = "bob@example.org" },
	} {
		tok := ann()
		change(&tok)
		other := tokenOf(t, signer(t, base, secret(1)), tok)
		if seen[other] != "" {
			t.Errorf("another %s has the token of %s", name, seen[other])
		}
		seen[other] = name
		// Reused nonces would give away what two plaintexts have in common.
		if nonce := other[2:16]; strings.HasPrefix(token[2:], nonce) {
			t.Errorf("another %s has the same nonce", name)
		}
	}
}

func TestTheAddressDoesNotShow(t *testing.T) {
	t.Parallel()
	token := tokenOf(t, signer(t, base, secret(1)), ann())
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"ann", "example", "news"} {
		if bytes.Contains(raw, []byte(word)) || strings.Contains(token, word) {
			t.Errorf("token %s holds %q", token, word)
		}
	}
}

func TestOpenRefusesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	s := signer(t, base, secret(1))
	token := tokenOf(t, s, ann())
	bad := map[string]string{
		"empty":              "",
		"another key":        tokenOf(t, signer(t, base, secret(2)), ann()),
		"cut":                token[:len(token)-4],
		"longer":             token + "AAAA",
		"padded":             token + "=",
		"line break":         token + "\n",
		"line break within":  token[:8] + "\r\n" + token[8:],
		"standard alphabet":  strings.Repeat("+", 40),
		"no body":            token[:16],
		"zeros":              strings.Repeat("A", 80),
		"over the cap":       strings.Repeat("A", maxToken+1),
		"far over the cap":   strings.Repeat("A", 1<<20),
		"not ASCII":          "é" + token,
		"the link":           base + "/u/" + token,
		"someone's own text": base64.RawURLEncoding.EncodeToString([]byte("ann@example.org")),
	}
	for i := range len(token) {
		for _, c := range []byte("Aa-") {
			if token[i] != c {
				bad["byte "+token[:i]+string(c)] = token[:i] + string(c) + token[i+1:]
			}
		}
	}
	for name, b := range bad {
		if got, err := s.Open(b); !errors.Is(err, ErrToken) || got != (Token{}) {
			t.Errorf("%s: Open = %+v, %v, want ErrToken", name, got, err)
		}
	}
}

// In base64 the last character may have unused bits, but a token still has only one valid spelling.
func TestOpenTakesOneSpelling(t *testing.T) {
	t.Parallel()
	s := signer(t, base, secret(1))
	for _, email := range []string{"ann@example.org", "anna@example.org", "annas@example.org"} {
		tok := ann()
		tok.Email = email
		token := tokenOf(t, s, tok)
		taken := 0
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			if _, err := s.Open(token[:len(token)-1] + string(c)); err == nil {
				taken++
			}
		}
		if taken != 1 {
			t.Errorf("%d spellings of the token of %s open, want 1", taken, email)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	token := tokenOf(t, signer(t, base, secret(1)), ann())
	both := signer(t, base, secret(2), secret(1))
	if got, err := both.Open(token); err != nil || got != ann() {
		t.Errorf("Open with the previous key = %+v, %v", got, err)
	}
	fresh := tokenOf(t, both, ann())
	if got, err := signer(t, base, secret(2)).Open(fresh); err != nil || got != ann() {
		t.Errorf("Open of a token made after the change = %+v, %v", got, err)
	}
	if _, err := signer(t, base, secret(2)).Open(token); !errors.Is(err, ErrToken) {
		t.Errorf("Open after the previous key is gone: %v, want ErrToken", err)
	}
}

// Two keys in 256 have the same id.
func TestKeysThatShareAnID(t *testing.T) {
	t.Parallel()
	ids := map[byte][]byte{}
	for i := range 1000 {
		candidate := append(secret(0), byte(i>>8), byte(i))
		k, err := derive(candidate)
		if err != nil {
			t.Fatal(err)
		}
		twin := ids[k.id]
		if twin == nil {
			ids[k.id] = candidate
			continue
		}
		token := tokenOf(t, signer(t, base, candidate), ann())
		if got, err := signer(t, base, twin, candidate).Open(token); err != nil || got != ann() {
			t.Errorf("Open = %+v, %v, want it opened by the second key of this id", got, err)
		}
		return
	}
	t.Fatal("no two keys of 1000 have the same id: it is more than a byte")
}

func TestHeaderLineFits(t *testing.T) {
	t.Parallel()
	long := "https://" + strings.Repeat("a.", 100) + "example/" + strings.Repeat("p", maxBase-216)
	if len(long) != maxBase {
		t.Fatalf("base of %d bytes, want %d", len(long), maxBase)
	}
	s := signer(t, long, secret(1))
	tok := Token{Stream: strings.Repeat("s", maxStream), Email: strings.Repeat("e", maxEmail)}
	token := tokenOf(t, s, tok)
	if len(token) != maxToken {
		t.Errorf("longest token has %d characters, want %d", len(token), maxToken)
	}
	h := s.Headers(tok)[0]
	if line := len(h.Name) + 2 + len(h.Value); line > 998 {
		t.Errorf("longest line = %d bytes, want at most 998", line)
	}
	for name, over := range map[string]Token{
		"stream":   {Stream: strings.Repeat("s", maxStream+1), Email: "a@b.example"},
		"email":    {Email: strings.Repeat("e", maxEmail+1)},
		"no email": {Stream: "news"},
	} {
		if got := s.Headers(over); got != nil {
			t.Errorf("%s over its cap: headers %v, want none", name, got)
		}
	}
}

func TestNewChecksBaseAndKeys(t *testing.T) {
	t.Parallel()
	for raw, ok := range map[string]bool{
		"https://mail.example.com":                true,
		"https://mail.example.com:8443":           true,
		"https://example.com/mail":                true,
		"http://127.0.0.1:8025":                   true,
		"http://[::1]:8025":                       true,
		"http://localhost:8025":                   true,
		"http://mail.example.com":                 false,
		"http://127.0.0.1.example.com":            false,
		"http://10.0.0.1":                         false,
		"https://mail.example.com/":               false,
		"https://u:p@mail.example.com":            false,
		"https://mail.example.com?x=1":            false,
		"https://mail.example.com?":               false,
		"https://mail.example.com#x":              false,
		"https://mail.example.com/<x>":            false,
		"https://mail.example.com/é":              false,
		"https://mail.example.com/a b":            false,
		"https://":                                false,
		"https://:443":                            false,
		"mailto:ann@example.org":                  false,
		"//mail.example.com":                      false,
		"mail.example.com":                        false,
		"":                                        false,
		"https://" + strings.Repeat("a", maxBase): false,
	} {
		if _, err := New(secret(1), raw); (err == nil) != ok {
			t.Errorf("New with base %q = %v, want it taken: %t", raw, err, ok)
		}
	}
	short := bytes.Repeat([]byte("k"), KeySize-1)
	for name, keys := range map[string][][]byte{"none": {nil}, "short": {short}, "short previous": {secret(1), short}} {
		_, err := New(keys[0], base, keys[1:]...)
		if err == nil || strings.Contains(err.Error(), "kkk") {
			t.Errorf("%s key: %v, want an error without the key", name, err)
		}
	}
}

// FuzzOpen checks that a token which opens is one that we would make, letter by letter.
func FuzzOpen(f *testing.F) {
	s := signer(f, base, secret(1))
	token := tokenOf(f, s, ann())
	for _, seed := range []string{"", token, token[:20], token + "A", "\n" + token, strings.Repeat("A", 80)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := s.Open(in)
		if err != nil {
			if !errors.Is(err, ErrToken) || got != (Token{}) {
				t.Errorf("Open(%q) = %+v, %v, want ErrToken alone", in, got, err)
			}
			return
		}
		if again := tokenOf(t, s, got); again != in {
			t.Errorf("Open took %q, which we write %q", in, again)
		}
	})
}

// FuzzRoundTrip checks that every value within the caps comes back.
func FuzzRoundTrip(f *testing.F) {
	s := signer(f, base, secret(1))
	f.Add(int32(1), "news", []byte("0123456789abcdef"), "ann@example.org")
	f.Fuzz(func(t *testing.T, tenant int32, stream string, message []byte, email string) {
		tok := Token{Tenant: mail.TenantID(tenant), Stream: stream, Email: email}
		copy(tok.Message[:], message)
		if s.Headers(tok) == nil {
			return
		}
		if got, err := s.Open(tokenOf(t, s, tok)); err != nil || got != tok {
			t.Errorf("Open = %+v, %v, want %+v", got, err, tok)
		}
	})
}
