package transfer

import (
	"encoding/binary"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// version is that of the frames. Each side refuses another one.
const version = 1

// Hello is what a sender says of itself. Nothing of it is secret: who it is says its
// certificate.
type Hello struct {
	Migration types.UID
	Attempt   int32
	// volumes are names, with a leading "l" for a layer or "v" for another volume.
	volumes []string
	// plain asks for SHA-256 as the hash of chunks: that of a sealed copy.
	plain bool
}

func (s *Source) hello() Hello {
	h := Hello{Migration: s.migration, Attempt: s.attempt, volumes: volumeMarks(s.volumes)}
	if s.copy != nil {
		h.volumes, h.plain = s.copy.marks, true
	}
	return h
}

func volumeMarks(volumes []openVolume) []string {
	var marks []string
	for _, v := range volumes {
		mark := "v"
		if v.Layer {
			mark = "l"
		}
		marks = append(marks, mark+v.Name)
	}
	return marks
}

func (h Hello) encode() []byte {
	b := binary.AppendUvarint(nil, version)
	b = appendString(b, string(h.Migration))
	b = binary.AppendUvarint(b, uint64(h.Attempt))
	b = binary.AppendUvarint(b, uint64(len(h.volumes)))
	for _, v := range h.volumes {
		b = appendString(b, v)
	}
	return append(b, flag(h.plain))
}

func decodeHello(b []byte) (Hello, error) {
	d := decoder{rest: b}
	if v := d.uint(1 << 16); d.err == nil && v != version {
		return Hello{}, failure(ReasonRefused, "the sender has version %d of the protocol, want %d", v, version)
	}
	h := Hello{Migration: types.UID(d.sized(64)), Attempt: int32(d.uint(1<<31 - 1))}
	for range d.uint(maxVolumes) {
		h.volumes = append(h.volumes, string(d.sized(1+maxName)))
	}
	plain := d.byte()
	if err := d.end(); err != nil {
		return Hello{}, err
	}
	if h.plain = plain == 1; plain > 1 {
		return Hello{}, failure(ReasonCorrupt, "a hello has the mark %d", plain)
	}
	if !v1alpha1.IsUID(string(h.Migration)) {
		return Hello{}, failure(ReasonRefused, "%q is no UID of a migration", h.Migration)
	}
	return h, nil
}
