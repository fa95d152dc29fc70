package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Admission decides who may send. Its methods are called at the same time.
type Admission interface {
	// Knows reports whether any migration expects a sender with this fingerprint.
	Knows(fingerprint string) bool
	// Admit returns where the sender with this fingerprint may write for a migration and
	// an attempt. Its error is shown to the sender.
	Admit(fingerprint string, hello Hello) (*Destination, error)
}

// maxConnections bounds the connections that are served at the same time, and
// maxHandshakes those of which nobody knows yet who they are.
const (
	maxConnections = 64
	maxHandshakes  = 32
)

// Serve accepts senders until the context ends, and returns when all are done, or a few
// seconds later where a storage does not answer. ended, which may be nil, gets what came of
// each connection.
func Serve(ctx context.Context, listener net.Listener, identity *Identity, admission Admission, ended func(remote net.Addr, err error)) (err error) {
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var all sync.WaitGroup
	defer func() {
		if !waitBriefly(&all) {
			err = errors.Join(err, errHung)
		}
	}()
	s := &server{config: identity.serverConfig(admission.Knows), admission: admission, handshakes: make(chan struct{}, maxHandshakes)}
	open := make(chan struct{}, maxConnections)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			var passing net.Error
			if !errors.As(err, &passing) || !passing.Timeout() {
				return fmt.Errorf("accepting senders: %w", err)
			}
			continue
		}
		select {
		case open <- struct{}{}:
		default:
			_ = conn.Close() // whoever sends tries again
			continue
		}
		all.Go(func() {
			defer func() { <-open }()
			err := s.serve(ctx, conn)
			if ended != nil {
				ended(conn.RemoteAddr(), err)
			}
		})
	}
}

type server struct {
	config     *tls.Config
	admission  Admission
	handshakes chan struct{}
}

// serve serves one connection to its end.
func (s *server) serve(ctx context.Context, conn net.Conn) error {
	select {
	case s.handshakes <- struct{}{}:
	default:
		_ = conn.Close()
		return failure(ReasonRefused, "%d others are introducing themselves", maxHandshakes)
	}
	known := sync.OnceFunc(func() { <-s.handshakes })
	defer known()
	secure := tls.Server(conn, s.config)
	timer := time.AfterFunc(handshakeTimeout, func() { closeNow(conn) })
	defer timer.Stop()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return failure(ReasonRefused, "the other side did not show who it is: %w", err)
	}
	fingerprint := fingerprintOf(secure.ConnectionState().PeerCertificates[0].Raw)
	c, stop := connect(ctx, secure, receiveBuffers, nil)
	defer stop()
	err := receiveHello(ctx, c, func(hello Hello) (*Destination, error) {
		timer.Stop()
		known()
		return s.admission.Admit(fingerprint, hello)
	})
	return err
}

// receiveHello serves a connection from its first frame on.
func receiveHello(ctx context.Context, c *connection, admit func(Hello) (*Destination, error)) error {
	err := func() error {
		f, err := c.expect(frameHello)
		if err != nil {
			return err
		}
		hello, err := decodeHello(f.content)
		c.discard(&f)
		if err != nil {
			return err
		}
		d, err := admit(hello)
		if err != nil {
			return &Error{Reason: ReasonRefused, Err: err}
		}
		return d.serve(ctx, c, hello)
	}()
	if ReasonOf(err) != ReasonDisconnected && ctx.Err() == nil && c.sendFailure(err) == nil {
		c.linger()
	}
	return err
}

// lingerTime is how long the other side has to read why it was refused.
const lingerTime = 5 * time.Second

// linger reads what still comes: closing a connection with unread data takes away what
// was sent last.
func (c *connection) linger() {
	timer := time.AfterFunc(lingerTime, func() { closeNow(c.conn) })
	defer timer.Stop()
	for {
		f, err := c.receiveAny()
		if err != nil {
			return
		}
		c.discard(&f)
	}
}
