package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"text/template"
)

const canary = "cAnArY-s3cr3t/value"

// holder has secrets in all the places where code keeps them: structs, maps, slices and behind pointers.
type holder struct {
	Name  string
	Key   Secret
	Ptr   *Secret
	Map   map[string]Secret
	Slice []Secret
	Any   any

	hidden Secret // fmt can't call methods on it
}

func held() holder {
	s := NewSecret(canary)
	return holder{Name: "n", Key: s, Ptr: &s, Map: map[string]Secret{"k": s}, Slice: []Secret{s}, Any: s, hidden: s}
}

// leaks reports whether the text gives the secret away, in clear or in an encoding that fmt produces.
func leaks(text string) bool {
	for _, form := range []string{
		canary, hex.EncodeToString([]byte(canary)), strings.ToUpper(hex.EncodeToString([]byte(canary))),
		base64.StdEncoding.EncodeToString([]byte(canary)), fmt.Sprintf("%d", []byte(canary)), "cAnArY",
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestNoVerbPrintsASecret(t *testing.T) {
	t.Parallel()
	s := NewSecret(canary)
	h := held()
	for _, verb := range "vTtbcdoOqxXUeEfFgGspw" {
		for _, flag := range []string{"", "+", "#", "-", " ", "0", "20", ".3", "+#", "# "} {
			format := "%" + flag + string(verb)
			for name, arg := range map[string]any{
				"secret": s, "slice": []Secret{s}, "map": map[string]Secret{"k": s}, "array": [1]Secret{s}, "any": any(s),
				"struct": struct{ S Secret }{s}, "unexported field": struct{ s Secret }{s}, "holder": h, "in error": fmt.Errorf("x: %v", s),
			} {
				if text := fmt.Sprintf(format, arg); leaks(text) {
					t.Errorf("%s of %s prints the secret: %s", format, name, text)
				}
			}
		}
	}
	// A pointer, whose address the other verbs may print.
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(format, &s) + fmt.Sprintf(format, &h); leaks(text) {
			t.Errorf("%s of a pointer prints the secret: %s", format, text)
		}
	}
	if got := fmt.Sprint(s) + s.String() + s.GoString(); got != strings.Repeat(redacted, 3) {
		t.Errorf("printed secret = %s", got)
	}
}

func TestNoEncoderPrintsASecret(t *testing.T) {
	t.Parallel()
	s, h := NewSecret(canary), held()
	encoders := map[string]func(any) ([]byte, error){
		"json": json.Marshal,
		"xml":  xml.Marshal,
		"gob": func(v any) ([]byte, error) {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(v)
			return b.Bytes(), err
		},
		"template": func(v any) ([]byte, error) {
			var b bytes.Buffer
			err := template.Must(template.New("").Parse(`{{.}}{{printf "%s %v %x" . . .}}`)).Execute(&b, v)
			return b.Bytes(), err
		},
	}
	for name, encode := range encoders {
		for _, v := range []any{s, &s, h, &h, []Secret{s}, map[string]Secret{"k": s}, struct{ S Secret }{s}} {
			if out, _ := encode(v); leaks(string(out)) {
				t.Errorf("%s of %T prints the secret: %s", name, v, out)
			}
		}
	}
	if out, err := json.Marshal(map[string]any{"k": s}); err != nil || string(out) != `{"k":"[secret]"}` {
		t.Errorf("json = %s, %v; want it redacted", out, err)
	}
	if text, err := s.MarshalText(); err != nil || string(text) != redacted {
		t.Errorf("text = %s, %v; want it redacted", text, err)
	}
	// A secret as a map key is encoded by MarshalText.
	if out, err := json.Marshal(map[Secret]int{s: 1}); err != nil || leaks(string(out)) {
		t.Errorf("json of a map key = %s, %v; want it redacted", out, err)
	}
}

func TestNoLogPrintsASecret(t *testing.T) {
	t.Parallel()
	s, h := NewSecret(canary), held()
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		log := slog.New(handler).With("with", s, slog.Group("g", "s", s))
		log.LogAttrs(t.Context(), slog.LevelInfo, "m", slog.Any("a", s), slog.Any("p", &s), slog.Group("g", slog.Any("h", h)))
		log.Info("m", "s", s, "p", &s, "h", h, "hp", &h, "slice", []Secret{s}, "err", fmt.Errorf("x %v", s), "a", any(s))
	}
	if leaks(out.String()) {
		t.Errorf("the log holds the secret: %s", out.String())
	}
	if !strings.Contains(out.String(), redacted) {
		t.Errorf("the log does not show that there is a secret: %s", out.String())
	}
}

