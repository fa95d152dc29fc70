package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// ledger is what a collector knows of one writer.
type ledger struct {
	// Last is the highest record acknowledged.
	Last int64 `json:"last"`
	// Lost counts records that were acknowledged, and that a writer which came
	// back no longer had.
	Lost int64 `json:"lost"`
	// Duplicated counts records that were acknowledged more than once, Skipped
	// those that never were although a later one was.
	Duplicated int64 `json:"duplicated"`
	Skipped    int64 `json:"skipped"`
	// Resumed counts how often a writer began or came back.
	Resumed int64 `json:"resumed"`
	// LongestGapMillis is the longest time between two acknowledgements, since
	// the last report with reset.
	LongestGapMillis int64 `json:"longestGapMillis"`
	// Hosts are those that acknowledged records, in order of appearance.
	Hosts []string `json:"hosts"`

	previous time.Time
	// lastHost and lastRecord tell a repeated request, whose answer was lost,
	// from a record that is acknowledged again.
	lastHost   string
	lastRecord int64
}

// collector takes acknowledgements of any number of writers.
type collector struct {
	mu       sync.Mutex
	writers  map[string]*ledger
	finished bool
	now      func() time.Time
}

func collect(arguments []string, output io.Writer) error {
	flags := flag.NewFlagSet("workload collect", flag.ContinueOnError)
	flags.SetOutput(output)
	address := flags.String("http", ":8080", "address to serve on")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	c := &collector{writers: map[string]*ledger{}, now: time.Now}
	server := &http.Server{Addr: *address, Handler: c.handler(), ReadHeaderTimeout: 5 * time.Second}
	return server.ListenAndServe()
}

func (c *collector) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /resume", c.accept((*ledger).resume))
	mux.HandleFunc("POST /acknowledge", c.accept((*ledger).acknowledge))
	mux.HandleFunc("GET /report", c.report)
	mux.HandleFunc("POST /finish", c.finish)
	mux.HandleFunc("GET /finished", c.isFinished)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

func (c *collector) accept(take func(l *ledger, host string, record int64, now time.Time) int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		number, err := strconv.ParseInt(query.Get("record"), 10, 64)
		if err != nil || query.Get("writer") == "" {
			http.Error(w, "writer and record are required", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		l := c.writers[query.Get("writer")]
		if l == nil {
			l = &ledger{}
			c.writers[query.Get("writer")] = l
		}
		fmt.Fprintln(w, take(l, query.Get("host"), number, c.now()))
	}
}

func (l *ledger) resume(_ string, record int64, _ time.Time) int64 {
	l.Resumed++
	if record < l.Last {
		l.Lost += l.Last - record
	}
	l.lastHost = ""
	return l.Last
}

func (l *ledger) acknowledge(host string, record int64, now time.Time) int64 {
	switch {
	case record == l.lastRecord && host == l.lastHost:
		// The same request again: its first answer did not arrive.
		return l.Last
	case record <= l.Last:
		l.Duplicated++
	case record > l.Last+1:
		l.Skipped += record - l.Last - 1
	}
	l.Last = max(l.Last, record)
	if len(l.Hosts) == 0 || l.Hosts[len(l.Hosts)-1] != host {
		l.Hosts = append(l.Hosts, host)
	}
	l.lastHost, l.lastRecord = host, record
	if !l.previous.IsZero() {
		l.LongestGapMillis = max(l.LongestGapMillis, now.Sub(l.previous).Milliseconds())
	}
	l.previous = now
	return l.Last
}

// finish tells everybody who asks /finished that the work is done.
func (c *collector) finish(http.ResponseWriter, *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
}

func (c *collector) isFinished(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished {
		http.Error(w, "not yet", http.StatusNotFound)
	}
}

// report writes all ledgers as JSON, by writer; ?reset=true begins a new
// measurement of gaps.
func (c *collector) report(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(c.writers); err != nil {
		return
	}
	if r.URL.Query().Get("reset") == "true" {
		for _, l := range c.writers {
			l.LongestGapMillis = 0
		}
	}
}
