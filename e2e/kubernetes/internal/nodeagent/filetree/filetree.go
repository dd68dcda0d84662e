// Package filetree gives a process a file tree of its own: that of the machine
// with other files and directories in some places.
//
// The tree is a tmpfs in a mount namespace that holds the machine's directories
// as bind mounts. Where a place does not exist on the machine, the directories
// above it are made in the tmpfs, so the machine's own never change.
package filetree

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount puts a file or directory of the machine into a place of the tree.
type Mount struct {
	Source   string
	Target   string
	ReadOnly bool
}

// Tree is a file tree.
type Tree struct {
	// Root is an empty directory of the machine to build it at; others do not
	// see what is built there.
	Root   string
	Mounts []Mount
}

// Enter moves the current thread, which must be locked to its goroutine for
// good, into a mount namespace of its own with the tree as its root.
func (t Tree) Enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", t.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", t.Root, err)
	}
	// Or the tree would hold a copy of itself.
	if err := unix.Mount("", t.Root, "", unix.MS_UNBINDABLE, ""); err != nil {
		return fmt.Errorf("keep %s out of itself: %w", t.Root, err)
	}
	mounts, err := resolved(t.Mounts)
	if err != nil {
		return err
	}
	if err := t.copyDirectory("/", opened(mounts, exists)); err != nil {
		return err
	}
	for _, mount := range mounts {
		if err := t.place(mount); err != nil {
			return fmt.Errorf("mount %s: %w", mount.Target, err)
		}
	}
	return t.pivot()
}

// pivot makes the tree the root and lets go of the old one.
func (t Tree) pivot() error {
	if err := unix.Chdir(t.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("make %s the root: %w", t.Root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	return unix.Chdir("/")
}

// copyDirectory makes a directory of the tree that holds what the machine's
// directory holds, open directories again as such.
func (t Tree) copyDirectory(directory string, open map[string]bool) error {
	if err := os.MkdirAll(t.Root+directory, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(directory)
	if ignoreMissing(err) != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(directory, entry.Name())
		if open[path] {
			continue
		}
		if err := t.copyEntry(path, entry); err != nil {
			return fmt.Errorf("copy %s: %w", path, err)
		}
	}
	for path := range open {
		if path != "/" && filepath.Dir(path) == directory {
			if err := t.copyDirectory(path, open); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t Tree) copyEntry(path string, entry os.DirEntry) error {
	switch {
	case entry.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return ignoreMissing(err)
		}
		return os.Symlink(target, t.Root+path)
	case entry.IsDir():
		if err := os.Mkdir(t.Root+path, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(t.Root+path, nil, 0o644); err != nil {
			return err
		}
	}
	err := bind(path, t.Root+path)
	if os.IsNotExist(err) {
		// It went away meanwhile.
		return os.Remove(t.Root + path)
	}
	return err
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// place puts a mount into the tree, on a new file or directory if there is none.
func (t Tree) place(mount Mount) error {
	target := t.Root + mount.Target
	source, err := os.Stat(mount.Source)
	if err != nil {
		return err
	}
	if _, err := os.Stat(target); os.IsNotExist(err) {
		if err := makePlace(target, source.IsDir()); err != nil {
			return err
		}
	}
	if err := bind(mount.Source, target); err != nil {
		return err
	}
	if !mount.ReadOnly {
		return nil
	}
	var around unix.Statfs_t
	if err := unix.Statfs(target, &around); err != nil {
		return err
	}
	// What the file system forbids already has to stay forbidden.
	kept := uintptr(around.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_RELATIME)
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|kept, "")
}

func makePlace(path string, directory bool) error {
	if directory {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

func bind(source, target string) error {
	return unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
}

// opened are the directories that cannot be bind mounts, since something below
// them is mounted in a place that the machine has not. The mounts are in the
// order of resolved.
func opened(mounts []Mount, exists func(string) bool) map[string]bool {
	open := map[string]bool{"/": true}
	for index, mount := range mounts {
		inside := slices.ContainsFunc(mounts[:index], func(other Mount) bool { return isBelow(mount.Target, other.Target) })
		if inside || exists(mount.Target) {
			continue
		}
		for path := filepath.Dir(mount.Target); path != "/"; path = filepath.Dir(path) {
			open[path] = true
		}
	}
	return open
}

func isBelow(path, directory string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(directory, "/")+"/")
}

// resolved are the mounts with the machine's symbolic links followed in their
// targets, those above first.
func resolved(mounts []Mount) ([]Mount, error) {
	all := slices.Clone(mounts)
	for index := range all {
		target, err := resolve(all[index].Target, 0)
		if err != nil {
			return nil, err
		}
		all[index].Target = target
	}
	slices.SortStableFunc(all, func(a, b Mount) int { return cmp.Compare(len(a.Target), len(b.Target)) })
	return all, nil
}

// resolve follows symbolic links as far as there is something.
func resolve(path string, depth int) (string, error) {
	path = filepath.Clean("/" + path)
	if path == "/" {
		return path, nil
	}
	if depth > mostLinks {
		return "", fmt.Errorf("%s: %w", path, unix.ELOOP)
	}
	directory, err := resolve(filepath.Dir(path), depth)
	if err != nil {
		return "", err
	}
	path = filepath.Join(directory, filepath.Base(path))
	link, err := os.Readlink(path)
	if err != nil {
		return path, nil
	}
	if !filepath.IsAbs(link) {
		link = filepath.Join(directory, link)
	}
	return resolve(link, depth+1)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

const mostLinks = 40
