package transfer

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
)

// TestDigestsOfChunks: they depend on all of a chunk, and on the key where there is one.
func TestDigestsOfChunks(t *testing.T) {
	one, err := newHasher(bytes.Repeat([]byte{1}, hashKeySize))
	must(t, err)
	other, err := newHasher(bytes.Repeat([]byte{2}, hashKeySize))
	must(t, err)
	half, err := newHasher(append(bytes.Repeat([]byte{1}, hashKeySize/2), make([]byte, hashKeySize/2)...))
	must(t, err)
	chunks := []chunk{
		{length: 4, layout: []byte{0, 1}, data: []byte("data")},
		{length: 4, layout: []byte{0, 1}, data: []byte("date")},
		{length: 5, layout: []byte{0, 1}, data: []byte("data")},
		{length: 4, layout: []byte{1, 1}, data: []byte("data")},
		{length: 4, layout: []byte{0, 1}, data: []byte("data\x00")},
		{length: 4, layout: []byte{0}, data: []byte("\x01data")},
		{length: chunkSize, layout: []byte{0, 1}, data: make([]byte, chunkSize)},
	}
	seen := map[[sha256.Size]byte]string{}
	for _, h := range []*hasher{plainHash, one, other, half} {
		for i := range chunks {
			sum := h.sum(&chunks[i])
			if sum != h.sum(&chunks[i]) {
				t.Errorf("%s: chunk %d has two digests", h.name, i)
			}
			if before := seen[sum]; before != "" {
				t.Errorf("%s, chunk %d, has the digest of %s", h.name, i, before)
			}
			seen[sum] = h.name
		}
	}
	for _, size := range []int{1, hashKeySize - 1, hashKeySize + 1} {
		if _, err := newHasher(make([]byte, size)); err == nil {
			t.Errorf("a key of %d bytes is accepted", size)
		}
	}
}

// TestTheHashOfAReceiver: with a copy it is SHA-256, which needs no key to be checked;
// without it has a key, which the receiver keeps for later connections.
func TestTheHashOfAReceiver(t *testing.T) {
	b := newBed(t)
	b.withCopy = false
	content := newTreeMaker(t, 1, b.from).bytes(2*chunkSize + 5)
	must(t, os.WriteFile(b.from+"/large", content, 0o600))
	must(t, b.connect(nil))
	first, err := b.pass(PassOptions{})
	must(t, err)
	name := b.source.hash.name
	if b.source.hash.isPlain() || name != b.destination.hash.name {
		t.Errorf("without a copy the hashes are %s and %s", name, b.destination.hash.name)
	}
	b.close()
	must(t, b.connect(nil))
	again, err := b.pass(PassOptions{})
	must(t, err)
	if b.source.hash.name != name || again.Written != 0 || again.Digest != first.Digest {
		t.Errorf("after a restart: hash %s, want %s; %+v", b.source.hash.name, name, again)
	}
	// Another receiver has another key, and the sender reads its files again.
	b.close()
	must(t, os.RemoveAll(b.state))
	must(t, b.connect(nil))
	other, err := b.pass(PassOptions{})
	must(t, err)
	if b.source.hash.name == name || other.Written != 0 || other.Digest == first.Digest {
		t.Errorf("with another key: hash %s, %+v", b.source.hash.name, other)
	}
	b.close()
	b.withCopy = true
	must(t, b.connect(nil))
	last, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	if !b.source.hash.isPlain() || last.Written != 0 {
		t.Errorf("with a copy: hash %s, %+v", b.source.hash.name, last)
	}
	third, _, err := b.restore(last.Digest)
	must(t, err)
	compareTrees(t, b.from, third)
}

// TestWhatIsInPlaceIsVerified: what counts is the file, not what came.
func TestWhatIsInPlaceIsVerified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	content := append(make([]byte, blockSize), bytes.Repeat([]byte("x"), 3*blockSize)...)
	must(t, os.WriteFile(path, content, 0o600))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	for _, test := range []struct {
		change func()
		want   bool
	}{
		{func() {}, true},
		{func() { _, err = file.WriteAt([]byte("y"), 2*blockSize); must(t, err) }, false},
		{func() { must(t, file.Truncate(2*blockSize)) }, false},
	} {
		test.change()
		c := packed(bytes.Clone(content))
		same, err := verifyChunk(int(file.Fd()), 0, &c, plainHash)
		if err != nil || same != test.want {
			t.Errorf("verified: %v, %v, want %v", same, err, test.want)
		}
	}
}
