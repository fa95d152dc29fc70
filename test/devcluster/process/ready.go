package process

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	readyTimeout  = 90 * time.Second
	readyInterval = 100 * time.Millisecond
	// errorLogLines is how much of a log an error message quotes.
	errorLogLines = 15
)

// StartReady starts a process and waits until ready returns nil. When the
// process ends before, or 90 s pass, the error quotes the end of its log.
func StartReady(ctx context.Context, stateDir string, spec Spec, ready func(context.Context) error) error {
	record, err := Start(stateDir, spec)
	if err != nil {
		return err
	}
	return record.await(ctx, stateDir, ready)
}

func (r Record) await(ctx context.Context, stateDir string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		reason := ready(ctx)
		if reason == nil {
			return nil
		}
		if !r.Alive() {
			return fmt.Errorf("%s ended before it was ready; the end of %s:\n%s",
				r.Name, LogPath(stateDir, r.Name), LogTail(stateDir, r.Name, errorLogLines))
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("wait for %s: %w", r.Name, context.Canceled)
			}
			return fmt.Errorf("%s is not ready after %s: %w; the end of %s:\n%s", r.Name, readyTimeout, reason,
				LogPath(stateDir, r.Name), LogTail(stateDir, r.Name, errorLogLines))
		case <-ticker.C:
		}
	}
}

// AnswersOK checks a health endpoint of this machine that needs no credentials.
// Nothing secret is sent, so a certificate is not checked; and the machine's
// proxy is not asked, which cannot reach its own bridges.
func AnswersOK(url string, timeout time.Duration) func(context.Context) error {
	client := &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	}
}