func TestSecretIsReadFromTextAndJSON(t *testing.T) {
	t.Parallel()
	var s Secret
	if !s.IsZero() {
		t.Error("the zero Secret is not zero")
	}
	if err := s.UnmarshalText([]byte(canary)); err != nil || s.Reveal() != canary || s.IsZero() {
		t.Errorf("UnmarshalText = %v, revealed %v", err, s.Reveal() == canary)
	}
	var h struct{ Key Secret }
	if err := json.Unmarshal([]byte(`{"Key":"`+canary+`"}`), &h); err != nil || h.Key.Reveal() != canary {
		t.Errorf("json.Unmarshal = %v, revealed %v", err, h.Key.Reveal() == canary)
	}
}

// A copy must not be written back as the redacted text and then used as a credential.
func TestRedactedTextIsRefused(t *testing.T) {
	t.Parallel()
	out, err := json.Marshal(held().Key)
	if err != nil {
		t.Fatal(err)
	}
	var s Secret
	if err := json.Unmarshal(out, &s); err == nil {
		t.Errorf("reading back %s gave a secret, want an error", out)
	}
}

func TestEqualComparesCredentials(t *testing.T) {
	t.Parallel()
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(NewSecret("b")) || NewSecret("a").Equal(NewSecret("aa")) {
		t.Error("Equal does not compare what the secrets hold")
	}
	if !NewSecret("").Equal(Secret{}) || NewSecret("") != (Secret{}) {
		t.Error("the empty secret is not the zero Secret")
	}
}

