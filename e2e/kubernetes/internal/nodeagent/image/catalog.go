// Package image says which local program stands for a container image.
package image

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Program is a local program that stands for an image.
type Program struct {
	// Entrypoint is the file to run.
	Entrypoint string
	// Arguments are its default arguments, as an image's CMD.
	Arguments []string
	// Root is a directory with the files of an image that has several programs;
	// a command is looked for in it. Such an image has no entrypoint.
	Root string
}

// Catalog maps image names to programs. A name is a whole repository or its
// last part; tags and digests do not count.
type Catalog struct {
	programs map[string]Program
}

// Unknown says that no program stands for an image.
type Unknown struct {
	Image string
	Known []string
}

func (e *Unknown) Error() string {
	return fmt.Sprintf("image %q stands for no program of the lab: known images are %s", e.Image, strings.Join(e.Known, ", "))
}

// ParseCatalog reads entries of the form NAME=PROGRAM [ARGUMENT ..] or
// NAME=DIRECTORY/.
func ParseCatalog(entries []string) (Catalog, error) {
	catalog := Catalog{programs: make(map[string]Program, len(entries))}
	for _, entry := range entries {
		name, program, found := strings.Cut(entry, "=")
		words := strings.Fields(program)
		if !found || name == "" || len(words) == 0 {
			return Catalog{}, fmt.Errorf("image %q: write NAME=PROGRAM [ARGUMENT ..] or NAME=DIRECTORY/", entry)
		}
		if _, twice := catalog.programs[name]; twice {
			return Catalog{}, fmt.Errorf("image %q is given twice: remove one", name)
		}
		if strings.HasSuffix(words[0], "/") && len(words) == 1 {
			catalog.programs[name] = Program{Root: words[0]}
			continue
		}
		catalog.programs[name] = Program{Entrypoint: words[0], Arguments: words[1:]}
	}
	return catalog, nil
}

// Names are the known images in order.
func (c Catalog) Names() []string {
	return slices.Sorted(maps.Keys(c.programs))
}

// Find returns the program that stands for an image.
func (c Catalog) Find(image string) (Program, error) {
	repository := repositoryOf(image)
	for _, name := range []string{repository, path.Base(repository)} {
		if program, known := c.programs[name]; known {
			return program, nil
		}
	}
	return Program{}, &Unknown{Image: image, Known: c.Names()}
}

// Files are the program itself, if it is a path, and what lies in a directory
// beside it named like it with ".files": the files of the image.
func (p Program) Files() []string {
	if !strings.Contains(p.Entrypoint, "/") {
		return nil
	}
	files := []string{p.Entrypoint}
	beside := p.Entrypoint + ".files"
	// Most images have no other files.
	entries, _ := os.ReadDir(beside)
	for _, entry := range entries {
		files = append(files, filepath.Join(beside, entry.Name()))
	}
	return files
}

// Command is what to run for a container's command and args, which replace
// the image's entrypoint and arguments as in any container runtime. A command
// named like the image's own entrypoint is that program, wherever it lies here.
func (p Program) Command(command, args []string) []string {
	if p.Root != "" && len(command) > 0 {
		return slices.Concat([]string{path.Join(p.Root, command[0])}, command[1:], args)
	}
	if len(command) == 0 {
		if len(args) == 0 {
			args = p.Arguments
		}
		return append([]string{p.Entrypoint}, args...)
	}
	whole := slices.Concat(command, args)
	if path.Base(whole[0]) == path.Base(p.Entrypoint) {
		whole[0] = p.Entrypoint
	}
	return whole
}

// repositoryOf removes tag and digest: a colon in a later part than the last
// slash starts a tag, an earlier one is a registry's port.
func repositoryOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		image = image[:colon]
	}
	return image
}
