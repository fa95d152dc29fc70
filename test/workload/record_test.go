package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOpenRecords(t *testing.T) {
	tests := []struct {
		name, content string
		last          int64
		left          string
		fails         bool
	}{
		{"new", "", 0, "", false},
		{"whole", "1\n2\n3\n", 3, "1\n2\n3\n", false},
		{"a record that was never finished", "1\n2\n3", 2, "1\n2\n", false},
		{"a gap", "1\n3\n", 0, "", true},
		{"twice", "1\n1\n", 0, "", true},
		{"garbage", "1\n\x00\x00\n", 0, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "records")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			file, last, err := openRecords(path)
			if (err != nil) != test.fails {
				t.Fatalf("error %v, want one: %t", err, test.fails)
			}
			if test.fails {
				return
			}
			defer file.Close()
			left, err := os.ReadFile(path)
			if err != nil || last != test.last || string(left) != test.left {
				t.Errorf("last %d, content %q, %v, want %d, %q", last, left, err, test.last, test.left)
			}
		})
	}
}

// A writer that continues where it was loses and repeats nothing; one that comes
// back with an older file, and two at once, are found.
func TestRecordsAreCounted(t *testing.T) {
	c := &collector{writers: map[string]*ledger{}, now: time.Now}
	server := httptest.NewServer(c.handler())
	defer server.Close()
	path := filepath.Join(t.TempDir(), "records")
	write := func(until int64) {
		t.Helper()
		o := recordOptions{File: path, Collector: server.URL, Writer: "w", Records: until}
		if err := record(o, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	write(20)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(50)
	if l := reported(t, server.URL); l.Last != 50 || l.Lost+l.Duplicated+l.Skipped != 0 || l.Resumed != 2 {
		t.Errorf("after an orderly restart: %+v", l)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	write(60)
	if l := reported(t, server.URL); l.Lost != 30 || l.Duplicated != 30 || l.Last != 60 {
		t.Errorf("after a restart with an old file: %+v, want 30 lost and 30 repeated", l)
	}
}

func TestAnAnswerThatGotLostIsNoDuplicate(t *testing.T) {
	now := time.Unix(0, 0)
	l := &ledger{}
	for _, n := range []int64{1, 2, 2, 3} {
		now = now.Add(5 * time.Millisecond)
		l.acknowledge("a", n, now)
	}
	if l.Duplicated != 0 || l.Last != 3 {
		t.Errorf("one host: %+v", l)
	}
	l.acknowledge("b", 3, now)
	if l.Duplicated != 1 {
		t.Errorf("another host: %+v, want a duplicate", l)
	}
	l.acknowledge("b", 6, now.Add(time.Second))
	if l.Skipped != 2 || l.LongestGapMillis != 1000 || strings.Join(l.Hosts, "") != "ab" {
		t.Errorf("%+v", l)
	}
}

func reported(t *testing.T, address string) ledger {
	t.Helper()
	response, err := http.Get(address + "/report")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	all := map[string]ledger{}
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all["w"]
}

func TestFill(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := fill(fillOptions{Dir: dir, Bytes: 1001, Files: 3}); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.Name() != "fills" {
			bytes += info.Size()
		}
	}
	runs, err := os.ReadFile(filepath.Join(dir, "fills"))
	if err != nil || bytes != 1001 || len(entries) != 4 || string(runs) != "filled\nfilled\n" {
		t.Errorf("%d bytes in %d files, runs %q, %v", bytes, len(entries), runs, err)
	}
}
