package dash

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/go-chi/chi/v5"
)

//go:embed static
var staticFiles embed.FS

// file is a static file, plain and compressed.
type file struct {
	kind        string
	plain, gzip []byte
}

// statics are the static files by their names in URLs, which hold a hash of the content. hashed has these names by those in
// the folder.
var statics, hashed = loadStatics()

func loadStatics() (map[string]file, map[string]string) {
	files, names := map[string]file{}, map[string]string{}
	entries, err := staticFiles.ReadDir("static")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	for _, e := range entries {
		plain, err := staticFiles.ReadFile("static/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(plain)
		ext := path.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
		_, _ = z.Write(plain)                                 // a buffer takes everything
		_ = z.Close()
		kind := mime.TypeByExtension(ext)
		if kind == "" {
			kind = "text/plain; charset=utf-8"
		}
		files[name], names[e.Name()] = file{kind: kind, plain: plain, gzip: b.Bytes()}, name
	}
	return files, names
}

// serveStatic serves a file to everybody, for as long as browsers like to keep it: another content has another name.
func serveStatic(w http.ResponseWriter, r *http.Request) {
	f, ok := statics[chi.URLParam(r, "file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	body := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.gzip
	}
	_, _ = w.Write(body) // an error means that the visitor has left
}
