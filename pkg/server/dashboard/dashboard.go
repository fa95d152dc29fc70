// Package dashboard serves the page that shows how the cluster is: static
// files that are part of the program. The page reads the REST API with the token of
// whoever looks at it, so nothing here needs to know who that is.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets
var assets embed.FS

// contentTypes by the end of a file's name. The machine's own list is not asked: it
// may be missing, or wrong.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".json": "application/json",
	"":      "text/plain; charset=utf-8", // licences
}

// headers of every answer. The page runs its own scripts only, talks to its own
// origin only, and cannot be framed.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	// A copy may be kept, and is asked about each time: after an update of the
	// program no old script meets a new one.
	"Cache-Control": "no-cache",
}

type file struct {
	contentType, etag string
	content           []byte
}

// Handler serves the page at / and its files below /assets/.
func Handler() http.Handler {
	files := read()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are allowed here", http.StatusMethodNotAllowed)
			return
		}
		f, found := files[r.URL.Path]
		if !found {
			http.Error(w, "there is nothing here", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", f.contentType)
		w.Header().Set("ETag", f.etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
	})
}

// read returns the files by the path of their URL.
func read() map[string]file {
	files := map[string]file{}
	err := fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		contentType, known := contentTypes[path.Ext(name)]
		if !known {
			return fmt.Errorf("%s has no content type", name)
		}
		sum := sha256.Sum256(content)
		url := "/" + name
		if strings.HasSuffix(name, "/index.html") {
			url = "/"
		}
		files[url] = file{contentType: contentType, etag: `"` + hex.EncodeToString(sum[:16]) + `"`, content: content}
		return nil
	})
	if err != nil {
		// The files are part of the program: only its build can be wrong.
		panic(fmt.Sprintf("the page that was built in cannot be read: %v", err))
	}
	return files
}
