package transfer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ai-storage/orchestrator/pkg/node/atomicfile"
)

// hashKeySize is that of the key of a keyed hash, in bytes: half for the universal hash,
// half for the HMAC.
const hashKeySize = 32

// hasher makes the digests of chunks. Two chunks with the same digest are taken for equal.
//
// Without a key it is SHA-256: whoever has the digest of a manifest can check a sealed copy
// that others may have written. With one it is the GMAC of the data, and the HMAC-SHA-256 of
// that and the layout, which takes an eighth of the time: nobody who does not know the key
// finds two chunks of 4 MiB with the same digest but with a probability of 2^-109, and the
// HMAC hides what GMAC with a constant nonce would tell. The receiver makes the key, and
// only the state directories of both sides have it.
type hasher struct {
	key []byte
	// name distinguishes hashes: it is in the first line of a state file.
	name      string
	universal cipher.AEAD
}

var plainHash = &hasher{name: "sha256"}

// newHasher returns the hash with a key, SHA-256 for an empty one.
func newHasher(key []byte) (*hasher, error) {
	if len(key) == 0 {
		return plainHash, nil
	}
	if len(key) != hashKeySize {
		return nil, failure(ReasonCorrupt, "the key of a hash has %d bytes, want %d", len(key), hashKeySize)
	}
	block, err := aes.NewCipher(key[:hashKeySize/2])
	if err != nil {
		return nil, err
	}
	universal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(key)
	return &hasher{key: key, name: "gmac-" + hex.EncodeToString(id[:8]), universal: universal}, nil
}

// isPlain reports whether the digests are those of SHA-256.
func (h *hasher) isPlain() bool { return h.universal == nil }

// sum is the digest of length, layout and data of a chunk.
func (h *hasher) sum(c *chunk) [sha256.Size]byte {
	to := sha256.New()
	if !h.isPlain() {
		to = hmac.New(sha256.New, h.key[hashKeySize/2:])
	}
	var head [2 * binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(head[:0], uint64(c.length))
	to.Write(binary.AppendUvarint(b, uint64(len(c.layout))))
	to.Write(c.layout)
	if h.isPlain() {
		to.Write(c.data)
		return [sha256.Size]byte(to.Sum(nil))
	}
	var nonce [12]byte
	to.Write(h.universal.Seal(nil, nonce[:], nil, c.data))
	return [sha256.Size]byte(to.Sum(nil))
}

// hashFile is a file of the state directory of a receiver: the key, nothing for SHA-256.
const hashFile = "hash"

// loadHash returns the hash of a receiver, and makes a key for one that has none yet.
func loadHash(state string, plain bool) (*hasher, error) {
	key, err := os.ReadFile(filepath.Join(state, hashFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && plain && len(key) > 0 {
		key = nil
		if !plain {
			key = make([]byte, hashKeySize)
			rand.Read(key)
		}
		err = saveHash(state, key)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the hash: %w", err)
	}
	return newHasher(key)
}

func saveHash(state string, key []byte) error {
	return atomicfile.Write(filepath.Join(state, hashFile), strings.NewReader(string(key)), 0o600)
}
