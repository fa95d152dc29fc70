package main

import (
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRun(t *testing.T) {
	for _, test := range []struct {
		name      string
		arguments []string
		want      runOptions
		wantErr   bool
	}{
		{name: "nothing means for ever", want: runOptions{}},
		{
			name: "everything",
			arguments: []string{"--cpu=250m", "--memory=64Mi", "--for=10s", "--exit-code=3", "--term-exit-code=4",
				"--write=/w", "--ready-file=/r", "--http=:8080"},
			want: runOptions{MilliCPU: 250, Memory: 64 << 20, For: 10 * time.Second, ExitCode: 3, TermExitCode: 4,
				ProgressFile: "/w", ReadyFile: "/r", HTTP: ":8080"},
		},
		{name: "whole and broken CPUs", arguments: []string{"--cpu=1.5"}, want: runOptions{MilliCPU: 1500}},
		{name: "decimal memory", arguments: []string{"--memory=2M"}, want: runOptions{Memory: 2_000_000}},
		{name: "plain bytes", arguments: []string{"--memory=4096"}, want: runOptions{Memory: 4096}},
		{name: "negative CPU", arguments: []string{"--cpu=-1"}, wantErr: true},
		{name: "no number", arguments: []string{"--cpu=much"}, wantErr: true},
		{name: "not a number", arguments: []string{"--memory=NaN"}, wantErr: true},
		{name: "unknown unit", arguments: []string{"--memory=1Xi"}, wantErr: true},
		{name: "beyond any machine", arguments: []string{"--memory=1e9Ti"}, wantErr: true},
		{name: "negative time", arguments: []string{"--for=-1s"}, wantErr: true},
		{name: "no exit code", arguments: []string{"--exit-code=256"}, wantErr: true},
		{name: "stray argument", arguments: []string{"extra"}, wantErr: true},
		{name: "unknown flag", arguments: []string{"--frobnicate"}, wantErr: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseRun(test.arguments, io.Discard)
			if (err != nil) != test.wantErr {
				t.Fatalf("parseRun(%q) error = %v, want error: %v", test.arguments, err, test.wantErr)
			}
			if diff := cmp.Diff(test.want, got); err == nil && diff != "" {
				t.Errorf("parseRun(%q) (-want +got):\n%s", test.arguments, diff)
			}
		})
	}
}
