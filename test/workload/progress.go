package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// progress is how long the work has run, here and before.
type progress struct {
	before time.Duration
	start  time.Time
}

func (p progress) at(now time.Time) time.Duration { return p.before + now.Sub(p.start) }

// loadProgress carries on what the file says; no file is a beginning.
func loadProgress(path string, now time.Time) (progress, error) {
	p := progress{start: now}
	if path == "" {
		return p, nil
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("carry on: %w", err)
	}
	millis, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil || millis < 0 {
		return p, fmt.Errorf("carry on: %s does not hold a number of milliseconds", path)
	}
	p.before = time.Duration(millis) * time.Millisecond
	return p, nil
}

// save replaces the file as a whole, so that a reader never sees half of it.
func (p progress) save(path string, now time.Time) error {
	if path == "" {
		return nil
	}
	unfinished := path + ".unfinished"
	content := strconv.FormatInt(p.at(now).Milliseconds(), 10) + "\n"
	if err := os.WriteFile(unfinished, []byte(content), 0o644); err != nil {
		return fmt.Errorf("save progress: %w", err)
	}
	if err := os.Rename(unfinished, path); err != nil {
		return fmt.Errorf("save progress: %w", err)
	}
	return nil
}
