package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/apis/migration/v1alpha1"
)

// Source sends volumes. Its methods must not be called at the same time.
type Source struct {
	migration types.UID
	attempt   int32
	state     string
	boot      string
	// hash is that of the receiver; nil until it has said so.
	hash    *hasher
	volumes []openVolume
	limit   *rate.Limiter
	// copy is set when a sealed copy is read instead of volumes.
	copy *copySource

	// base is what the other side has, with the signatures of this one.
	base *manifest
	conn *connection
	// close ends the connection.
	close func()
	pass  int64
	// release lets another Source use the state directory.
	release func()
	// hung is closed when a pass that was abandoned has ended; nil when none was.
	hung chan struct{}
}

// SourceConfig is what a Source is made of.
type SourceConfig struct {
	Migration types.UID
	Attempt   int32
	Volumes   []Volume
	// State is a directory of this migration alone that root alone can enter. What is
	// known of the files is kept there, about 100 bytes for each and 33 for 4 MiB.
	State string
	// Limit, when set, bounds what is sent while the pod runs, in bytes. Its burst should
	// be 256 KiB or more. Several sources may share one.
	Limit *rate.Limiter
}

// OpenSource opens the volumes to be sent. It leaves nothing open after an error.
func OpenSource(config SourceConfig) (*Source, error) {
	s, err := newSource(config)
	if err != nil {
		return nil, err
	}
	late := make(chan struct{})
	defer time.AfterFunc(openTimeout, func() { close(late) }).Stop()
	if s.volumes, err = abandonAfter(late, func() ([]openVolume, error) { return openVolumes(config.Volumes) }, closeVolumes); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func newSource(config SourceConfig) (*Source, error) {
	if !v1alpha1.IsUID(string(config.Migration)) {
		return nil, failure(ReasonFailed, "%q is no UID of a migration", config.Migration)
	}
	s := &Source{migration: config.Migration, attempt: config.Attempt, state: config.State, limit: config.Limit}
	var err error
	if s.release, err = occupy(filepath.Clean(config.State)); err != nil {
		return nil, err
	}
	if s.boot, err = prepareState(config.State); err == nil {
		s.base, err = loadManifest(s.state)
	}
	if err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// Close ends the connection and closes the volumes. The state stays, for another Source.
// It does not wait for a storage that does not answer: what is open is closed when it does.
func (s *Source) Close() error {
	closeAll := func() error {
		defer s.release()
		s.disconnect()
		closeVolumes(s.volumes)
		s.volumes = nil
		return s.copy.closeAll()
	}
	if s.isHung() {
		go func() {
			<-s.hung
			_ = closeAll()
		}()
		return errHung
	}
	return briefly(closeAll)
}

// isHung reports whether a pass was abandoned and has not ended.
func (s *Source) isHung() bool {
	if s.hung == nil {
		return false
	}
	select {
	case <-s.hung:
		return false
	default:
		return true
	}
}

func (s *Source) disconnect() {
	if s.conn != nil {
		s.close()
		s.conn = nil
	}
}

// Connect introduces this side to a receiver, and learns what it has. A connection that
// was there before ends. It lasts until an error, Close or the end of the context.
func (s *Source) Connect(ctx context.Context, conn net.Conn) error {
	if s.isHung() {
		_ = conn.Close()
		return errHung
	}
	s.disconnect()
	c, stop := connect(ctx, conn, sendBuffers, s.limit)
	stopPings := c.pinging()
	s.conn, s.close = c, func() { stop(); stopPings() }
	if err := s.introduce(); err != nil {
		s.disconnect()
		return fmt.Errorf("connecting to the receiver: %w", explainState(s.state, err))
	}
	return nil
}

func (s *Source) introduce() error {
	if err := s.conn.sendNow(frameHello, s.hello().encode()); err != nil {
		return err
	}
	f, err := s.conn.expect(frameWelcome)
	if err != nil {
		return err
	}
	d := decoder{rest: f.content}
	theirs := d.uint(1 << 16)
	digest := hex.EncodeToString(d.bytes(32))
	key := bytes.Clone(d.sized(hashKeySize))
	if d.err == nil && theirs != version {
		return failure(ReasonRefused, "the receiver has version %d of the protocol, want %d", theirs, version)
	}
	if err := d.end(); err != nil {
		return err
	}
	if s.hash, err = newHasher(key); err != nil {
		return err
	}
	if s.copy != nil && !s.hash.isPlain() {
		return failure(ReasonRefused, "the receiver does not use SHA-256, which a sealed copy needs")
	}
	if s.base != nil && s.base.origin != originOf(s.boot, s.hash) {
		s.base = nil // neither its signatures nor its digests count
	}
	if s.base != nil && s.base.digest == digest {
		return nil
	}
	return s.learn(digest)
}

// learn asks for the manifest of the receiver. What this side knows of files that the
// receiver has as they were stays known.
func (s *Source) learn(digest string) error {
	if err := s.conn.sendNow(frameWant); err != nil {
		return err
	}
	var known *manifestReader
	if s.base != nil {
		var err error
		if known, err = s.base.open(); err != nil {
			return err
		}
		defer known.close()
	}
	stream := &manifestStream{from: s.conn}
	defer stream.close()
	learned, err := importManifest(stream, s.state, originOf(s.boot, s.hash), known)
	if err != nil {
		return fmt.Errorf("reading what the receiver has: %w", err)
	}
	if learned.digest != digest {
		return failure(ReasonCorrupt, "what the receiver has is not what it says: its manifest has digest %s, want %s", learned.digest, digest)
	}
	s.base = learned
	return nil
}

// PassOptions are those of a pass.
type PassOptions struct {
	// Frozen says that the pod is, so that nothing changes.
	Frozen bool
	// Last asks the receiver to make all durable and to seal the copy, if there is one.
	Last bool
	// Progress, which may be nil, is called about once a second.
	Progress func(Progress)
}

// Pass sends what differs from what the receiver has. Files that change or vanish
// meanwhile are taken up by the next pass; where that must not be, since it is the last
// one, it ends with ReasonChanged, is not sealed, and can be repeated.
//
// After ReasonDisconnected, and whenever the context ended, a new connection continues.
// After the other errors too, once what caused them has passed; they are ReasonNoSpace,
// ReasonUnsupportedFile, ReasonTooLarge, ReasonCorrupt, ReasonRefused and ReasonFailed.
//
// Pass returns a few seconds after the end of the context even where a volume does not
// answer. Until it does, no further pass begins.
func (s *Source) Pass(ctx context.Context, options PassOptions) (PassResult, error) {
	if s.isHung() {
		return PassResult{}, errHung
	}
	if s.conn == nil {
		return PassResult{}, failure(ReasonDisconnected, "there is no connection to the receiver")
	}
	hung := make(chan struct{})
	result, err := abandonable(ctx, func() (PassResult, error) {
		result, err := s.exchange(ctx, options)
		if err != nil && !errors.Is(err, errDisturbed) {
			s.disconnect()
		}
		return result, explainState(s.state, err)
	}, func(PassResult) { close(hung) })
	if errors.Is(err, errHung) {
		s.hung = hung
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, errDisturbed) {
		err = errors.Join(cause, err)
	}
	return result, err
}

// errDisturbed is the failure of a last pass during which something changed.
var errDisturbed = failure(ReasonChanged, "files changed while the last pass ran")

func (s *Source) exchange(ctx context.Context, options PassOptions) (PassResult, error) {
	stop := context.AfterFunc(ctx, s.close)
	defer stop()
	s.pass++
	p := &passage{frozen: options.Frozen, still: s.copy != nil, budget: s.conn.budget, hash: s.hash, to: s.conn, progress: options.Progress}
	p.result.Pass = s.pass
	s.conn.conn.limited.Store(!options.Frozen)
	answer := make(chan error, 1)
	var theirs string
	whole := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := s.conn.send(frameBegin, append(binary.AppendUvarint(nil, uint64(s.pass)), flag(options.Frozen))); err != nil {
		return p.result, err
	}
	go func() {
		var err error
		theirs, err = s.answer()
		if err != nil {
			cancel(err)
		}
		answer <- err
	}()
	sealing, err := s.send(ctx, p, options)
	if err != nil {
		// What the receiver says is the reason, if it said something.
		s.close()
		if said := answered(<-answer); said != nil {
			err = s.needed(whole, options, said)
		}
		return p.result, err
	}
	if err := <-answer; err != nil {
		return p.result, s.needed(whole, options, err)
	}
	if theirs != s.base.digest {
		return p.result, failure(ReasonCorrupt, "the receiver has a manifest with digest %s, want %s", theirs, s.base.digest)
	}
	p.result.Digest, p.result.Sealed = theirs, sealing
	if options.Last && !sealing {
		return p.result, errDisturbed
	}
	return p.result, nil
}

// answered drops the error that comes of closing the connection.
func answered(err error) error {
	if ReasonOf(err) == ReasonDisconnected {
		return nil
	}
	return err
}

// answer waits for the end of a pass as the receiver sees it.
func (s *Source) answer() (digest string, err error) {
	f, err := s.conn.expect(frameDone)
	if err != nil {
		return "", err
	}
	if len(f.content) != 32 {
		return "", failure(ReasonCorrupt, "the answer of the receiver has %d bytes", len(f.content))
	}
	return hex.EncodeToString(f.content), nil
}

// send sends a pass to its end.
func (s *Source) send(ctx context.Context, p *passage, options PassOptions) (sealing bool, err error) {
	next, err := createManifest(s.state, originOf(s.boot, s.hash))
	if err != nil {
		return false, err
	}
	if err := p.run(ctx, s.base, next, s.plan); err != nil {
		// What was read is known, whatever the receiver has of it.
		return false, errors.Join(err, s.keep(next))
	}
	if s.base, err = next.finish(s.state); err != nil {
		return false, err
	}
	sealing = options.Last && !p.disturbed.Load()
	digest, err := hex.DecodeString(s.base.digest)
	if err != nil {
		return false, err
	}
	end := append(digest, flag(sealing))
	return sealing, s.conn.sendNow(frameEnd, binary.AppendUvarint(end, uint64(s.base.entries)))
}

// keep completes the manifest of a pass that failed with what was known before. It is
// not what the receiver has: that is learned with the next connection.
func (s *Source) keep(next *manifestWriter) error {
	base, err := s.base.open()
	if err != nil {
		return errors.Join(err, next.discard())
	}
	defer base.close()
	if err := copyRest(base, "", next); err != nil {
		return errors.Join(err, next.discard())
	}
	s.base, err = next.finish(s.state)
	return err
}

func (s *Source) plan(p *planner) error {
	if s.copy != nil {
		return s.copy.plan(p)
	}
	return p.all(s.volumes)
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}
