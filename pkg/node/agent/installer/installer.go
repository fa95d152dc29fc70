package installer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Containerd is the container runtime of the node. See NewContainerd.
type Containerd interface {
	// Config is the path of its main configuration, on the node.
	Config() (string, error)
	// Dump is what it would make of its configuration now, imports and defaults
	// included, in TOML.
	Dump(ctx context.Context) ([]byte, error)
	// Handlers are those of the running one, which answers.
	Handlers(ctx context.Context) ([]string, error)
	// Restart returns when it answers again.
	Restart(ctx context.Context) error
}

// Options of an installer.
type Options struct {
	// Handler is the name of the runtime.
	Handler string
	// Source is the program in the image of the agent, Program its path on the node.
	Source, Program string
	// Root is the node's root directory, as the agent reaches it.
	Root string
	// RecordFile remembers what was made, in a directory of the node.
	RecordFile string
	// Leftovers are directories of the node that the program makes, removed when empty.
	Leftovers  []string
	Containerd Containerd
	// Users are the containers of the node that the program was called for. They
	// could not be stopped without it.
	Users func() ([]string, error)
	// Busy says why containerd cannot be restarted at the moment; "" when it can.
	Busy func() (string, error)
}

// Installer keeps a node as it is wanted.
type Installer struct {
	Options
	root       root
	recordFile string
}

// New returns an installer, which has done nothing yet.
func New(o Options) *Installer {
	return &Installer{Options: o, root: root(o.Root), recordFile: o.RecordFile}
}

// Present reports whether something of the installer's is on the node.
func (i *Installer) Present() (bool, error) {
	r, err := i.load()
	return err == nil && r.DropIn != "", err
}

// Ensure installs the handler, or removes what was installed. It can be called
// again and again; the error says what keeps it from being done.
func (i *Installer) Ensure(ctx context.Context, wanted bool) error {
	// What was begun is finished or undone.
	ctx = context.WithoutCancel(ctx)
	r, err := i.load()
	switch {
	case err != nil:
	case wanted:
		err = i.install(ctx, r)
	default:
		err = i.remove(ctx, r)
	}
	if err != nil && wanted {
		return fmt.Errorf("installing the runtime handler: %w", err)
	}
	if err != nil {
		return fmt.Errorf("removing the runtime handler: %w", err)
	}
	return nil
}

func (i *Installer) install(ctx context.Context, r *record) error {
	before, target, err := i.survey(ctx)
	if err != nil {
		return err
	}
	if _, there := before.runtimes()[i.Handler]; there && r.DropIn == "" {
		return nil // by another client, who manages it
	}
	if r.DropIn != "" && r.DropIn != target {
		return fmt.Errorf("%s was installed, and now containerd reads %s: turn the option off and on again", r.DropIn, target)
	}
	content, err := dropIn(before.without(i.Handler), i.Handler, i.Program)
	if err != nil {
		return err
	}
	old, err := i.root.read(target)
	if err != nil {
		return err
	}
	if old != nil && r.DropIn == "" {
		return fmt.Errorf("%s is there and not of this installer", target)
	}
	if bytes.Equal(r.Refused, content) {
		return errors.New(r.Why)
	}
	if bytes.Equal(old, content) {
		if handlers, err := i.Containerd.Handlers(ctx); err == nil && slices.Contains(handlers, i.Handler) {
			return i.putProgram()
		}
		old = nil // containerd was never seen with it
	}
	if err := i.mayRestart(); err != nil {
		return err
	}
	return i.change(ctx, r, target, old, content, before)
}

// survey reads the configuration, and where a drop-in belongs.
func (i *Installer) survey(ctx context.Context) (document, string, error) {
	config, err := i.Containerd.Config()
	if err != nil {
		return nil, "", err
	}
	content, err := i.root.read(config)
	if err != nil {
		return nil, "", err
	}
	main, err := parse(content)
	if err != nil {
		return nil, "", err
	}
	directory, err := importedDirectory(main, config)
	if err != nil {
		return nil, "", err
	}
	dump, err := i.dump(ctx)
	return dump, filepath.Join(directory, i.Handler+".toml"), err
}

func (i *Installer) dump(ctx context.Context) (document, error) {
	content, err := i.Containerd.Dump(ctx)
	if err != nil {
		return nil, err
	}
	return parse(content)
}

func (i *Installer) mayRestart() error {
	busy, err := i.Busy()
	if err == nil && busy != "" {
		err = errors.New("containerd is not restarted while " + busy)
	}
	return err
}