func box(t *testing.T, fill byte) *Box {
	t.Helper()
	b, err := NewBox(bytes.Repeat([]byte{fill}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealedOpensOnlyInItsPlace(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	first := b.Seal(NewSecret("first"), "account/1/api_key")
	second := b.Seal(NewSecret("second"), "account/2/api_key")
	for name, c := range map[string]struct {
		box     *Box
		sealed  []byte
		binding string
		want    string // "" for ErrSealed
	}{
		"in its place":       {b, first, "account/1/api_key", "first"},
		"the other's place":  {b, second, "account/2/api_key", "second"},
		"rows swapped":       {b, second, "account/1/api_key", ""},
		"field swapped":      {b, first, "account/1/secret", ""},
		"no binding":         {b, first, "", ""},
		"longer binding":     {b, first, "account/1/api_key/", ""},
		"another key":        {box(t, 2), first, "account/1/api_key", ""},
		"cut":                {b, first[:len(first)-1], "account/1/api_key", ""},
		"only the nonce":     {b, first[:12], "account/1/api_key", ""},
		"shorter than nonce": {b, first[:11], "account/1/api_key", ""},
		"nothing":            {b, nil, "account/1/api_key", ""},
		"something appended": {b, append(bytes.Clone(first), 0), "account/1/api_key", ""},
	} {
		got, err := c.box.Open(c.sealed, c.binding)
		if c.want == "" {
			if !errors.Is(err, ErrSealed) || !got.IsZero() {
				t.Errorf("%s: Open = %v, want ErrSealed and nothing revealed", name, err)
			}
			continue
		}
		if err != nil || got.Reveal() != c.want {
			t.Errorf("%s: Open = %v, want what was sealed", name, err)
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	sealed := b.Seal(NewSecret(canary), "x")
	for i := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := b.Open(bad, "x"); !errors.Is(err, ErrSealed) {
			t.Fatalf("bit %d flipped: Open = %v, want ErrSealed", i, err)
		}
	}
}

func TestSealIsDifferentEachTimeAndHidesTheText(t *testing.T) {
	t.Parallel()
	b, seen := box(t, 1), map[string]bool{}
	for range 1000 {
		sealed := b.Seal(NewSecret(canary), "x")
		if bytes.Contains(sealed, []byte(canary)) {
			t.Fatal("sealed value holds the text")
		}
		if nonce := string(sealed[:12]); seen[nonce] {
			t.Fatal("a nonce came twice")
		} else {
			seen[nonce] = true
		}
	}
	if got, err := b.Open(b.Seal(Secret{}, "x"), "x"); err != nil || !got.IsZero() {
		t.Errorf("the empty secret = %v, want it back", err)
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	key := make([]byte, KeySize)
	for i := range key {
		key[i] = byte(0xfb + i*7) // needs + and / in base64
	}
	for name, text := range map[string]string{
		"hex": hex.EncodeToString(key), "upper hex": strings.ToUpper(hex.EncodeToString(key)),
		"base64": base64.StdEncoding.EncodeToString(key), "base64 without padding": base64.RawStdEncoding.EncodeToString(key),
		"base64url": base64.URLEncoding.EncodeToString(key), "base64url without padding": base64.RawURLEncoding.EncodeToString(key),
		"with white space": "  " + hex.EncodeToString(key) + "\r\n",
	} {
		got, err := ParseKey(text)
		if err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: ParseKey = %v, want the key", name, err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "short hex": hex.EncodeToString(key[:31]), "long hex": hex.EncodeToString(append(key, 0)),
		"raw": string(key), "passphrase": "correct horse battery staple", "31 bytes of base64": base64.StdEncoding.EncodeToString(key[:31]),
	} {
		got, err := ParseKey(text)
		if err == nil {
			t.Errorf("%s: ParseKey gave a key of %d bytes, want an error", name, len(got))
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error holds the text", name)
		}
	}
}

func TestNewBoxWantsTheWholeKey(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 16, 24, 31, 33} {
		if _, err := NewBox(make([]byte, n)); err == nil {
			t.Errorf("NewBox of %d bytes succeeded, want an error: AES-128 is not what is promised", n)
		}
	}
}

// Fields of a Secret and of a Box can't be reached by reflection-driven encoders, which see exported fields only.
func TestNothingIsExported(t *testing.T) {
	t.Parallel()
	for _, typ := range []reflect.Type{reflect.TypeFor[Secret](), reflect.TypeFor[Box]()} {
		for i := range typ.NumField() {
			if typ.Field(i).IsExported() {
				t.Errorf("%s.%s is exported", typ, typ.Field(i).Name)
			}
		}
	}
}

func FuzzOpenRefusesWhatItDidNotSeal(f *testing.F) {
	b, err := NewBox(bytes.Repeat([]byte{7}, KeySize))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("short"), "x")
	f.Add(bytes.Repeat([]byte{0}, 64), "account/1/api_key")
	f.Fuzz(func(t *testing.T, sealed []byte, binding string) {
		if _, err := b.Open(sealed, binding); !errors.Is(err, ErrSealed) {
			t.Errorf("Open of outside bytes = %v, want ErrSealed", err)
		}
	})
}

func FuzzParseKeyGivesAWholeKeyOrNone(f *testing.F) {
	f.Add(strings.Repeat("a1", 32))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := ParseKey(text); err == nil && len(key) != KeySize {
			t.Errorf("ParseKey(%q) gave %d bytes", text, len(key))
		}
	})
}
