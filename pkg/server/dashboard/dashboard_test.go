package dashboard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func ask(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		method, path string
		code         int
		contentType  string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/assets/app.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/assets/base.css", 200, "text/css; charset=utf-8"},
		{"GET", "/assets/icon.svg", 200, "image/svg+xml"},
		{"GET", "/assets/vendor/versions.json", 200, "application/json"},
		{"GET", "/assets/vendor/uplot/LICENSE", 200, "text/plain; charset=utf-8"},
		{"GET", "/assets/index.html", 404, "text/plain; charset=utf-8"},
		{"GET", "/assets/", 404, "text/plain; charset=utf-8"},
		{"GET", "/assets/../dashboard.go", 404, "text/plain; charset=utf-8"},
		{"GET", "/api/v1/nodes", 404, "text/plain; charset=utf-8"},
		{"POST", "/", 405, "text/plain; charset=utf-8"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			w := ask(c.method, c.path)
			if w.Code != c.code || w.Header().Get("Content-Type") != c.contentType {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Header().Get("Content-Type"), c.code, c.contentType)
			}
			if (c.method == "HEAD") != (w.Body.Len() == 0) {
				t.Errorf("the body has %d bytes", w.Body.Len())
			}
			policy := w.Header().Get("Content-Security-Policy")
			if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
				t.Errorf("content security policy is %q", policy)
			}
			if w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Error("browsers may guess the content type")
			}
		})
	}
}

func TestUnchangedFilesAreNotSentAgain(t *testing.T) {
	first := ask("GET", "/assets/app.js")
	etag := first.Header().Get("ETag")
	if !regexp.MustCompile(`^"[0-9a-f]{32}"$`).MatchString(etag) {
		t.Fatalf("ETag %s is not a strong one", etag)
	}
	if got := first.Header().Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control is %q", got)
	}
	if other := ask("GET", "/").Header().Get("ETag"); other == etag {
		t.Error("different files have the same ETag")
	}
	if again := ask("GET", "/assets/app.js", "If-None-Match", etag); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("got %d with %d bytes for a file that has not changed", again.Code, again.Body.Len())
	}
	if changed := ask("GET", "/assets/app.js", "If-None-Match", `"0"`); changed.Code != http.StatusOK {
		t.Errorf("got %d for a file that has changed", changed.Code)
	}
}

// TestVendoredFiles compares the libraries with the checksums that `make vendor-page`
// wrote down when npm had checked the packages.
func TestVendoredFiles(t *testing.T) {
	var packages []struct {
		Name, Version, License string
		SHA256                 map[string]string
	}
	content, err := assets.ReadFile("assets/vendor/versions.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &packages); err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{"versions.json": ""}
	for _, p := range packages {
		if p.Version == "" || p.License == "" || p.SHA256[p.Name+"/LICENSE"] == "" {
			t.Errorf("%s lacks a version or a licence", p.Name)
		}
		for name, sum := range p.SHA256 {
			sums[name] = sum
		}
	}
	err = fs.WalkDir(assets, "assets/vendor", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, "assets/vendor/")
		want, listed := sums[name]
		delete(sums, name)
		content, err := assets.ReadFile(path)
		if sum := sha256.Sum256(content); !listed || want != "" && hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not what was vendored: run make vendor-page", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range sums {
		t.Errorf("%s is missing: run make vendor-page", name)
	}
}

// TestPageIsSelfContained looks at what the page loads: each file is part of the
// program, and none comes from elsewhere.
func TestPageIsSelfContained(t *testing.T) {
	files := read()
	page := string(files["/"].content)
	found := regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1)
	if len(found) < 5 {
		t.Fatalf("found only %d files that the page loads", len(found))
	}
	for _, match := range found {
		if _, known := files[match[1]]; !known {
			t.Errorf("the page loads %s, which is not there", match[1])
		}
	}
	for _, inline := range []string{"<style", " style=", "<script>", " onclick="} {
		if strings.Contains(page, inline) {
			t.Errorf("the page has %q, which its content security policy forbids", inline)
		}
	}
}
