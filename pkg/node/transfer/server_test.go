package transfer

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// admission admits one sender for one migration and attempt.
type admission struct {
	fingerprint string
	migration   types.UID
	attempt     int32
	destination *Destination
}

func (a *admission) Knows(fingerprint string) bool { return fingerprint == a.fingerprint }

func (a *admission) Admit(fingerprint string, hello Hello) (*Destination, error) {
	if fingerprint != a.fingerprint || hello.Migration != a.migration || hello.Attempt != a.attempt {
		return nil, fmt.Errorf("migration %s, attempt %d, does not expect this sender", hello.Migration, hello.Attempt)
	}
	return a.destination, nil
}

// endings collects what came of connections.
type endings struct {
	mu  sync.Mutex
	all []error
}

func (e *endings) add(_ net.Addr, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, err)
}

func newIdentity(t testing.TB) *Identity {
	t.Helper()
	identity, err := NewIdentity()
	must(t, err)
	return identity
}

// serve serves a destination and returns its address.
func serve(t *testing.T, identity *Identity, a Admission, ended func(net.Addr, error)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, listener, identity, a, ended) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return listener.Addr().String()
}

func TestOverTLS(t *testing.T) {
	b := newBed(t)
	m := newTreeMaker(t, 3, b.from)
	for range 40 {
		m.add()
	}
	b.openSource()
	b.openDestination()
	ours, theirs := newIdentity(t), newIdentity(t)
	address := serve(t, theirs, &admission{ours.Fingerprint(), testUID, 1, b.destination}, nil)
	conn, err := ours.Dial(t.Context(), address, theirs.Fingerprint())
	must(t, err)
	must(t, b.source.Connect(t.Context(), conn))
	result, err := b.pass(PassOptions{Frozen: true, Last: true})
	must(t, err)
	if result.Digest != b.destination.Sealed() {
		t.Errorf("sealed is %s, want %s", b.destination.Sealed(), result.Digest)
	}
	compareTrees(t, b.from, b.to)
}

func TestStrangersAreRefused(t *testing.T) {
	b := newBed(t)
	b.withCopy = false
	b.openDestination()
	ours, theirs, stranger := newIdentity(t), newIdentity(t), newIdentity(t)
	address := serve(t, theirs, &admission{ours.Fingerprint(), testUID, 1, b.destination}, nil)
	send := func(identity *Identity, peer string, migration types.UID, attempt int32) error {
		conn, err := identity.Dial(t.Context(), address, peer)
		if err != nil {
			return err
		}
		s, err := OpenSource(SourceConfig{Migration: migration, Attempt: attempt, Volumes: b.volume(b.from), State: t.TempDir()})
		must(t, err)
		defer s.Close()
		return s.Connect(t.Context(), conn)
	}
	tests := map[string]struct {
		identity  *Identity
		peer      string
		migration types.UID
		attempt   int32
		says      string
	}{
		"a sender that nobody knows":    {stranger, theirs.Fingerprint(), testUID, 1, "connection ended"},
		"a receiver that is another":    {ours, stranger.Fingerprint(), testUID, 1, "which is not expected"},
		"another migration":             {ours, theirs.Fingerprint(), "99999999-0000-4000-8000-000000000001", 1, "does not expect this sender"},
		"an earlier attempt":            {ours, theirs.Fingerprint(), testUID, 0, "does not expect this sender"},
		"no fingerprint":                {ours, "sha256:", testUID, 1, "no fingerprint"},
		"a fingerprint in upper case":   {ours, strings.ToUpper(theirs.Fingerprint()), testUID, 1, "no fingerprint"},
		"itself, which is not expected": {theirs, theirs.Fingerprint(), testUID, 1, "connection ended"},
	}
	for name, test := range tests {
		if err := send(test.identity, test.peer, test.migration, test.attempt); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
	must(t, send(ours, theirs.Fingerprint(), testUID, 1))
}

// TestOlderProtocolsAreRefused: TLS 1.2, no ALPN, another ALPN, no certificate.
func TestOlderProtocolsAreRefused(t *testing.T) {
	b := newBed(t)
	b.withCopy = false
	b.openDestination()
	ours, theirs := newIdentity(t), newIdentity(t)
	var ended endings
	address := serve(t, theirs, &admission{ours.Fingerprint(), testUID, 1, b.destination}, ended.add)
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":          func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no protocol":      func(c *tls.Config) { c.NextProtos = nil },
		"another protocol": func(c *tls.Config) { c.NextProtos = []string{"ai-storage-transfer/0"} },
		"no certificate":   func(c *tls.Config) { c.Certificates = nil },
	} {
		config, err := ours.ClientConfig(theirs.Fingerprint())
		must(t, err)
		change(config)
		config.VerifyConnection = nil
		conn, err := tls.Dial("tcp", address, config)
		if err == nil {
			// In TLS 1.3 the client is done before the server has looked at it.
			_, _ = conn.Write(helloFrame())
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = io.ReadFull(conn, make([]byte, 1))
			conn.Close()
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is accepted: %v", name, err)
		}
	}
}

