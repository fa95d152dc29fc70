package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ai-storage/orchestrator/pkg/node/transfer"
)

const migration = types.UID("0b1c2d3e-0000-4000-8000-000000000001")

// pair is a sender and a receiver, connected.
type pair struct {
	source      *transfer.Source
	destination *transfer.Destination
	stop        context.CancelFunc
	served      chan error
}

// admitted admits the one sender.
type admitted struct {
	fingerprint string
	destination *transfer.Destination
}

func (a admitted) Knows(fingerprint string) bool { return fingerprint == a.fingerprint }

func (a admitted) Admit(string, transfer.Hello) (*transfer.Destination, error) {
	return a.destination, nil
}

func volume(path string) []transfer.Volume {
	return []transfer.Volume{{Name: "data", Root: filepath.Dir(path), Path: filepath.Base(path)}}
}

// connect opens both sides.
func (b *bench) connect(withCopy bool) (p *pair, err error) {
	p = &pair{stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	config := transfer.DestinationConfig{Migration: migration, Volumes: volume(b.path("to")), State: b.path("state/destination")}
	if withCopy {
		config.Copy = &transfer.Copy{Root: filepath.Dir(b.path("copy")), Path: "copy"}
	}
	if p.destination, err = transfer.OpenDestination(b.ctx, config); err != nil {
		return p, err
	}
	if p.source, err = transfer.OpenSource(transfer.SourceConfig{Migration: migration, Attempt: 1, Volumes: volume(b.path("from")), State: b.path("state/source")}); err != nil {
		return p, err
	}
	ours, err := transfer.NewIdentity()
	if err != nil {
		return p, err
	}
	theirs, err := transfer.NewIdentity()
	if err != nil {
		return p, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return p, err
	}
	ctx, stop := context.WithCancel(b.ctx)
	p.stop, p.served = stop, make(chan error, 1)
	destination := p.destination
	served := p.served
	go func() {
		served <- transfer.Serve(ctx, listener, theirs, admitted{ours.Fingerprint(), destination}, nil)
	}()
	conn, err := ours.Dial(b.ctx, listener.Addr().String(), theirs.Fingerprint())
	if err != nil {
		return p, err
	}
	return p, p.source.Connect(b.ctx, conn)
}

func (p *pair) close() error {
	var err error
	if p.source != nil {
		err = p.source.Close()
	}
	p.stop()
	if p.served != nil {
		err = errors.Join(err, <-p.served)
	}
	if p.destination != nil {
		err = errors.Join(err, p.destination.Close())
	}
	return err
}

// transfer measures a first pass into an empty volume, which is the last one where all
// has to be durable.
func (b *bench) transfer(durable, withCopy bool) (own cost, err error) {
	if err := b.fresh(); err != nil {
		return cost{}, err
	}
	p, err := b.connect(withCopy)
	if err != nil {
		return cost{}, err
	}
	own, err = b.timed(func() error {
		_, err := p.source.Pass(b.ctx, transfer.PassOptions{Last: durable, Frozen: durable})
		return err
	})
	return own, errors.Join(err, p.close())
}

// sealedCopy makes a sealed copy, and returns its digest.
func (b *bench) sealedCopy() (digest string, err error) {
	if err := b.fresh(); err != nil {
		return "", err
	}
	p, err := b.connect(true)
	if err != nil {
		return "", err
	}
	result, err := p.source.Pass(b.ctx, transfer.PassOptions{Last: true, Frozen: true})
	return result.Digest, errors.Join(err, p.close())
}

// restore measures the restoration of the sealed copy into an empty volume.
func (b *bench) restore(sealed, digest string) (own cost, err error) {
	if err := b.fresh(); err != nil {
		return cost{}, err
	}
	return b.timed(func() error {
		d, err := transfer.OpenDestination(b.ctx, transfer.DestinationConfig{Migration: migration, Volumes: volume(b.path("to")), State: b.path("state/destination")})
		if err != nil {
			return err
		}
		_, err = transfer.Restore(b.ctx, transfer.Copy{Root: filepath.Dir(sealed), Path: "copy"}, digest, b.path("state/restore"), d)
		return errors.Join(err, d.Close())
	})
}

// lastPass measures the pass of a frozen pod, with a sealed copy, after a second in which
// it changed 1 % of its files.
func (b *bench) lastPass() (own cost, err error) {
	if err := b.fresh(); err != nil {
		return cost{}, err
	}
	p, err := b.connect(true)
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	for range 3 {
		if err := b.changeFiles(time.Second); err != nil {
			return cost{}, err
		}
		if _, err := p.source.Pass(b.ctx, transfer.PassOptions{}); err != nil {
			return cost{}, err
		}
	}
	if err := b.changeFiles(time.Second); err != nil {
		return cost{}, err
	}
	return measured(func() error {
		_, err := p.source.Pass(b.ctx, transfer.PassOptions{Frozen: true, Last: true})
		return err
	})
}

// changeFiles changes 1 % of the files, evenly over a time.
func (b *bench) changeFiles(within time.Duration) error {
	every := time.NewTicker(within / time.Duration(b.files/100))
	defer every.Stop()
	for i := 0; i < b.files; i += 100 {
		<-every.C
		name := filepath.Join(b.path("from"), fmt.Sprintf("d%03d", i/200), fmt.Sprintf("file-%06d", i))
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = file.WriteAt([]byte(time.Now().Format(time.RFC3339Nano)), 100)
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}

// stream measures what TLS alone takes for a number of bytes, between two goroutines of
// this process over the loopback interface, as a transfer does it.
func (b *bench) stream(size int64) (own cost, err error) {
	ours, err := transfer.NewIdentity()
	if err != nil {
		return cost{}, err
	}
	config, err := ours.ClientConfig(ours.Fingerprint())
	if err != nil {
		return cost{}, err
	}
	server := config.Clone()
	server.ClientAuth = tls.RequireAnyClientCert
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		return cost{}, err
	}
	defer listener.Close()
	received := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, conn, make([]byte, 256<<10))
			err = errors.Join(err, conn.Close())
		}
		received <- err
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), config)
	if err != nil {
		return cost{}, err
	}
	block := make([]byte, 256<<10)
	return measured(func() error {
		var err error
		for sent := int64(0); sent < size && err == nil; sent += int64(len(block)) {
			_, err = conn.Write(block)
		}
		return errors.Join(err, conn.Close(), <-received)
	})
}
