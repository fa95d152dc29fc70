package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-storage/orchestrator/internal/race"
)

// TestMemoryIsBounded: neither by the number of files, nor that of processors, nor their
// size. Sender and receiver are both in this process. TRANSFER_FILES=1000000 makes a
// million files, one in ten of them with content, and 8 large ones of 4 GiB.
func TestMemoryIsBounded(t *testing.T) {
	files, size := 20000, int64(64<<20)
	if text := os.Getenv("TRANSFER_FILES"); text != "" {
		var err error
		files, err = strconv.Atoi(text)
		must(t, err)
		size = 4 << 30
	}
	b := newBed(t)
	makeMany(t, b.from, files)
	for i := range 8 {
		makeSpread(t, fmt.Sprintf("%s/large%d", b.from, i), size, byte(i))
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(64))
	peak := watchHeap(t)
	must(t, b.connect(nil))
	began := time.Now()
	for range 2 {
		_, err := b.pass(PassOptions{Frozen: true})
		must(t, err)
		t.Logf("a pass over %d files: %s", files, time.Since(began))
		began = time.Now()
	}
	last, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	t.Logf("the last pass: %s", time.Since(began))
	grown, resident := peak()
	t.Logf("%d files, 8 of %d MiB, 64 processors: the heap has grown by %d MiB at most, the process has had %d MiB", files, size>>20, grown>>20, resident>>20)
	// The race detector has memory of its own beside the heap.
	if grown > 96<<20 || resident > 160<<20 && !race.Enabled {
		t.Errorf("the heap has grown by %d MiB, want at most 96; the process has had %d MiB, want at most 160", grown>>20, resident>>20)
	}
	if last.Files < int64(files)+8 {
		t.Errorf("the last pass has found %d files", last.Files)
	}
}

// makeMany makes files, ten thousand in a directory.
func makeMany(t testing.TB, root string, files int) {
	for i := range files {
		directory := fmt.Sprintf("%s/d%03d", root, i/10000)
		if i%10000 == 0 {
			must(t, os.Mkdir(directory, 0o755))
		}
		var content []byte
		if i%10 == 0 {
			content = fmt.Appendf(nil, "content of %d\n", i)
		}
		must(t, os.WriteFile(fmt.Sprintf("%s/file-%07d", directory, i), content, 0o644))
	}
}

// makeSpread makes a file with a block of data in each MiB: each chunk has data, and a
// disk holds several of them.
func makeSpread(t testing.TB, path string, size int64, seed byte) {
	file, err := os.Create(path)
	must(t, err)
	err = file.Truncate(size)
	block := make([]byte, blockSize)
	for at := int64(0); at < size && err == nil; at += 1 << 20 {
		copy(block, fmt.Sprintf("%d of %d", at, seed))
		_, err = file.WriteAt(block, at)
	}
	must(t, errors.Join(err, file.Close()))
}

// watchHeap returns what ends the watch and says by how many bytes the heap has grown, and
// how many the process has had, at most.
func watchHeap(t testing.TB) (end func() (grown, resident int64)) {
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak so far is not this one's
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
	return func() (grown, resident int64) {
		stop()
		<-done
		status, err := os.ReadFile("/proc/self/status")
		must(t, err)
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		_, err = fmt.Sscan(rest, &resident)
		must(t, err)
		return int64(peak.Load()) - int64(before.HeapInuse), resident << 10
	}
}
