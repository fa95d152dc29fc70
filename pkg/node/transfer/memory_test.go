package transfer

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// TestMemoryIsBounded: neither the number of files, nor that of processors, nor their
// size. Sender and receiver are both in this process. TRANSFER_FILES=1000000 makes a
// million files.
func TestMemoryIsBounded(t *testing.T) {
	files := 20000
	if text := os.Getenv("TRANSFER_FILES"); text != "" {
		var err error
		files, err = strconv.Atoi(text)
		must(t, err)
	}
	b := newBed(t)
	for i := range files {
		directory := fmt.Sprintf("%s/d%03d", b.from, i/10000)
		if i%10000 == 0 {
			must(t, os.Mkdir(directory, 0o755))
		}
		must(t, os.WriteFile(fmt.Sprintf("%s/file-%07d", directory, i), nil, 0o644))
	}
	content := make([]byte, 64<<20)
	for i := range content {
		content[i] = byte(i>>3 + i>>20)
	}
	for i := range 8 {
		must(t, os.WriteFile(fmt.Sprintf("%s/large%d", b.from, i), content, 0o644))
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(64))
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var peak atomic.Uint64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			peak.Store(max(peak.Load(), now.HeapInuse))
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	must(t, b.connect(nil))
	began := time.Now()
	for range 2 {
		_, err := b.pass(PassOptions{Frozen: true})
		must(t, err)
		t.Logf("a pass over %d files: %s", files, time.Since(began))
		began = time.Now()
	}
	_, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	stop()
	<-done
	grown := (int64(peak.Load()) - int64(before.HeapInuse)) >> 20
	t.Logf("%d files, 8 of 64 MiB, 64 processors: the heap has grown by %d MiB at most, last pass %s", files, grown, time.Since(began))
	if grown > 96 {
		t.Errorf("the heap has grown by %d MiB, want at most 96", grown)
	}
}