// change writes program and drop-in and restarts containerd, or leaves all as it was.
func (i *Installer) change(ctx context.Context, r *record, target string, old, content []byte, before document) error {
	if r.DropIn == "" {
		for _, file := range []string{target, i.Program} {
			directories, err := i.root.missing(file)
			if err != nil {
				return err
			}
			r.Directories = append(r.Directories, directories...)
		}
	}
	r.DropIn, r.Program, r.Refused, r.Why = target, i.Program, nil, ""
	if err := i.save(r); err != nil {
		return err
	}
	err := i.put(target, content)
	if err == nil {
		err = i.validate(ctx, before)
	}
	if err != nil {
		return errors.Join(err, i.undo(r, old))
	}
	if err = i.Containerd.Restart(ctx); err == nil {
		err = i.mustHave(ctx, true)
	}
	if err == nil {
		return nil
	}
	why := fmt.Sprintf("containerd did not come back with the runtime handler, so what was there before is in its place again: %v", err)
	failure := errors.Join(errors.New(why), i.undo(r, old), i.Containerd.Restart(ctx))
	// The same again would fail again, and interrupt the node each time.
	r.Refused, r.Why = content, why+" (turn the option off and on to try again)"
	return errors.Join(failure, i.save(r))
}

func (i *Installer) put(target string, content []byte) error {
	if err := i.putProgram(); err != nil {
		return err
	}
	if err := i.root.makeDirectory(filepath.Dir(target)); err != nil {
		return err
	}
	return i.root.write(target, content, 0o644)
}

// putProgram writes the program where it is another. Those that run continue.
func (i *Installer) putProgram() error {
	program, err := os.ReadFile(i.Source)
	if err != nil {
		return err
	}
	if there, err := i.root.read(i.Program); err != nil || bytes.Equal(there, program) {
		return err
	}
	if err := i.root.makeDirectory(filepath.Dir(i.Program)); err != nil {
		return err
	}
	return i.root.write(i.Program, program, 0o755)
}

func (i *Installer) validate(ctx context.Context, before document) error {
	after, err := i.dump(ctx)
	if err != nil {
		return fmt.Errorf("containerd does not take its configuration with the drop-in: %w", err)
	}
	return onlyAdds(before, after, i.Handler, i.Program)
}

func (i *Installer) mustHave(ctx context.Context, wanted bool) error {
	handlers, err := i.Containerd.Handlers(ctx)
	if has := slices.Contains(handlers, i.Handler); err == nil && has != wanted {
		err = fmt.Errorf("it has the handlers %v", handlers)
	}
	return err
}

// undo restores the drop-in that was there before; where there was none nothing
// stays.
func (i *Installer) undo(r *record, old []byte) error {
	if old != nil {
		return i.root.write(r.DropIn, old, 0o644)
	}
	return i.clear(r)
}

// clear removes all that was made, and forgets it.
func (i *Installer) clear(r *record) error {
	failures := []error{i.root.remove(r.DropIn), i.root.remove(r.Program)}
	if err := errors.Join(failures...); err != nil {
		return err
	}
	for _, directory := range slices.Concat(i.Leftovers, r.Directories) {
		_ = i.root.remove(directory) // stays when others put something in
	}
	*r = record{}
	return i.save(r)
}

// remove is done in an order in which no container is left that could not be
// stopped: the program goes last, when containerd starts it no more.
func (i *Installer) remove(ctx context.Context, r *record) error {
	if r.DropIn == "" {
		return i.save(&record{})
	}
	if err := i.unused(); err != nil {
		return err
	}
	if err := i.mayRestart(); err != nil {
		return err
	}
	old, err := i.root.read(r.DropIn)
	if err != nil {
		return err
	}
	if err := i.root.remove(r.DropIn); err != nil {
		return err
	}
	handlers, err := i.Containerd.Handlers(ctx)
	if err != nil || slices.Contains(handlers, i.Handler) {
		if err := i.restartWithout(ctx, r, old); err != nil {
			return err
		}
	}
	// One that was begun while containerd was being restarted.
	if err := i.unused(); err != nil {
		return err
	}
	return i.clear(r)
}

func (i *Installer) restartWithout(ctx context.Context, r *record, old []byte) error {
	_, err := i.dump(ctx)
	if err == nil {
		if err = i.Containerd.Restart(ctx); err == nil {
			err = i.mustHave(ctx, false)
		}
	}
	if err == nil || old == nil {
		return err
	}
	return errors.Join(fmt.Errorf("containerd did not come back without the drop-in, so it is in its place again: %w", err),
		i.root.write(r.DropIn, old, 0o644), i.Containerd.Restart(ctx))
}

func (i *Installer) unused() error {
	users, err := i.Users()
	if err != nil || len(users) == 0 {
		return err
	}
	return fmt.Errorf("%d containers and sandboxes of this node run by it and could not be stopped without (%.12s …): delete or move their pods first", len(users), users[0])
}
