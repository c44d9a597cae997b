package mail

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestFactsCountMetadataAsJSON(t *testing.T) {
	t.Parallel()
	for _, md := range []map[string]string{
		nil, {}, {"k": ""}, {"k": "v", "l": "w"}, {`a"\b`: `"quoted" \ back`, "tab": "\t\t", "ž": strings.Repeat("žluť", 100), "html": "<&>"},
	} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(md); err != nil {
			t.Fatal(err)
		}
		want := 0
		if len(md) > 0 {
			want = len(strings.TrimSpace(b.String()))
		}
		m := Message{Metadata: md}
		if got := m.Facts().MetaBytes; got != want {
			t.Errorf("metadata %v counts %d bytes, want %d", md, got, want)
		}
	}
}
