package checkpoint

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A large file is copied by several workers; a wrong byte in any of its chunks is found.
func TestALargeFileArrives(t *testing.T) {
	c := newCarry(t)
	c.transient = true
	c.reopen()
	content := make([]byte, 7*chunkSize+12345)
	_, err := rand.NewChaCha8([32]byte{1}).Read(content)
	must(t, err)
	write(t, c.source+"/pages", content, 0o600)
	c.pass(true)
	digest, err := c.writer.Seal(t.Context())
	must(t, err)
	onClaim := filepath.Join(c.claim, testUID, "volumes/data/pages")
	for _, at := range []int{0, 3*chunkSize + 7, len(content) - 1} {
		wrong := bytes.Clone(content)
		wrong[at]++
		must(t, os.WriteFile(onClaim, wrong, 0o600))
		if _, err := c.reader.RestoreSealed(t.Context(), digest, nil); ReasonOf(err) != ReasonCorrupt {
			t.Errorf("byte %d is wrong: error %v", at, err)
		}
	}
	must(t, os.WriteFile(onClaim, content, 0o600))
	_, err = c.reader.RestoreSealed(t.Context(), digest, nil)
	must(t, err)
	if arrived, err := os.ReadFile(c.end + "/pages"); err != nil || !bytes.Equal(arrived, content) {
		t.Errorf("%d bytes arrived of %d, equal %t, error %v", len(arrived), len(content), bytes.Equal(arrived, content), err)
	}
}

// BenchmarkImages is what is copied of a process with 256 MiB of memory.
func BenchmarkImages(b *testing.B) {
	c := newCarry(b)
	c.transient = true
	content := make([]byte, 256<<20)
	_, err := rand.NewChaCha8([32]byte{1}).Read(content)
	must(b, err)
	var restoring time.Duration
	for b.Loop() {
		b.StopTimer()
		c.reopen()
		must(b, os.RemoveAll(c.end+"/pages"))
		must(b, os.RemoveAll(filepath.Join(c.claim, testUID)))
		c.reopen()
		write(b, c.source+"/pages", content, 0o600)
		b.StartTimer()
		c.pass(true)
		digest, err := c.writer.Seal(b.Context())
		must(b, err)
		b.StopTimer()
		start := time.Now()
		_, err = c.reader.RestoreSealed(b.Context(), digest, nil)
		must(b, err)
		restoring += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(restoring.Seconds()*1000/float64(b.N), "restore-ms/op")
}