// TestAReplayIsNoConnection: bytes of a connection that were recorded begin no other one.
func TestAReplayIsNoConnection(t *testing.T) {
	b := newBed(t)
	b.withCopy = false
	must(t, os.WriteFile(b.from+"/f", []byte("x"), 0o600))
	b.openSource()
	b.openDestination()
	ours, theirs := newIdentity(t), newIdentity(t)
	var ended endings
	address := serve(t, theirs, &admission{ours.Fingerprint(), testUID, 1, b.destination}, ended.add)
	plain, err := net.Dial("tcp", address)
	must(t, err)
	record := &recordedConn{Conn: plain}
	config, err := ours.ClientConfig(theirs.Fingerprint())
	must(t, err)
	must(t, b.source.Connect(t.Context(), tls.Client(record, config)))
	_, err = b.pass(PassOptions{})
	must(t, err)
	again, err := net.Dial("tcp", address)
	must(t, err)
	defer again.Close()
	_, err = again.Write(record.sent)
	must(t, err)
	_ = again.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err = io.Copy(io.Discard, again)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the receiver keeps a replayed connection")
	}
	// It tells after it has closed the connection.
	eventually(t, func() error {
		ended.mu.Lock()
		defer ended.mu.Unlock()
		if len(ended.all) != 1 || !strings.Contains(fmt.Sprint(ended.all), "did not show who it is") {
			return fmt.Errorf("the receiver says %v", ended.all)
		}
		return nil
	})
}

type recordedConn struct {
	net.Conn
	sent []byte
}

func (c *recordedConn) Write(b []byte) (int, error) {
	c.sent = append(c.sent, b...)
	return c.Conn.Write(b)
}

// TestASilentPeerIsLeft: neither side waits for ever, and a context ends all at once.
func TestASilentPeerIsLeft(t *testing.T) {
	b := newBed(t)
	b.withCopy = false
	b.openSource()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() { _, _ = io.Copy(io.Discard, theirs) }() // reads, and says nothing
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := b.source.Connect(ctx, ours); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("the sender gets %v after %s", err, time.Since(began))
	}
	one, other := net.Pipe()
	defer other.Close()
	silent := &timedConn{Conn: one, ctx: t.Context(), idle: 50 * time.Millisecond}
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading from a silent peer: %v", err)
	}
	if _, err := silent.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing to a peer that does not read: %v", err)
	}
}

// TestANewConnectionTakesThePlaceOfTheOld: one that hangs does not keep the others out.
func TestANewConnectionTakesThePlaceOfTheOld(t *testing.T) {
	b := newBed(t)
	must(t, os.WriteFile(b.from+"/f", []byte("x"), 0o600))
	must(t, b.connect(nil))
	old := b.served
	other, err := OpenSource(SourceConfig{Migration: testUID, Attempt: 1, Volumes: b.volume(b.from), State: t.TempDir()})
	must(t, err)
	defer other.Close()
	first := b.source
	b.source = other
	must(t, b.connect(nil))
	if err := <-old; !errors.Is(err, errSuperseded) {
		t.Errorf("the old connection ends with %v", err)
	}
	_, err = b.pass(PassOptions{})
	must(t, err)
	if _, err := first.Pass(t.Context(), PassOptions{}); ReasonOf(err) != ReasonDisconnected {
		t.Errorf("the old sender gets %v", err)
	}
	must(t, first.Close())
	compareTrees(t, b.from, b.to)
}

// TestAHostileReceiver: what a receiver says of its manifest is checked.
func TestAHostileReceiver(t *testing.T) {
	welcome := encodeFrame(frameWelcome, []byte{version}, make([]byte, 32), []byte{0})
	records := func(all ...*record) []byte {
		var b []byte
		for _, r := range all {
			encoded := appendRecord(nil, r)
			b = append(binary.AppendUvarint(b, uint64(len(encoded))), encoded...)
		}
		return append(encodeFrame(frameManifest, b), encodeFrame(frameManifest)...)
	}
	volume, root := &record{kind: kindVolume, path: "data"}, &record{kind: kindDir}
	tests := map[string]struct {
		answers [][]byte
		says    string
	}{
		"another version":       {[][]byte{encodeFrame(frameWelcome, []byte{version + 1}, make([]byte, 32), []byte{0})}, "version 2"},
		"a short digest":        {[][]byte{encodeFrame(frameWelcome, []byte{version}, make([]byte, 3))}, "bytes are missing"},
		"a key that is none":    {[][]byte{encodeFrame(frameWelcome, []byte{version}, make([]byte, 32), []byte{1, 7})}, "has 1 bytes, want 32"},
		"a failure":             {[][]byte{encodeFrame(frameFail, appendString(appendString(nil, ReasonNoSpace), "full"))}, `"full"`},
		"an endless failure":    {[][]byte{encodeFrame(frameFail, appendString(appendString(nil, "X"), strings.Repeat("x", maxMessage+1)))}, "exceeds 4096"},
		"another manifest":      {[][]byte{welcome, records(volume, root)}, "its manifest has digest"},
		"paths upwards":         {[][]byte{welcome, records(volume, root, fileRecord("../f", "x"))}, "no name of a file"},
		"names out of order":    {[][]byte{welcome, records(volume, root, fileRecord("b", "x"), fileRecord("a", "x"))}, "comes after"},
		"a record of 2^60":      {[][]byte{welcome, encodeFrame(frameManifest, binary.AppendUvarint(nil, 1<<60))}, "at most"},
		"a record that is cut":  {[][]byte{welcome, encodeFrame(frameManifest, []byte{200, 1, 'd'}), encodeFrame(frameManifest)}, "cut off"},
		"a frame of the sender": {[][]byte{welcome, encodeFrame(framePut)}, "want 'm'"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.openSource()
			ours, theirs := socketPair(t)
			defer theirs.Close()
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			for _, answer := range test.answers {
				_, err := theirs.Write(answer)
				must(t, err)
			}
			must(t, theirs.CloseWrite())
			if err := b.source.Connect(t.Context(), ours); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the sender says %v, want %q", err, test.says)
			}
		})
	}
}
