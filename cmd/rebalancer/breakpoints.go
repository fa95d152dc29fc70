//go:build breakpoints

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/ai-storage/orchestrator/pkg/devcluster"
)

// onStep asks a test before and after every step of a migration, and goes on
// when it is answered. The test may end this process, or another, meanwhile.
func onStep(step string) error {
	address := os.Getenv(devcluster.BreakpointURL)
	if address == "" {
		return nil
	}
	client := &http.Client{Timeout: 5 * time.Minute}
	response, err := client.Post(address+"/?step="+url.QueryEscape(step), "", nil)
	if err != nil {
		return fmt.Errorf("breakpoint %q: %w", step, err)
	}
	return response.Body.Close()
}
